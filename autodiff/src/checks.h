// Checks that operations share; each throws before anything is written.
#pragma once

#include <array>

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

/// Indices in [0, bound), else an Error that names the first one outside and ends with what it should be
/// within.
template <class... Within>
void require_indices(const char* op, const Tensor& indices, std::int64_t bound, const Within&... within) {
  const Header& header = header_of(op, indices);
  if (header.dtype != Dtype::int64)
    fail(op, "indices must be int64, not ", header.dtype, " of shape ", indices.shape());
  const OutsideIndex found = backend_of(indices).first_outside(view_of(indices), bound);
  if (found.position < 0) return;
  std::array<std::int64_t, max_rank> place{};
  std::int64_t rest = found.position;
  for (int axis = header.rank - 1; axis >= 0; --axis) {
    place[static_cast<std::size_t>(axis)] = rest % header.extents()[axis];
    rest /= header.extents()[axis];
  }
  const Shape printed(std::span<const std::int64_t>(place.data(), header.rank));
  fail(op, "index ", found.value, " at ", printed, " is not within ", within...);
}

inline bool same_shape(const Header& a, const Header& b) noexcept {
  if (a.rank != b.rank) return false;
  for (int axis = 0; axis < a.rank; ++axis)
    if (a.extents()[axis] != b.extents()[axis]) return false;
  return true;
}

}  // namespace hypertape::detail
