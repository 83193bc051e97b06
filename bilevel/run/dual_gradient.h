// Gradient, Hessian product and mixed product of a loss in one pass: a gradient with dual numbers.
#pragma once

#include <functional>

#include <hypertape/core/tensor.h>

namespace hypertape::bilevel::detail {

struct DualGradient {
  TensorList gradient;        ///< L_w; zeros where there is no path; empty if it was not wanted
  TensorList hessian_vector;  ///< L_ww direction; absent where there is no path
  TensorList mixed;           ///< L_hw direction, per hyperparameter; absent where there is no path
};

DualGradient dual_gradient(const std::function<Tensor(const TensorList& w, const TensorList& h)>& loss,
                           const TensorList& w, const TensorList& h, const TensorList& direction,
                           bool wants_gradient = true);

}  // namespace hypertape::bilevel::detail
