// Size classes: what a request for some number of bytes is rounded up to, and how a slab is cut for each
// class.
//
// Multiples of 16 bytes up to 64 and of 64 up to 512, then eight classes to each doubling: 576, 640, ...,
// 1024, 1152, ... So blocks of 64 bytes and more can all be aligned to 64, and above 512 at most 12.5 % is
// wasted.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace hypertape::detail::memory {

inline constexpr std::size_t kibibyte = std::size_t{1} << 10;
inline constexpr std::size_t mebibyte = std::size_t{1} << 20;

inline constexpr std::size_t first_geometric_class = 11;
inline constexpr std::size_t largest_request = std::size_t{1} << 46;

constexpr std::size_t class_of(std::size_t bytes) {
  if (bytes <= 16) return 0;
  if (bytes <= 64) return (bytes + 15) / 16 - 1;
  if (bytes <= 512) return (bytes + 63) / 64 + 2;
  const std::size_t last = bytes - 1;
  const std::size_t octave = static_cast<std::size_t>(std::bit_width(last)) - 1;
  return first_geometric_class + (octave - 9) * 8 + ((last >> (octave - 3)) & 7);
}

constexpr std::size_t class_bytes(std::size_t index) {
  if (index < 4) return (index + 1) * 16;
  if (index < first_geometric_class) return (index - 2) * 64;
  const std::size_t step = index - first_geometric_class;
  return (step % 8 + 9) << (step / 8 + 6);
}

inline constexpr std::size_t class_count = class_of(largest_request) + 1;

inline constexpr std::size_t slice_bytes = 64 * kibibyte;  ///< a slab is a run of slices
inline constexpr std::size_t largest_small = mebibyte;     ///< up to this a block lies in a slab
inline constexpr std::size_t small_class_count = class_of(largest_small) + 1;

struct SizeClass {
  std::uint32_t bytes;
  std::uint32_t slices;    ///< in a slab: the fewest that leave at most an eighth unused
  std::uint32_t capacity;  ///< blocks in a slab
};

inline constexpr std::array<SizeClass, small_class_count> size_classes = [] {
  std::array<SizeClass, small_class_count> classes{};
  for (std::size_t index = 0; index < small_class_count; ++index) {
    const std::size_t bytes = class_bytes(index);
    std::size_t slices = 1;
    while (slices * slice_bytes < bytes || slices * slice_bytes % bytes * 8 > slices * slice_bytes) ++slices;
    classes[index] = {static_cast<std::uint32_t>(bytes), static_cast<std::uint32_t>(slices),
                      static_cast<std::uint32_t>(slices * slice_bytes / bytes)};
  }
  return classes;
}();

// Requests up to 1 KiB find their class here: shorter than `class_of`, and no branch to mispredict.
inline constexpr std::size_t table_limit = kibibyte;
inline constexpr std::array<std::uint8_t, table_limit / 16 + 1> class_table = [] {
  std::array<std::uint8_t, table_limit / 16 + 1> table{};
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::uint8_t>(class_of(i * 16));
  return table;
}();

}  // namespace hypertape::detail::memory
