// Derivatives are functions of functions.
//
//     auto [value, g] = value_and_grad(loss, w);      // loss: Tensor -> Tensor of one element
//     auto hv = hvp(loss, w, v);                      // forward over reverse
//     auto [y, pullback] = vjp(f, x);                 // pullback(u) = J' u, as often as wanted
//     auto [z, zdot] = jvp(f, x, v);                  // zdot = J v
//     auto [u, linear] = linearize(f, x);             // linear(v) = J v, the primal paid once
//
// The argument is a Tensor or a TensorList; f takes it by const reference and returns a Tensor or a
// TensorList. All of them nest in any way and to any depth, and f may use outer variables that are being
// differentiated themselves. Where no path leads from an input to the output the derivative is the absent
// tensor, never zeros. int64 and boolean inputs have no derivatives.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <hypertape/core/error.h>
#include <hypertape/core/export.h>
#include <hypertape/core/tensor.h>

namespace hypertape {

namespace detail {

/// A borrowed function from tensors to tensors.
class ListFunction {
 public:
  template <class F>
  requires(!std::same_as<std::remove_cvref_t<F>, ListFunction>) ListFunction(F&& f)
  noexcept
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* object, const TensorList& x) {
          return (*static_cast<std::remove_reference_t<F>*>(object))(x);
        }) {}
  TensorList operator()(const TensorList& x) const { return call_(object_, x); }

 private:
  void* object_;
  TensorList (*call_)(void*, const TensorList&);
};

struct GraphState;                                                   // autodiff/transforms/derivatives.cpp
void note_kinks(const char* op, const Tensor& x, const Tensor& at);  // autodiff/tape/kinks.cpp

struct HYPERTAPE_API RecordedFunction {
  TensorList values;  ///< the outputs, no longer linked to the new scope
  std::shared_ptr<GraphState> state;
};
HYPERTAPE_API RecordedFunction record_function(ListFunction f, const TensorList& x);
HYPERTAPE_API TensorList pull_recorded(GraphState& state, const TensorList& cotangents, bool consume,
                                       TensorList accumulated = {});
/// The gradient of a function's only output, of one element; uses the graph up.
HYPERTAPE_API TensorList pull_scalar(GraphState& state);
HYPERTAPE_API TensorList push_recorded(GraphState& state, const TensorList& tangents, bool stacked = false);
HYPERTAPE_API std::pair<TensorList, TensorList> push_function(ListFunction f, const TensorList& x,
                                                              const TensorList& tangents);

/// What is wanted of the gradient of one input.
enum class Wanted : std::uint8_t { nothing, tangent, both };
struct HYPERTAPE_API DualGradients {
  TensorList gradients;  ///< absent where not wanted
  TensorList tangents;
};
/// The gradient of a function's only output, of one element, and its tangent along `tangents`: with dual
/// numbers, and without what is not wanted. The bits of jvp of grad.
DualGradients dual_gradients(const char* operation, ListFunction f, const TensorList& x,
                             const TensorList& tangents, const std::vector<Wanted>& wanted);
HYPERTAPE_API TensorList hessian_product(const char* operation, ListFunction f, const TensorList& x,
                                         const TensorList& tangents);
HYPERTAPE_API void require_scalar(const char* operation, const TensorList& outputs);
/// Returns `tensor` without links to the scopes of `state`, for auxiliary results.
HYPERTAPE_API Tensor leave_scope(const GraphState& state, const Tensor& tensor);

inline TensorList as_list(const Tensor& x) { return {x}; }
inline const TensorList& as_list(const TensorList& x) { return x; }
inline TensorList as_list(Tensor&& x) { return {(std::move)(x)}; }
inline TensorList as_list(TensorList&& x) { return (std::move)(x); }

template <class X>
X from_list(TensorList&& list) {
  if constexpr (std::same_as<X, Tensor>)
    return (std::move)(list.front());
  else
    return (std::move)(list);
}

template <class T>
concept TensorOrList = std::same_as<T, Tensor> || std::same_as<T, TensorList>;

template <class X, class F>
decltype(auto) call_with(F& f, const TensorList& x) {
  if constexpr (std::same_as<X, Tensor>)
    return f(x.front());
  else
    return f(x);
}
template <class X, class F>
using ResultOf =
    std::remove_cvref_t<decltype(call_with<X>(std::declval<F&>(), std::declval<const TensorList&>()))>;

template <class T>
struct IsPair : std::false_type {};
template <class A, class B>
struct IsPair<std::pair<A, B>> : std::true_type {};

}  // namespace detail

