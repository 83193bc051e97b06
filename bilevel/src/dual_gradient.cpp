#include "dual_gradient.h"

#include "hypertape/autodiff/derivatives.h"
#include "method.h"

namespace hypertape::bilevel::detail {

DualGradient dual_gradient(const std::function<Tensor(const TensorList& w, const TensorList& h)>& loss,
                           const TensorList& w, const TensorList& h, const TensorList& direction) {
  TensorList inputs = w, tangents = direction;
  inputs.insert(inputs.end(), h.begin(), h.end());
  tangents.resize(inputs.size());
  const auto middle = static_cast<std::ptrdiff_t>(w.size());
  const auto joined = [&](const TensorList& x) {
    return loss({x.begin(), x.begin() + middle}, {x.begin() + middle, x.end()});
  };
  auto [gradient, derivative] = jvp([&](const TensorList& x) { return grad(joined, x); }, inputs, tangents);
  DualGradient dual;
  dual.gradient.assign(gradient.begin(), gradient.begin() + middle);
  dual.hessian_vector.assign(derivative.begin(), derivative.begin() + middle);
  dual.mixed.assign(derivative.begin() + middle, derivative.end());
  fill_absent(dual.gradient, w);
  return dual;
}

}  // namespace hypertape::bilevel::detail
