// Elementwise operations: one implementation driven by the structs of core/elementwise/structs.h.
//
// An operation F, its fused derivatives pull<i>, and their derivatives are all instances of one thing: a
// Function with kernels and rules. Deeper derivatives come from running the formula on tensors.
#include <array>
#include <cmath>
#include <utility>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"
#include "autodiff/ops/elementwise/function.h"
#include "autodiff/tape/kinks.h"

// The vocabulary of core/elementwise/bodies.h for tensors, beyond public operations of the same name.
// Selections are missing: their formulas are kernels, and the derivative of a formula never asks for them.
namespace hypertape {
namespace {
namespace elementwise::bodies {
inline Tensor plus(const Tensor& x, double c) { return add_scalar(x, c); }
inline Tensor times(const Tensor& x, double c) { return multiply_scalar(x, c); }
inline Tensor over(const Tensor& x, double c) { return divide_scalar(x, c); }
inline Tensor minus_from(double c, const Tensor& x) { return c - x; }
inline Tensor within(const Tensor& x, double limit) { return clamp(x, -limit, limit); }
inline Tensor power_slope(const Tensor& x, double c) {
  return c == 0.0 ? Tensor::zeros(x.shape(), x.dtype()) : multiply_scalar(pow_scalar(x, c - 1.0), c);
}
inline Tensor base_for_slope(const Tensor& a, const Tensor& b) {
  return where(logical_and(equal(a, 0.0), equal(b, 0.0)), 1.0, a);
}
inline Tensor base_for_logarithm(const Tensor& a, const Tensor& b) {
  return where(logical_and(equal(a, 0.0), greater_equal(b, 0.0)), 1.0, a);
}
inline Tensor sigmoid_slope(const Tensor& x) { return sigmoid(x) * sigmoid(-x); }
inline Tensor normal_cdf(const Tensor& x) {
  constexpr double sqrt_half = 0x1.6a09e667f3bcdp-1;
  return 0.5 + 0.5 * erf(sqrt_half * x);
}
inline Tensor normal_density(const Tensor& x) {
  constexpr double at_zero = 0x1.9884533d43651p-2;  // 1 / sqrt(2 pi)
  return at_zero * exp(-0.5 * (x * x));
}
inline Tensor over_square_sum(const Tensor& x, const Tensor& y) { return x / (x * x + y * y); }
}  // namespace elementwise::bodies
}  // namespace
}  // namespace hypertape

#include "core/elementwise/structs.h"

