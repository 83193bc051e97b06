#include <cmath>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/joint.h>
#include <hypertape/core/error.h>
#include "bilevel/run/dual_gradient.h"
#include "bilevel/run/method.h"
#include "core/base/default_floats.h"

namespace hypertape::bilevel {
namespace {

constexpr std::uint32_t inner_stream = 2, outer_stream = 3;

void check(const JointProblem& problem) {
  if (!problem.init) fail("soba", "the problem has no init");
  if (!problem.inner) fail("soba", "the problem has no inner loss");
  if (!problem.outer) fail("soba", "the problem has no outer loss");
}

void check(const SobaOptions& options) {
  for (const double rate : {options.inner_rate, options.linear_rate, options.outer_rate})
    if (!(rate > 0.0 && std::isfinite(rate))) fail("soba", "a rate is ", rate, "; it must be positive");
  if (!(options.decay >= 0.0 && std::isfinite(options.decay))) fail("soba", "decay is ", options.decay);
}

// a + b where either may be absent.
Tensor sum_of(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() ? a : b;
  return a + b;
}

TensorList moved(const TensorList& x, double rate, const TensorList& direction) {
  TensorList result;
  for (std::size_t i = 0; i < x.size(); ++i)
    result.push_back(direction[i].defined()
                         ? multiply_add(Tensor::scalar(-rate, x[i].dtype()), direction[i], x[i])
                         : x[i]);
  return result;
}

double finite(double number, const char* what, std::int64_t step) {
  if (!std::isfinite(number)) throw TrainingDiverged("soba", step, std::string(what) + " is not finite");
  return number;
}

JointState start(const JointProblem& problem, const NamedTensors& h) {
  const hypertape::detail::DefaultFloats floats;
  check(problem);
  for (std::size_t i = 0; i < h.size(); ++i)
    if (!h.tensors()[i].defined()) fail("soba", "hyperparameter '", h.names()[i], "' is absent");
  JointState state;
  state.parameters = problem.init(h);
  if (state.parameters.empty()) fail("soba", "init returned no parameters");
  TensorList zeros;
  for (const Tensor& w : state.parameters.tensors()) {
    if (!w.defined() || !is_floating(w.dtype())) fail("soba", "parameters must be floating tensors");
    zeros.push_back(Tensor::zeros(w.shape(), w.dtype()));
  }
  state.adjoint = state.parameters.with(std::move(zeros));
  state.hyperparameters = h;
  return state;
}

// A state may come from a file or be put together by hand.
void check(const JointState& state) {
  const NamedTensors &w = state.parameters, &v = state.adjoint;
  if (state.step < 0) fail("soba", "the state's step is ", state.step);
  if (w.empty()) fail("soba", "the state has no parameters");
  if (v.names() != w.names()) fail("soba", "the state's adjoint must have the names of its parameters");
  for (std::size_t i = 0; i < w.size(); ++i) {
    const Tensor &x = w.tensors()[i], &y = v.tensors()[i];
    if (!x.defined() || !y.defined() || x.shape() != y.shape() || x.dtype() != y.dtype())
      fail("soba", "the state's adjoint of parameter '", w.names()[i], "' must have its shape and dtype");
  }
}

JointState advance(const SobaOptions& options, const JointProblem& problem, const JointState& state) {
  const hypertape::detail::DefaultFloats floats;
  check(problem);
  check(state);
  const std::int64_t t = state.step;
  const TensorList &w = state.parameters.tensors(), &h = state.hyperparameters.tensors();
  const auto context = [&](std::uint32_t stream) {
    return StepContext{t, Key{problem.seed, stream, static_cast<std::uint64_t>(t)}};
  };
  const auto both = [&](const auto& loss, std::uint32_t stream) {
    return [&, stream](const TensorList& x, const TensorList& y) {
      return loss(state.parameters.with(x), state.hyperparameters.with(y), context(stream));
    };
  };
  JointState next = state;
  const auto inner = both(problem.inner, inner_stream);
  detail::DualGradient dual = detail::dual_gradient(
      [&](const TensorList& x, const TensorList& y) {
        const Tensor value = inner(x, y);
        next.inner_value = stop_gradient(value).item();
        return value;
      },
      w, h, state.adjoint.tensors());
  TensorList inputs = w;
  inputs.insert(inputs.end(), h.begin(), h.end());
  const auto middle = static_cast<std::ptrdiff_t>(w.size());
  const auto outer = both(problem.outer, outer_stream);
  auto [outer_value, by_outer] = value_and_grad(
      [&](const TensorList& x) {
        return outer({x.begin(), x.begin() + middle}, {x.begin() + middle, x.end()});
      },
      inputs);
  next.outer_value = outer_value.item();
  TensorList system = std::move(dual.hessian_vector), hyper = std::move(dual.mixed);
  for (std::size_t i = 0; i < w.size(); ++i) system[i] = sum_of(system[i], by_outer[i]);
  for (std::size_t i = 0; i < h.size(); ++i) {
    hyper[i] = sum_of(hyper[i], by_outer[w.size() + i]);
    if (!hyper[i].defined() && is_floating(h[i].dtype()))
      fail("soba", "hyperparameter '", state.hyperparameters.names()[i],
           "' has no path to the outer loss: neither loss reads it together with the parameters");
  }
  finite(next.inner_value, "the inner loss", t);
  finite(next.outer_value, "the outer loss", t);
  next.inner_gradient = finite(detail::norm(dual.gradient), "the inner gradient", t);
  next.linear_residual = finite(detail::norm(system), "the residual of the linear system", t);
  next.hypergradient = finite(detail::norm(hyper), "the hypergradient", t);
  const double factor = std::pow(static_cast<double>(t) + 1.0, -options.decay);
  next.parameters = state.parameters.with(moved(w, factor * options.inner_rate, dual.gradient));
  next.adjoint = state.adjoint.with(moved(state.adjoint.tensors(), factor * options.linear_rate, system));
  next.hyperparameters = state.hyperparameters.with(moved(h, factor * options.outer_rate, hyper));
  ++next.step;
  return next;
}

}  // namespace

JointAlgorithm soba(const SobaOptions& options) {
  const hypertape::detail::DefaultFloats floats;
  check(options);
  return {"soba", start, [options](const JointProblem& problem, const JointState& state) {
            return advance(options, problem, state);
          }};
}

}  // namespace hypertape::bilevel
