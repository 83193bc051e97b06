// Numbers of floating tensors, whatever their dtype.
#pragma once

#include <vector>

#include <hypertape/core/tensor.h>

namespace hypertape {

/// The elements of a float32 or float64 tensor, row-major.
std::vector<double> doubles_of(const Tensor& x);

/// A tensor of `dtype`, each value rounded to it.
Tensor tensor_in(Dtype dtype, const std::vector<double>& values, const Shape& shape);

/// x rounded to `rounded_to`, then held in `held_in`. Not differentiable.
Tensor converted(const Tensor& x, Dtype rounded_to, Dtype held_in);

}  // namespace hypertape
