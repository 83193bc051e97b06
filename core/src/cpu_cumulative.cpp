// Sums along one axis that keep what they pass.
#include "cpu_lines.h"

namespace hypertape::detail {

namespace {

// One after the other, an addition waits for the one before: several lines wait together.
constexpr std::int64_t together = 4;

template <class T>
void sum_lines(const std::array<const T*, together>& x, std::int64_t source_step,
               const std::array<T*, together>& y, std::int64_t target_step, std::int64_t length) {
  T totals[together] = {};
  for (std::int64_t i = 0; i < length; ++i)
    for (std::size_t k = 0; k < together; ++k) y[k][i * target_step] = totals[k] += x[k][i * source_step];
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
    const std::int64_t count = lines.outer.positions(lines.outer.rank);
    parallel_ranges(
        count, std::max<std::int64_t>(16384 / length, 1), [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t line = begin; line < end; line += together) {
            std::array<const T*, together> x;
            std::array<T*, together> y;
            for (std::size_t k = 0; k < together; ++k) {  // where there are fewer, the last one several times
              const auto at = lines.outer.offsets_at(lines.outer.rank,
                                                     std::min(line + static_cast<std::int64_t>(k), end - 1));
              x[k] = x_first + at[0];
              y[k] = y_first + at[1];
            }
            sum_lines(x, source_step, y, target_step, length);
          }
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
        const T* before = to - target_step;
        if (i == 0)
          for (std::int64_t j = 0; j < count; ++j) to[j * steps[1]] = T(0) + from[j * steps[0]];
        else if (unit)
          for (std::int64_t j = 0; j < count; ++j) to[j] = before[j] + from[j];
        else
          for (std::int64_t j = 0; j < count; ++j)
            to[j * steps[1]] = before[j * steps[1]] + from[j * steps[0]];
      });
    }
  });
}

template void cumulative_sums<float>(const View&, int, bool, const View&);
template void cumulative_sums<double>(const View&, int, bool, const View&);

}  // namespace hypertape::detail