/// value_and_grad(f, x) -> {f(x), df/dx} for f whose value has one element. If f returns a pair {value,
/// auxiliary}, the result is {{value, auxiliary}, df/dx}; the auxiliary part (Tensor, TensorList or anything
/// else) is not differentiated.
template <class F, detail::TensorOrList X>
auto value_and_grad(F&& f, const X& x) {
  using Y = detail::ResultOf<X, F>;
  if constexpr (detail::IsPair<Y>::value) {
    using Auxiliary = typename Y::second_type;
    Auxiliary auxiliary{};
    const auto main = [&](const TensorList& inputs) {
      Y both = detail::call_with<X>(f, inputs);
      auxiliary = (std::move)(both.second);
      return TensorList{(std::move)(both.first)};
    };
    detail::RecordedFunction recorded = detail::record_function(main, detail::as_list(x));
    detail::require_scalar("value_and_grad", recorded.values);
    if constexpr (std::same_as<Auxiliary, Tensor>) {
      auxiliary = detail::leave_scope(*recorded.state, auxiliary);
    } else if constexpr (std::same_as<Auxiliary, TensorList>) {
      for (Tensor& tensor : auxiliary) tensor = detail::leave_scope(*recorded.state, tensor);
    }
    TensorList gradients = detail::pull_scalar(*recorded.state);
    return std::pair(std::pair((std::move)(recorded.values.front()), (std::move)(auxiliary)),
                     detail::from_list<X>((std::move)(gradients)));
  } else {
    static_assert(std::same_as<Y, Tensor>, "value_and_grad needs a function that returns a Tensor");
    const auto main = [&](const TensorList& inputs) { return TensorList{detail::call_with<X>(f, inputs)}; };
    detail::RecordedFunction recorded = detail::record_function(main, detail::as_list(x));
    detail::require_scalar("value_and_grad", recorded.values);
    TensorList gradients = detail::pull_scalar(*recorded.state);
    return std::pair((std::move)(recorded.values.front()), detail::from_list<X>((std::move)(gradients)));
  }
}

/// grad(f, x) -> df/dx, shaped like x, for f whose value has one element.
template <class F, detail::TensorOrList X>
X grad(F&& f, const X& x) {
  return value_and_grad(std::forward<F>(f), x).second;
}

/// u -> J' u. Keeps its graph: may be called any number of times, from one thread at a time. Derivatives of
/// the call itself go to scopes opened before f ran, and to those opened after it returned, whichever thread
/// opens them; a scope that another thread opened in between is masked with f's own.
template <class X, class Y>
class PullbackOf {
 public:
  explicit PullbackOf(std::shared_ptr<detail::GraphState> state) : state_((std::move)(state)) {}
  /// Absent cotangents count as zero; the result has the absent tensor where there is no path.
  X operator()(const Y& cotangent) const {
    return detail::from_list<X>(detail::pull_recorded(*state_, detail::as_list(cotangent), false));
  }
  /// The last call: frees each saved tensor as soon as it has been used. `accumulated`, if given, is what the
  /// gradients are added to, in the order in which one longer graph would have added them.
  X consume(const Y& cotangent, TensorList accumulated = {}) {
    return detail::from_list<X>(
        detail::pull_recorded(*state_, detail::as_list(cotangent), true, (std::move)(accumulated)));
  }

 private:
  std::shared_ptr<detail::GraphState> state_;
};

/// v -> J v. Keeps its graph: may be called any number of times, from one thread at a time.
template <class X, class Y>
class LinearOf {
 public:
  explicit LinearOf(std::shared_ptr<detail::GraphState> state) : state_((std::move)(state)) {}
  Y operator()(const X& tangent) const {
    return detail::from_list<Y>(detail::push_recorded(*state_, detail::as_list(tangent)));
  }
  /// J times k vectors at once: each tensor of `tangents` holds k tangents stacked along a new first axis,
  /// and each tensor of the result k results, with the bits that they have one by one. The graph is walked
  /// once, and the stored factors meet all k in one batch of products; memory grows with k. Tensors on the
  /// way may have one axis less than otherwise.
  Y block(const X& tangents) const {
    return detail::from_list<Y>(detail::push_recorded(*state_, detail::as_list(tangents), true));
  }

 private:
  std::shared_ptr<detail::GraphState> state_;
};

/// vjp(f, x) -> {f(x), pullback}.
template <class F, detail::TensorOrList X>
auto vjp(F&& f, const X& x) {
  using Y = detail::ResultOf<X, F>;
  const auto main = [&](const TensorList& inputs) {
    return detail::as_list(detail::call_with<X>(f, inputs));
  };
  detail::RecordedFunction recorded = detail::record_function(main, detail::as_list(x));
  return std::pair<Y, PullbackOf<X, Y>>(detail::from_list<Y>((std::move)(recorded.values)),
                                        PullbackOf<X, Y>((std::move)(recorded.state)));
}

/// linearize(f, x) -> {f(x), v -> J v}: for many products at one x.
template <class F, detail::TensorOrList X>
auto linearize(F&& f, const X& x) {
  using Y = detail::ResultOf<X, F>;
  const auto main = [&](const TensorList& inputs) {
    return detail::as_list(detail::call_with<X>(f, inputs));
  };
  detail::RecordedFunction recorded = detail::record_function(main, detail::as_list(x));
  return std::pair<Y, LinearOf<X, Y>>(detail::from_list<Y>((std::move)(recorded.values)),
                                      LinearOf<X, Y>((std::move)(recorded.state)));
}

