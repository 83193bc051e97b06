// Largest and smallest elements along one axis. A NaN beats every number, and the first of equals wins.
#include <cmath>
#include <vector>

#include "core/cpu/isa/loops.h"
#include "core/cpu/lines.h"

namespace hypertape::detail {
namespace {

template <bool largest, class T>
bool beats(T x, T best) {
  if constexpr (largest)
    return x > best || (x != x && best == best);
  else
    return x < best || (x != x && best == best);
}

template <bool largest, class T>
std::int64_t best_of_run(const T* x, std::int64_t step, std::int64_t begin, std::int64_t end) {
  if (step == 1) return begin + loops<T>().extreme(largest, end - begin, x + begin);
  std::int64_t at = begin;
  T best = x[begin * step];
  for (std::int64_t i = begin + 1; i < end; ++i)
    if (beats<largest>(x[i * step], best)) best = x[(at = i) * step];
  return at;
}

// The same for a line that is worth several threads.
template <bool largest, class T>
std::int64_t best_of_line(const T* x, std::int64_t step, std::int64_t length) {
  constexpr std::int64_t chunk = 16384;
  if (length <= chunk) return best_of_run<largest>(x, step, 0, length);
  auto partial = list_of<std::vector<std::int64_t>>(divide_up(length, chunk));
  parallel_chunks(static_cast<std::int64_t>(partial.size()), [&](std::int64_t c) {
    partial[static_cast<std::size_t>(c)] =
        best_of_run<largest>(x, step, c * chunk, std::min(length, (c + 1) * chunk));
  });
  std::int64_t at = partial[0];
  for (const std::int64_t other : partial)
    if (beats<largest>(x[other * step], x[at * step])) at = other;
  return at;
}

// write(place in the target, best element, its position along the axis) for every line; no line is empty.
template <bool largest, class T, class Write>
void for_each_extreme(const View& source, int axis, const View& target, const Write& write) {
  const Lines<2> lines(target.extents, source.rank, axis, {source.strides, target.strides});
  const std::array<std::int64_t, 2> steps = lines.inner.last_steps();
  const std::int64_t length = source.extents[axis], step = source.strides[axis];
  if (lines.outer.rank == 0 && lines.inner.rank == 0) {
    const std::int64_t at = best_of_line<largest>(source.as<T>(), step, length);
    return write(std::int64_t{0}, source.as<T>()[at * step], at);
  }
  lines.for_each_block(
      length, [&](const std::array<std::int64_t, 2>& at, std::int64_t begin, std::int64_t end) {
        const T* x = source.as<T>() + at[0];
        if (lines.inner.rank == 0) {
          const std::int64_t i = best_of_run<largest>(x, step, 0, length);
          return write(at[1], x[i * step], i);
        }
        // Neighbouring lines together, so that memory is read in its order.
        constexpr std::int64_t width = Loops<T>::widest;
        const bool beside = steps[0] == 1 && length < std::int64_t{1} << 31;
        lines.inner.for_runs(begin, end, [&](const std::array<std::int64_t, 2>& offset, std::int64_t count) {
          for (std::int64_t first = 0; first < count; first += width) {
            const std::int64_t n = std::min(width, count - first);
            const T* run = x + offset[0] + first * steps[0];
            T best[width];
            std::int64_t place[width];
            if (beside) {
              loops<T>().extremes_across(largest, n, length, step, run, best, place);
            } else {
              for (std::int64_t j = 0; j < n; ++j) best[j] = run[j * steps[0]], place[j] = 0;
              for (std::int64_t i = 1; i < length; ++i)
                for (std::int64_t j = 0; j < n; ++j) {
                  const T candidate = run[i * step + j * steps[0]];
                  if (beats<largest>(candidate, best[j])) {
                    best[j] = candidate;
                    place[j] = i;
                  }
                }
            }
            for (std::int64_t j = 0; j < n; ++j)
              write(at[1] + offset[1] + (first + j) * steps[1], best[j], place[j]);
          }
        });
      });
}

}  // namespace

template <class T>
void extremes(const View& source, int axis, bool largest, bool finite, const View& target) {
  if (source.size == 0) return fill_elements<T>(target, 0.0);
  const auto shown = [finite](T best) { return finite && std::isinf(best) ? T(0) : best; };
  const Lines<2> lines(target.extents, source.rank, axis, {source.strides, target.strides});
  if (lines.inner.rank == 0 && lines.outer.rank > 0 && source.strides[axis] == 1) {
    const std::int64_t length = source.extents[axis];
    const std::array<std::int64_t, 2> steps = lines.outer.last_steps();
    parallel_ranges(
        lines.outer.positions(lines.outer.rank), std::max<std::int64_t>(lines_grain / length, 1),
        [&](std::int64_t begin, std::int64_t end) {
          lines.outer.for_runs(begin, end, [&](const std::array<std::int64_t, 2>& at, std::int64_t rows) {
            T* const values = target.as<T>() + at[1];
            loops<T>().extremes(largest, rows, steps[0], length, source.as<T>() + at[0], values, steps[1]);
            for (std::int64_t i = 0; finite && i < rows; ++i)
              values[i * steps[1]] = shown(values[i * steps[1]]);
          });
        });
    return;
  }
  const auto write = [&](std::int64_t place, T best, std::int64_t) { target.as<T>()[place] = shown(best); };
  if (largest)
    for_each_extreme<true, T>(source, axis, target, write);
  else
    for_each_extreme<false, T>(source, axis, target, write);
}

template <class T>
void extreme_positions(const View& source, int axis, bool largest, const View& target) {
  if (source.size == 0) return;
  const auto write = [&](std::int64_t place, T, std::int64_t position) {
    target.as<std::int64_t>()[place] = position;
  };
  if (largest)
    for_each_extreme<true, T>(source, axis, target, write);
  else
    for_each_extreme<false, T>(source, axis, target, write);
}

#define HYPERTAPE_EXTREMES(T)                                           \
  template void extremes<T>(const View&, int, bool, bool, const View&); \
  template void extreme_positions<T>(const View&, int, bool, const View&);
HYPERTAPE_EXTREMES(float)
HYPERTAPE_EXTREMES(double)
#undef HYPERTAPE_EXTREMES

}  // namespace hypertape::detail
