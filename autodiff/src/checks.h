// Checks that operations share; each throws before anything is written.
#pragma once

#include "backend.h"
#include "hypertape/core/error.h"

namespace hypertape::detail {

inline void require_floating(const char* op, const Tensor& x) {
  const Header& header = header_of(op, x);
  if (!is_floating(header.dtype))
    fail(op, "needs float32 or float64, not ", header.dtype, " of shape ", x.shape());
}

inline void require_same_dtype(const char* op, const Tensor& a, const Tensor& b) {
  require_floating(op, a);
  require_floating(op, b);
  if (a.header()->dtype != b.header()->dtype)
    fail(op, "dtypes differ: ", a.dtype(), " of shape ", a.shape(), " and ", b.dtype(), " of shape ",
         b.shape(), "; convert one of them");
}

inline bool same_shape(const Header& a, const Header& b) noexcept {
  if (a.rank != b.rank) return false;
  for (int axis = 0; axis < a.rank; ++axis)
    if (a.extents()[axis] != b.extents()[axis]) return false;
  return true;
}

}  // namespace hypertape::detail