/// jvp(f, x, v) -> {f(x), J v}, in one pass with dual numbers. An absent tangent in the list is zero.
template <class F, detail::TensorOrList X>
auto jvp(F&& f, const X& x, const X& v) {
  using Y = detail::ResultOf<X, F>;
  const auto main = [&](const TensorList& inputs) {
    return detail::as_list(detail::call_with<X>(f, inputs));
  };
  auto [values, tangents] = detail::push_function(main, detail::as_list(x), detail::as_list(v));
  return std::pair<Y, Y>(detail::from_list<Y>((std::move)(values)),
                         detail::from_list<Y>((std::move)(tangents)));
}

/// hvp(f, x, v) -> (d2f/dx2) v for f whose value has one element, forward over reverse: no second graph. The
/// bits of jvp(grad f), without the gradient itself, which nobody asked for: of a net whose first layer has F
/// multiply-adds and the others R, it takes 3F + 8R where jvp(grad f) takes 4F + 9R, and a gradient 2F + 3R.
/// An absent tensor in v is zero. For many products at one x: linearize the gradient
/// (bilevel::hessian_operator).
template <class F, detail::TensorOrList X>
X hvp(F&& f, const X& x, const X& v) {
  const auto main = [&](const TensorList& inputs) {
    using Y = detail::ResultOf<X, F>;
    if constexpr (detail::IsPair<Y>::value) {
      return TensorList{detail::call_with<X>(f, inputs).first};
    } else {
      static_assert(std::same_as<Y, Tensor>, "hvp needs a function that returns a Tensor");
      return TensorList{detail::call_with<X>(f, inputs)};
    }
  };
  return detail::from_list<X>(detail::hessian_product("hvp", main, detail::as_list(x), detail::as_list(v)));
}

/// Collects, on this thread and while it lives, the operations that a second derivative met at their kink:
/// abs at 0, norm of a zero vector, standard_deviation of equal elements. Their first derivative is 0 there,
/// and a smooth function of them (square(norm(x))) may have a second derivative that no rule of theirs can
/// give: theirs is 0. squared_norm, variance and square(x) have it. Selections (relu, maximum, clamp) are not
/// collected: they are linear on either side. Looks at values only while it lives, and only in second and
/// higher derivatives.
class HYPERTAPE_API KinkWatch {
 public:
  KinkWatch();
  ~KinkWatch();
  KinkWatch(const KinkWatch&) = delete;
  KinkWatch& operator=(const KinkWatch&) = delete;
  /// Names of operations, each once.
  const std::vector<std::string>& operations() const noexcept { return operations_; }

 private:
  friend void detail::note_kinks(const char* op, const Tensor& x, const Tensor& at);
  static void note(const char* operation);
  KinkWatch* outer_;
  std::vector<std::string> operations_;
};

/// A function that is run again for a derivative gave other values than at first: that of a checkpoint, or a
/// training loss. It may depend on its arguments alone.
class HYPERTAPE_API NotReplayed : public Error {
 public:
  NotReplayed(std::string_view operation, std::string_view message);
  ~NotReplayed() override;
};

namespace detail {
HYPERTAPE_API TensorList checkpoint_list(std::function<TensorList(const TensorList&)> f, const TensorList& x);
}

/// checkpoint(f, x) -> f(x), for which a derivative keeps the inputs only: whatever f computes on the way is
/// computed again when it is needed (Griewank and Walther 2000). Values, and gradients of f's inputs, have
/// the same bits as without; all derivatives of any order work, and second and higher ones save memory too.
///
/// f is kept as long as the derivative, so it must own what it captures; it must give the same results each
/// time: when it runs again, its floating results are compared with the first ones, and NotReplayed is thrown
/// where a bit differs (a random generator of its own, a counter, a captured tensor overwritten). A variable
/// that is being differentiated must be passed in: f using one otherwise is an Error.
template <class F, detail::TensorOrList X>
auto checkpoint(F&& f, const X& x) {
  using Y = detail::ResultOf<X, F>;
  auto main = [f = std::decay_t<F>(std::forward<F>(f))](const TensorList& inputs) mutable {
    return detail::as_list(detail::call_with<X>(f, inputs));
  };
  return detail::from_list<Y>(detail::checkpoint_list((std::move)(main), detail::as_list(x)));
}

/// What a custom operation's forward pass returns.
struct CustomVjp {
  TensorList outputs;
  /// From cotangents of the outputs (absent where none arrived) to gradients of the inputs (absent: no path).
  std::function<TensorList(const TensorList& cotangents)> pullback;
};

/// Runs `forward` on plain copies of the inputs, unrecorded, and gives its outputs the pullback it returned.
/// Differentiable once: the pullback throws when its inputs or cotangents are themselves being
/// differentiated, and the outputs refuse tangents, both naming `name`.
HYPERTAPE_API TensorList custom_vjp(const std::string& name, const TensorList& inputs,
                                    const std::function<CustomVjp(const TensorList& plain)>& forward);

}  // namespace hypertape
