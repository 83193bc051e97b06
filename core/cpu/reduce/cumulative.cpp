// Sums along one axis that keep what they pass.
#include "core/cpu/lines.h"

namespace hypertape::detail {

namespace {

// Lines [begin, end), `together` at a time: alone, each addition would wait for the one before.
template <std::size_t together, class T>
void sum_lines(const StridedWalk<2>& lines, std::int64_t begin, std::int64_t end, std::int64_t length,
               const T* x, std::int64_t source_step, T* y, std::int64_t target_step) {
  constexpr auto step = static_cast<std::int64_t>(together);
  for (; begin + step <= end; begin += step) {
    const T* from[together];
    T* to[together];
    for (std::size_t k = 0; k < together; ++k) {
      const auto at = lines.offsets_at(lines.rank, begin + static_cast<std::int64_t>(k));
      from[k] = x + at[0];
      to[k] = y + at[1];
    }
    T totals[together] = {};
    for (std::int64_t i = 0; i < length; ++i)
      for (std::size_t k = 0; k < together; ++k)
        to[k][i * target_step] = totals[k] += from[k][i * source_step];
  }
  if constexpr (together > 1) sum_lines<1>(lines, begin, end, length, x, source_step, y, target_step);
}

}  // namespace

template <class T>
void cumulative_sums(const View& source, int axis, bool reverse, const View& target) {
  if (source.size == 0) return;
  const Lines<2> lines(source.extents, source.rank, axis, {source.strides, target.strides});
  const std::array<std::int64_t, 2> steps = lines.inner.last_steps();
  const std::int64_t length = source.extents[axis], first = reverse ? length - 1 : 0;
  const std::int64_t source_step = reverse ? -source.strides[axis] : source.strides[axis],
                     target_step = reverse ? -target.strides[axis] : target.strides[axis];
  const T* const x_first = source.as<T>() + first * source.strides[axis];
  T* const y_first = target.as<T>() + first * target.strides[axis];
  if (lines.inner.rank == 0) {
    // Stores to several lines in turn keep up with the caches, but not with memory: 2 MiB of floats, 4 of
    // doubles, which lose more by fewer lines.
    const bool in_caches = target.size <= std::int64_t{1} << 19;
    parallel_ranges(lines.outer.positions(lines.outer.rank), divide_up(lines_grain, 4 * length) * 4,
                    [&](std::int64_t begin, std::int64_t end) {
                      const auto sum = in_caches ? sum_lines<4, T> : sum_lines<8 / sizeof(T), T>;
                      sum(lines.outer, begin, end, length, x_first, source_step, y_first, target_step);
                    });
    return;
  }
  const bool unit = steps[0] == 1 && steps[1] == 1;
  lines.for_each_block(length, [&](const std::array<std::int64_t, 2>& at, std::int64_t begin,
                                   std::int64_t end) {
    const T* x = x_first + at[0];
    T* y = y_first + at[1];
    for (std::int64_t i = 0; i < length; ++i, x += source_step, y += target_step) {
      lines.inner.for_runs(begin, end, [&](const std::array<std::int64_t, 2>& offset, std::int64_t count) {
        const T* from = x + offset[0];
        T* to = y + offset[1];
        if (i == 0)
          for (std::int64_t j = 0; j < count; ++j) to[j * steps[1]] = T(0) + from[j * steps[0]];
        else if (unit)
          for (std::int64_t j = 0; j < count; ++j) to[j] = to[j - target_step] + from[j];
        else
          for (std::int64_t j = 0; j < count; ++j)
            to[j * steps[1]] = to[j * steps[1] - target_step] + from[j * steps[0]];
      });
    }
  });
}

template void cumulative_sums<float>(const View&, int, bool, const View&);
template void cumulative_sums<double>(const View&, int, bool, const View&);

}  // namespace hypertape::detail
