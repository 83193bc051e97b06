// What oracles need that loop over indices, one element at a time.
#pragma once

#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include <hypertape/core/tensor.h>

namespace naive {

using hypertape::Shape;
using hypertape::Tensor;
using Axes = std::vector<std::int64_t>;
using Index = std::vector<std::int64_t>;

inline std::string label(const std::string& name, const Shape& shape, const Axes& axes = {}) {
  std::ostringstream text;
  text << name << ' ' << shape << " over";
  for (const std::int64_t axis : axes) text << ' ' << axis;
  return text.str();
}

/// Every subset of the axes of a shape.
inline std::vector<Axes> subsets(int rank) {
  std::vector<Axes> all;
  for (unsigned bits = 0; bits < (1u << rank); ++bits) {
    Axes axes;
    for (int axis = 0; axis < rank; ++axis)
      if (bits >> axis & 1u) axes.push_back(axis);
    all.push_back(axes);
  }
  return all;
}

/// Row-major position of `index` within `shape`, extents of 1 standing still.
inline std::size_t position(const Index& index, const Shape& shape) {
  std::int64_t at = 0;
  for (int axis = 0; axis < shape.rank(); ++axis)
    at = at * shape[axis] + (shape[axis] == 1 ? 0 : index[static_cast<std::size_t>(axis)]);
  return static_cast<std::size_t>(at);
}

/// Calls body(index) for each index of the shape, row-major.
template <class Body>
void for_each_index(const Shape& shape, Body body) {
  Index index(static_cast<std::size_t>(shape.rank()));
  for (std::int64_t n = 0; n < shape.size(); ++n) {
    body(index);
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      auto& i = index[static_cast<std::size_t>(axis)];
      if (++i < shape[axis]) break;
      i = 0;
    }
  }
}

/// Extent 1 on the axes.
inline Shape kept_shape(Shape shape, const Axes& axes) {
  for (const std::int64_t axis : axes) shape = shape.with(static_cast<int>(axis), 1);
  return shape;
}

/// The elements that make up each result of a reduction, in row-major order of x.
inline std::vector<std::vector<double>> groups(const std::vector<double>& x, const Shape& shape,
                                               const Axes& axes) {
  const Shape kept = kept_shape(shape, axes);
  std::vector<std::vector<double>> result(static_cast<std::size_t>(kept.size()));
  std::size_t n = 0;
  for_each_index(shape, [&](const Index& index) { result[position(index, kept)].push_back(x[n++]); });
  return result;
}

}  // namespace naive
