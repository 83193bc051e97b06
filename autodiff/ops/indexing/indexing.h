// Gather and scatter under the name of the public operation that uses them.
#pragma once

#include <hypertape/core/tensor.h>

namespace hypertape::detail {

/// As the public gather; `op` is what errors and the tape call it.
Tensor gather_as(const char* op, const Tensor& x, int axis, const Tensor& indices);

}  // namespace hypertape::detail