namespace hypertape::detail {
namespace {

const Tensor* no_factor(int, const Primal&) { return nullptr; }
bool never_keeps_zero(int, double) { return false; }

template <class Op>
inline constexpr ElementwiseCode code_of = ElementwiseCode::count;
#define HYPERTAPE_UNARY(Op, name) \
  template <>                     \
  inline constexpr ElementwiseCode code_of<elementwise::Op> = ElementwiseCode::name;
#define HYPERTAPE_BINARY(Op, name) HYPERTAPE_UNARY(Op, name)
#define HYPERTAPE_TERNARY(Op, name) HYPERTAPE_UNARY(Op, name)
#define HYPERTAPE_WITH_SCALAR(Op, name) HYPERTAPE_UNARY(Op, name)
#include <hypertape/core/elementwise.def>

template <class Op>
constexpr const char* name_of_op() {
  constexpr const char* names[] = {
#define HYPERTAPE_UNARY(Op, name) #name,
#define HYPERTAPE_BINARY(Op, name) #name,
#define HYPERTAPE_TERNARY(Op, name) #name,
#define HYPERTAPE_WITH_SCALAR(Op, name) #name,
#include <hypertape/core/elementwise.def>
  };
  return names[static_cast<std::size_t>(code_of<Op>)];
}

template <class Op>
constexpr int pull_count = static_cast<int>(std::size(Op::uses));

constexpr Saves saves_of_uses(unsigned uses) { return {uses & 7u, uses >> 3 & 1u}; }

constexpr unsigned nth_bit(unsigned bits, std::size_t n) {
  for (; n > 0; --n) bits &= bits - 1;
  return static_cast<unsigned>(__builtin_ctz(bits));
}

// Calls body(a, b...) with what `uses` names, in order.
template <unsigned uses, class Body>
auto with_used(const Primal& primal, Body&& body) {
  const auto tensor = [&](unsigned bit) -> const Tensor& {
    return bit == 3 ? primal.output() : primal.input(static_cast<int>(bit));
  };
  return [&]<std::size_t... k>(std::index_sequence<k...>) { return body(tensor(nth_bit(uses, k))...); }
  (std::make_index_sequence<static_cast<std::size_t>(__builtin_popcount(uses))>());
}

template <class Op, int operand>
struct PullFunction;

template <class Op>
struct OpFunction {
  static Saves saves(unsigned linked) {
    Saves all;
    for (int i = 0; i < pull_count<Op>; ++i) {
      if (!(linked >> i & 1u)) continue;
      const Saves one = saves_of_uses(Op::uses[i]);
      all.inputs |= one.inputs;
      all.outputs |= one.outputs;
    }
    return all;
  }
  static ElementwiseKernels kernel(unsigned mask) {
    const OpKernels& kernels = elementwise_kernels(code_of<Op>);
    return mask ? kernels.dual[mask] : kernels.value;
  }
  template <int operand>
  static Tensor pull_one(const Primal& primal, double scalar, const Tensor& t, Tensor* sum) {
    if constexpr (std::is_same_v<Op, elementwise::Abs>) note_kinks("abs", primal.input(0), primal.input(0));
    return with_used<Op::uses[operand]>(primal, [&](const auto&... used) -> Tensor {
      if constexpr (Op::fused[operand]) {
        const std::array<Operand, 1 + sizeof...(used)> operands{Operand(t), Operand(used)...};
        return apply_elementwise(PullFunction<Op, operand>::function, scalar, operands, sum);
      } else {
        return Op::template pull<operand>(Constant{scalar}, t, used...);
      }
    });
  }
  static Tensor pull(int operand, const Primal& primal, double scalar, const Tensor& t, Tensor* sum) {
    Tensor result;
    [&]<std::size_t... i>(std::index_sequence<i...>) {
      (void)((static_cast<int>(i) == operand &&
              (result = pull_one<static_cast<int>(i)>(primal, scalar, t, sum), true)) ||
             ...);
    }
    (std::make_index_sequence<static_cast<std::size_t>(pull_count<Op>)>());
    return result;
  }
  static const Tensor* factor(int operand, const Primal& primal) {
    const Tensor* result = nullptr;
    if constexpr (requires { Op::product; }) {
      [&]<std::size_t... i>(std::index_sequence<i...>) {
        const auto look = [&]<std::size_t k>() {
          if constexpr (Op::product[k])
            with_used<Op::uses[k]>(primal, [&](const Tensor& other) { result = &other; });
        };
        ((static_cast<int>(i) == operand ? look.template operator()<i>() : void()), ...);
      }
      (std::make_index_sequence<static_cast<std::size_t>(pull_count<Op>)>());
    }
    return result;
  }
  // Judged in float: what overflows there only costs a selection.
  static bool keeps_zero(int operand, double scalar) {
    if constexpr (elementwise::selects<Op>) return std::isfinite(static_cast<float>(scalar));
    bool keeps = false;
    if constexpr (pull_count < Op >> 0) {
      const auto look = [&]<int i>() {
        if constexpr (Op::uses[i] == elementwise::uses_nothing)
          if (i == operand) keeps = Op::template pull<i>(Constant{scalar}, 0.0f) == 0.0f;
      };
      [&]<std::size_t... i>(std::index_sequence<i...>) {
        (look.template operator()<static_cast<int>(i)>(), ...);
      }
      (std::make_index_sequence<static_cast<std::size_t>(pull_count<Op>)>());
    }
    return keeps;
  }
  static const ElementwiseFunction function;
};
template <class Op>
const ElementwiseFunction OpFunction<Op>::function = {
    name_of_op<Op>(),        Op::arity, (1u << pull_count<Op>)-1, saves, kernel, factor, pull, keeps_zero,
    elementwise::selects<Op>};

// The second derivative as a function of its own: s * d pull<operand>(t, used...) / d argument j.
template <class Op, int operand, int j>
struct SecondPullFunction {
  static constexpr int pull_arity = elementwise::pull_arity<Op, operand>;
  static Saves saves(unsigned) { return {(1u << (pull_arity + 1)) - 1, 0}; }
  static ElementwiseKernels kernel(unsigned mask) {
    return mask ? ElementwiseKernels{} : elementwise_kernels(code_of<Op>).pull_pull[operand][j];
  }
  // The value as tensor operations: the formula's tangent along argument j.
  static Tensor formula(double scalar, const TensorList& x) {
    TensorList arguments(x.begin() + 1, x.end()), tangents(arguments.size());
    tangents[static_cast<std::size_t>(j)] = x[0];
    return jvp(
               [scalar](const TensorList& a) {
                 return [&]<std::size_t... k>(std::index_sequence<k...>)->Tensor {
                   return Op::template pull<operand>(Constant{scalar}, a[k]...);
                 }
                 (std::make_index_sequence<static_cast<std::size_t>(pull_arity)>());
               },
               arguments, tangents)
        .second;
  }
  static Tensor pull(int argument, const Primal& primal, double scalar, const Tensor& t, Tensor*) {
    const auto position = static_cast<std::size_t>(argument);
    // All of one shape, so that the Jacobian is diagonal and a tangent along one argument is also its
    // cotangent.
    // A tangent, unlike a cotangent, may be smaller than the result.
    Shape shape = t.shape();
    for (int i = 0; i <= pull_arity; ++i)
      shape = broadcast_shapes(name_of_op<Op>(), shape, primal.input(i).shape());
    TensorList x;
    for (int i = 0; i <= pull_arity; ++i) x.push_back(expand(primal.input(i), shape));
    TensorList tangents(x.size());
    tangents[position] = expand(t, shape);
    return jvp([scalar](const TensorList& all) { return formula(scalar, all); }, x, tangents).second;
  }
  static const ElementwiseFunction function;
};
template <class Op, int operand, int j>
const ElementwiseFunction SecondPullFunction<Op, operand, j>::function = {
    name_of_op<Op>(), pull_arity + 1, (1u << (pull_arity + 1)) - 1, saves, kernel, no_factor, pull,
    never_keeps_zero, false};

template <class Op, int operand>
struct PullFunction {
  static constexpr int arity = elementwise::pull_arity<Op, operand>;
  static Saves saves(unsigned linked) {
    const unsigned used = (1u << arity) - 2;
    return {(linked & ~1u) ? (1u << arity) - 1 : used, 0};
  }
  static ElementwiseKernels kernel(unsigned mask) {
    const OpKernels& kernels = elementwise_kernels(code_of<Op>);
    return mask ? kernels.pull_dual[operand][mask] : kernels.pull[operand];
  }
  template <std::size_t... k>
  static constexpr unsigned differentiable(std::index_sequence<k...>) {
    return ((elementwise::pull_depends_on<Op, operand, static_cast<int>(k)> ? 1u << k : 0u) | ...);
  }
  template <std::size_t... k>
  static Tensor pull_of(int argument, const Primal& primal, double scalar, const Tensor& t, Tensor* sum,
                        std::index_sequence<k...>) {
    if (argument == 0) {  // linear in t: the same function again
      const std::array<Operand, arity> operands{Operand(t),
                                                Operand(primal.input(static_cast<int>(k) + 1))...};
      return apply_elementwise(function, scalar, operands, sum);
    }
    const std::array<Operand, arity + 1> operands{Operand(t), Operand(primal.input(0)),
                                                  Operand(primal.input(static_cast<int>(k) + 1))...};
    Tensor result;
    const auto look = [&]<int j>() {
      if constexpr (elementwise::pull_depends_on<Op, operand, j>)
        if (j == argument)
          result = apply_elementwise(SecondPullFunction<Op, operand, j>::function, scalar, operands, sum);
    };
    (look.template operator()<static_cast<int>(k) + 1>(), ...);
    return result;
  }
  static Tensor pull(int argument, const Primal& primal, double scalar, const Tensor& t, Tensor* sum) {
    return pull_of(argument, primal, scalar, t, sum, std::make_index_sequence<arity - 1>());
  }
  static const ElementwiseFunction function;
};
template <class Op, int operand>
const ElementwiseFunction PullFunction<Op, operand>::function = {
    name_of_op<Op>(),
    arity,
    differentiable(std::make_index_sequence<arity>()),
    saves,
    kernel,
    no_factor,
    pull,
    elementwise::selects<Op> ? OpFunction<Op>::keeps_zero : never_keeps_zero,  // linear in t: the same
    elementwise::selects<Op>};

}  // namespace

const ElementwiseFunction& addition() noexcept { return OpFunction<elementwise::Add>::function; }

Tensor tanh_cotangent(Operand t, const Tensor& y) {
  const std::array<Operand, 2> operands{t, Operand(y)};
  return apply_elementwise(PullFunction<elementwise::Tanh, 0>::function, 0.0, operands);
}

}  // namespace hypertape::detail

