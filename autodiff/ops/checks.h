// Checks that operations share; each throws before anything is written.
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include <hypertape/core/error.h>
#include "core/backend/backend.h"

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

/// The shape of these extents; what is wrong with them is said in the name of `op`.
inline Shape shape_of(const char* op, std::span<const std::int64_t> extents) {
  try {
    return Shape(extents);
  } catch (const Error& error) {
    const std::string_view text = error.what();
    fail(op, text.substr(error.operation().size() + 3));  // behind "[shape] "
  }
}

inline Shape with_extent(const char* op, const Shape& shape, int axis, std::int64_t extent) {
  std::vector<std::int64_t> extents(shape.begin(), shape.end());
  extents[static_cast<std::size_t>(axis)] = extent;
  return shape_of(op, extents);
}

/// A number in the dtype of x: rank 0; Error if that dtype does not have it.
inline Tensor number_like(const char* op, const Tensor& x, double number) {
  const DefaultFloats floats;
  const Dtype dtype = header_of(op, x).dtype;
  if (dtype == Dtype::boolean)
    fail(op, "cannot take the number ", number, " with a boolean tensor of shape ", x.shape());
  if (dtype == Dtype::int64 && !(number >= -0x1p63 && number < 0x1p63 &&
                                 number == static_cast<double>(static_cast<std::int64_t>(number))))
    fail(op, "cannot take the number ", number, ", which is not an int64, with int64 of shape ", x.shape());
  return Tensor::scalar(number, dtype);
}

/// Indices in [0, bound), else an Error that names the first one outside and ends with what it should be
/// within.
template <class... Within>
void require_indices(const char* op, const Tensor& indices, std::int64_t bound, const Within&... within) {
  const Header& header = header_of(op, indices);
  if (header.dtype != Dtype::int64)
    fail(op, "indices must be int64, not ", header.dtype, " of shape ", indices.shape());
  const OutsideIndex found = backend_of(indices)->first_outside(view_of(indices), bound);
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
