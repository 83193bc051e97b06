// Kernels that walk along one axis of arrays which share the other axes.
#pragma once

#include <hypertape/core/parallel.h>
#include "core/cpu/views.h"

namespace hypertape::detail {

/// Elements of work over lines that are worth a thread.
inline constexpr std::int64_t lines_grain = 4096;
/// Threads that read memory no faster together than one does alone.
inline constexpr int few_threads = 2;

/// The axes before the one that is walked (outer) and those behind it (inner), for several operands. A line
/// is one position of both.
template <int operands>
struct Lines {
  StridedWalk<operands> outer, inner;

  Lines(const std::int64_t* extents, int rank, int axis,
        const std::array<const std::int64_t*, operands>& strides) {
    for (int a = 0; a < rank; ++a) {
      if (a == axis) continue;
      std::array<std::int64_t, operands> steps;
      for (std::size_t k = 0; k < operands; ++k) steps[k] = strides[k][a];
      (a < axis ? outer : inner).add_axis(extents[a], steps, operands);
    }
  }

  /// Calls body(offsets, begin, end) for blocks of lines, shared between threads: the inner positions
  /// [begin, end) behind one outer position, where the operands have those offsets. `length` is that of a
  /// line. Results do not depend on blocks.
  template <class Body>
  void for_each_block(std::int64_t length, const Body& body) const {
    // Neighbours of a line stay in the first-level cache; narrower blocks would only jump through memory.
    constexpr std::int64_t widest = 2048;
    const std::int64_t grain = lines_grain;
    const std::int64_t outer_count = outer.positions(outer.rank), inner_count = inner.positions(inner.rank);
    if (outer_count == 0 || inner_count == 0) return;
    const std::int64_t line = std::max<std::int64_t>(length, 1), slab = line * inner_count;
    if (slab <= grain) {
      parallel_ranges(outer_count, grain / slab, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t o = begin; o < end; ++o)
          body(outer.offsets_at(outer.rank, o), std::int64_t{0}, inner_count);
      });
      return;
    }
    // Two blocks each, so that threads do not write into the cache lines between their blocks at the same
    // time; wider ones where they come from memory.
    const bool in_memory = slab * outer_count > 1 << 21 && thread_count() <= few_threads;
    const std::int64_t least_beside = in_memory ? widest : 256;
    const std::int64_t sharing = std::min(divide_up(thread_count(), outer_count), inner_count / least_beside);
    const std::int64_t pieces = std::max(divide_up(inner_count, widest), sharing > 1 ? 2 * sharing : 1);
    const std::int64_t width = divide_up(inner_count, pieces), blocks = divide_up(inner_count, width);
    parallel_chunks(outer_count * blocks, [&](std::int64_t task) {
      const std::int64_t begin = task % blocks * width;
      body(outer.offsets_at(outer.rank, task / blocks), begin, std::min(inner_count, begin + width));
    });
  }
};

}  // namespace hypertape::detail