namespace hypertape {

#define HYPERTAPE_UNARY(Op, name)                                                                  \
  Tensor name(Operand x) {                                                                         \
    return detail::apply_elementwise(detail::OpFunction<elementwise::Op>::function, 0.0, {&x, 1}); \
  }
#define HYPERTAPE_BINARY(Op, name)                                                                  \
  Tensor name(Operand a, Operand b) {                                                               \
    const std::array<Operand, 2> operands{a, b};                                                    \
    return detail::apply_elementwise(detail::OpFunction<elementwise::Op>::function, 0.0, operands); \
  }
#define HYPERTAPE_TERNARY(Op, name)                                                                 \
  Tensor name(Operand a, Operand b, Operand c) {                                                    \
    const std::array<Operand, 3> operands{a, b, c};                                                 \
    return detail::apply_elementwise(detail::OpFunction<elementwise::Op>::function, 0.0, operands); \
  }
#define HYPERTAPE_WITH_SCALAR(Op, name)                                                               \
  Tensor name(Operand x, double scalar) {                                                             \
    return detail::apply_elementwise(detail::OpFunction<elementwise::Op>::function, scalar, {&x, 1}); \
  }
#include <hypertape/core/elementwise.def>

Tensor clamp(Operand x, double low, double high) {
  const detail::DefaultFloats floats;
  detail::require_floating("clamp", *x);
  if (!(low <= high)) fail("clamp", "needs low <= high, not ", low, " and ", high);
  const Dtype dtype = x->dtype();
  return clamp(x, Tensor::scalar(low, dtype), Tensor::scalar(high, dtype));
}

}  // namespace hypertape
