#include "bilevel/run/dual_gradient.h"

#include <algorithm>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/core/error.h>
#include "bilevel/run/method.h"

namespace hypertape::bilevel::detail {

DualGradient dual_gradient(const std::function<Tensor(const TensorList& w, const TensorList& h)>& loss,
                           const TensorList& w, const TensorList& h, const TensorList& direction,
                           bool wants_gradient) {
  using hypertape::detail::Wanted;
  if (direction.size() != w.size())
    fail("dual_gradient", direction.size(), " directions given for ", w.size(), " parameters");
  TensorList inputs = w, tangents = direction;
  inputs.insert(inputs.end(), h.begin(), h.end());
  tangents.resize(inputs.size());
  const auto middle = static_cast<std::ptrdiff_t>(w.size());
  // Of h nobody reads the gradient itself.
  std::vector<Wanted> wanted(inputs.size(), Wanted::tangent);
  if (wants_gradient) std::fill(wanted.begin(), wanted.begin() + middle, Wanted::both);
  auto [gradients, along] = hypertape::detail::dual_gradients(
      "dual_gradient",
      [&](const TensorList& x) {
        return TensorList{loss({x.begin(), x.begin() + middle}, {x.begin() + middle, x.end()})};
      },
      inputs, tangents, wanted);
  DualGradient dual;
  dual.hessian_vector.assign(along.begin(), along.begin() + middle);
  dual.mixed.assign(along.begin() + middle, along.end());
  if (wants_gradient) {
    dual.gradient.assign(gradients.begin(), gradients.begin() + middle);
    fill_absent(dual.gradient, w);
  }
  return dual;
}

}  // namespace hypertape::bilevel::detail
