// Fused cross entropies for int64 labels, behind the public ones that also take distributions.
#pragma once

#include <hypertape/core/tensor.h>

namespace hypertape::detail {

/// Mean over the rows, rank 0.
Tensor integer_cross_entropy(const Tensor& logits, const Tensor& labels);
/// One loss a row, shape (N).
Tensor integer_cross_entropy_losses(const char* op, const Tensor& logits, const Tensor& labels);

}  // namespace hypertape::detail
