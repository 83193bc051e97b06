// The axes of a reduction, checked, and the shapes that it gives.
#pragma once

#include <array>
#include <numeric>
#include <vector>

#include "autodiff/ops/checks.h"

namespace hypertape::detail {

struct ReducedAxes {
  Shape kept;    ///< rank of the operand, extent 1 where reduced
  Shape output;  ///< the same, or without the reduced axes
  std::array<bool, max_rank> reduced{};
  std::int64_t count = 1;  ///< elements that make up one result
};

/// Error naming `op` for an axis out of range or named twice.
inline ReducedAxes reduced_axes(const char* op, const Tensor& x, const std::vector<std::int64_t>& axes,
                                bool keep) {
  header_of(op, x);
  const Shape shape = x.shape();
  ReducedAxes result;
  for (const std::int64_t axis : axes) {
    const auto a = static_cast<std::size_t>(normalize_axis(op, axis, shape));
    if (result.reduced[a]) fail(op, "axis ", axis, " is named twice for shape ", shape);
    result.reduced[a] = true;
  }
  std::vector<std::int64_t> kept, rest;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const bool gone = result.reduced[static_cast<std::size_t>(axis)];
    kept.push_back(gone ? 1 : shape[axis]);
    if (gone)
      result.count *= shape[axis];
    else
      rest.push_back(shape[axis]);
  }
  result.kept = Shape(std::span<const std::int64_t>(kept));
  result.output = Shape(std::span<const std::int64_t>(keep ? kept : rest));
  return result;
}

/// 0, 1, ... of x.
inline std::vector<std::int64_t> all_axes(const char* op, const Tensor& x) {
  std::vector<std::int64_t> axes(header_of(op, x).rank);
  std::iota(axes.begin(), axes.end(), 0);
  return axes;
}

}  // namespace hypertape::detail
