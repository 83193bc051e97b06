// Inner loops over unit-stride elements, compiled for each ISA level.
#pragma once

#include <cstdint>

namespace hypertape::detail {

/// Elements of one partial sum of a long reduction.
inline constexpr std::int64_t reduction_chunk = 16384;

/// Sums run in 16 fixed lanes, folded in a fixed tree, so that every ISA and alignment gives the same bits.
template <class T>
struct Loops {
  T (*sum)(std::int64_t n, const T* x);
  T (*dot)(std::int64_t n, const T* a, const T* b);
  /// target += x
  void (*accumulate)(std::int64_t n, const T* x, T* target);
  bool (*has_non_finite)(std::int64_t n, const T* x);
};

template <class T>
const Loops<T>& loops();

}  // namespace hypertape::detail
