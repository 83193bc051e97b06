#include <hypertape/core/shape.h>

#include <ostream>

#include <hypertape/core/error.h>
#include "core/base/classic_print.h"

namespace hypertape {

std::string_view name_of(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::float32:
      return "float32";
    case Dtype::float64:
      return "float64";
    case Dtype::int64:
      return "int64";
    case Dtype::boolean:
      return "boolean";
  }
  return "unknown";
}

std::ostream& operator<<(std::ostream& out, Dtype dtype) { return out << name_of(dtype); }

Shape::Shape(std::span<const std::int64_t> extents) {
  if (extents.size() > static_cast<std::size_t>(max_rank))
    fail("shape", "rank ", extents.size(), " is above the highest supported rank, ", max_rank);
  bool empty = false;
  for (const std::int64_t extent : extents) {
    if (extent < 0) fail("shape", "extent ", extent, " is negative");
    extents_[static_cast<std::size_t>(rank_++)] = extent;
    empty |= extent == 0;
  }
  // A zero anywhere makes the tensor empty, yet the other extents must still be addressable: strides are
  // products of them.
  for (const std::int64_t extent : extents)
    if (extent != 0 && __builtin_mul_overflow(size_, extent, &size_))
      fail("shape", "the number of elements of ", *this, " does not fit in 64 bits");
  if (empty) size_ = 0;
}

Shape Shape::with(int axis, std::int64_t extent) const {
  std::array<std::int64_t, max_rank> extents = extents_;
  extents[static_cast<std::size_t>(axis)] = extent;
  return Shape(std::span<const std::int64_t>(extents.data(), static_cast<std::size_t>(rank_)));
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  return detail::print_classic(out, [&](std::ostream& text) {
    text << '(';
    for (int axis = 0; axis < shape.rank(); ++axis) text << (axis ? ", " : "") << shape[axis];
    text << ')';
  });
}

Shape broadcast_shapes(std::string_view operation, const Shape& a, const Shape& b) {
  if (a == b) return a;
  const int rank = a.rank() > b.rank() ? a.rank() : b.rank();
  std::array<std::int64_t, max_rank> extents{};
  for (int axis = 0; axis < rank; ++axis) {
    const int ia = axis - (rank - a.rank()), ib = axis - (rank - b.rank());
    const std::int64_t ea = ia < 0 ? 1 : a[ia], eb = ib < 0 ? 1 : b[ib];
    if (ea != eb && ea != 1 && eb != 1)
      fail(operation, "shapes ", a, " and ", b, " do not broadcast: extents ", ea, " and ", eb,
           " differ and neither is 1");
    extents[static_cast<std::size_t>(axis)] = ea == 1 ? eb : ea;
  }
  return Shape(std::span<const std::int64_t>(extents.data(), static_cast<std::size_t>(rank)));
}

int normalize_axis(std::string_view operation, std::int64_t axis, const Shape& shape) {
  const std::int64_t from_front = axis < 0 ? axis + shape.rank() : axis;
  if (from_front < 0 || from_front >= shape.rank())
    fail(operation, "axis ", axis, " is out of range for shape ", shape, " of rank ", shape.rank());
  return static_cast<int>(from_front);
}

}  // namespace hypertape
