// Sums along one axis that keep what they pass.
#include "cpu_lines.h"

namespace hypertape::detail {

template <class T>
void cumulative_sums(const View& source, int axis, bool reverse, const View& target) {
  if (source.size == 0) return;
  const Lines<2> lines(source.extents, source.rank, axis, {source.strides, target.strides});
  const std::array<std::int64_t, 2> steps = lines.inner.last_steps();
  const std::int64_t length = source.extents[axis], first = reverse ? length - 1 : 0;
  const std::int64_t source_step = reverse ? -source.strides[axis] : source.strides[axis],
                     target_step = reverse ? -target.strides[axis] : target.strides[axis];
  lines.for_each_block(length, [&](const std::array<std::int64_t, 2>& at, std::int64_t begin,
                                   std::int64_t end) {
    const T* x = source.as<T>() + at[0] + first * source.strides[axis];
    T* y = target.as<T>() + at[1] + first * target.strides[axis];
    if (lines.inner.rank == 0) {
      T total = T(0);
      for (std::int64_t i = 0; i < length; ++i) y[i * target_step] = total += x[i * source_step];
      return;
    }
    for (std::int64_t i = 0; i < length; ++i, x += source_step, y += target_step) {
      lines.inner.for_runs(begin, end, [&](const std::array<std::int64_t, 2>& offset, std::int64_t count) {
        const T* from = x + offset[0];
        T* to = y + offset[1];
        for (std::int64_t j = 0; j < count; ++j) {
          const T before = i == 0 ? T(0) : to[j * steps[1] - target_step];
          to[j * steps[1]] = before + from[j * steps[0]];
        }
      });
    }
  });
}

template void cumulative_sums<float>(const View&, int, bool, const View&);
template void cumulative_sums<double>(const View&, int, bool, const View&);

}  // namespace hypertape::detail
