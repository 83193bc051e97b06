// Element types and shapes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <span>
#include <string_view>

#include <hypertape/core/export.h>

namespace hypertape {

/// Element types. Only float32 and float64 are ever differentiated; int64 serves as indices, boolean as
/// masks.
enum class Dtype : std::uint8_t { float32, float64, int64, boolean };

/// Bytes of one element.
constexpr std::size_t size_of(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::float32:
      return 4;
    case Dtype::float64:
    case Dtype::int64:
      return 8;
    case Dtype::boolean:
      return 1;
  }
  return 0;
}

constexpr bool is_floating(Dtype dtype) noexcept {
  return dtype == Dtype::float32 || dtype == Dtype::float64;
}

/// "float32", "float64", "int64" or "boolean".
HYPERTAPE_API std::string_view name_of(Dtype dtype) noexcept;
HYPERTAPE_API std::ostream& operator<<(std::ostream& out, Dtype dtype);

/// The Dtype of a C++ type: float, double, std::int64_t or bool.
template <class T>
inline constexpr Dtype dtype_of = [] {
  static_assert(sizeof(T) == 0, "Hypertape tensors hold float, double, std::int64_t or bool");
  return Dtype::float64;
}();
template <>
inline constexpr Dtype dtype_of<float> = Dtype::float32;
template <>
inline constexpr Dtype dtype_of<double> = Dtype::float64;
template <>
inline constexpr Dtype dtype_of<std::int64_t> = Dtype::int64;
template <>
inline constexpr Dtype dtype_of<bool> = Dtype::boolean;

/// Highest rank of a tensor.
inline constexpr int max_rank = 8;

/// Extents of a tensor, outermost first. A value of at most `max_rank` non-negative extents whose product
/// fits in an int64; anything else is refused when the shape is made. The empty shape is a scalar's.
class HYPERTAPE_API Shape {
 public:
  Shape() noexcept = default;
  Shape(std::initializer_list<std::int64_t> extents) : Shape(std::span(extents.begin(), extents.size())) {}
  explicit Shape(std::span<const std::int64_t> extents);

  int rank() const noexcept { return rank_; }
  /// Number of elements; 1 for a scalar.
  std::int64_t size() const noexcept { return size_; }
  std::int64_t operator[](int axis) const noexcept { return extents_[static_cast<std::size_t>(axis)]; }
  const std::int64_t* begin() const noexcept { return extents_.data(); }
  const std::int64_t* end() const noexcept { return extents_.data() + rank_; }
  std::span<const std::int64_t> extents() const noexcept {
    return {begin(), static_cast<std::size_t>(rank_)};
  }

  /// The same shape with one extent changed.
  Shape with(int axis, std::int64_t extent) const;

  friend bool operator==(const Shape& a, const Shape& b) noexcept {
    if (a.rank_ != b.rank_) return false;
    for (int axis = 0; axis < a.rank_; ++axis)
      if (a[axis] != b[axis]) return false;
    return true;
  }

 private:
  std::array<std::int64_t, max_rank> extents_{};
  std::int64_t size_ = 1;
  int rank_ = 0;
};

/// Prints "(2, 3)"; "()" for a scalar.
HYPERTAPE_API std::ostream& operator<<(std::ostream& out, const Shape& shape);

/// The shape that both broadcast to (extents of 1 stretch, missing leading axes are 1); Error naming
/// `operation` if they do not.
HYPERTAPE_API Shape broadcast_shapes(std::string_view operation, const Shape& a, const Shape& b);

/// The axis counted from the front: -1 is the last. Error naming `operation` when out of range.
HYPERTAPE_API int normalize_axis(std::string_view operation, std::int64_t axis, const Shape& shape);

}  // namespace hypertape
