// A function whose derivatives of every order are given by its caller, as functions made of recorded
// operations: what implicit differentiation is built on.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <hypertape/core/tensor.h>

namespace hypertape::detail {

struct CustomFunction {
  std::string name;
  /// The value from plain inputs; runs unrecorded, and is an Error if it meets a variable that is being
  /// differentiated.
  std::function<Tensor(const TensorList& plain)> value;
  /// Gradients of the inputs for which `needed` is true; absent ones have no path. Inputs, output and
  /// cotangent are linked to the outer scopes that differentiate this very call, which is why it is made of
  /// public operations and closes over no tensor.
  std::function<TensorList(const TensorList& inputs, const Tensor& output, const Tensor& cotangent,
                           const std::vector<bool>& needed)>
      pull;
  /// The output's tangent from the inputs' (absent is zero); absent if there is no path.
  std::function<Tensor(const TensorList& inputs, const Tensor& output, const TensorList& tangents)> push;
};

/// The value, with these rules. Absent inputs are passed on as they are.
Tensor call(const std::shared_ptr<const CustomFunction>& function, const TensorList& inputs);

}  // namespace hypertape::detail
