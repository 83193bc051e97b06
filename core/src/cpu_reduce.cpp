// Sums. The order of additions is fixed by shape and layout: chunks of fixed size, 16 lanes within a chunk,
// chunks added first to last, whoever computed them.
#include <vector>

#include "cpu_loops.h"
#include "hypertape/core/parallel.h"
#include "loops.h"

namespace hypertape::detail {
namespace {

constexpr std::int64_t chunk = reduction_chunk;
constexpr std::int64_t chunks_per_task = 2;  // some 1 us

// reduce(begin, end) gives the partial result of one chunk.
template <class T, class Reduce>
T reduce_chunks(std::int64_t size, const Reduce& reduce) {
  if (size <= chunk) return reduce(std::int64_t{0}, size);
  const std::int64_t chunks = divide_up(size, chunk);
  std::vector<T> partial(static_cast<std::size_t>(chunks));
  const auto run = [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t c = first; c < last; ++c)
      partial[static_cast<std::size_t>(c)] = reduce(c * chunk, std::min(size, (c + 1) * chunk));
  };
  parallel_ranges(chunks, chunks_per_task, run, chunks <= 16 ? CallSize::brief : CallSize::any);
  return loops<T>().sum(chunks, partial.data());
}

// target[j] = sum over rows i of source[i * row_step + j], j < columns.
template <class T>
void sum_rows(const T* source, std::int64_t rows, std::int64_t row_step, std::int64_t columns, T* target) {
  const auto add = [&](std::int64_t begin, std::int64_t end, T* sums) {
    std::fill_n(sums, columns, T(0));
    loops<T>().accumulate_rows(end - begin, row_step, columns, source + begin * row_step, sums);
  };
  const std::int64_t rows_per_chunk =
      std::max<std::int64_t>(4 * chunk / std::max<std::int64_t>(columns, 1), 1);
  if (rows <= rows_per_chunk) return add(0, rows, target);
  const std::int64_t chunks = divide_up(rows, rows_per_chunk);
  std::vector<T> partial(static_cast<std::size_t>(chunks * columns));
  parallel_ranges(chunks, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t c = first; c < last; ++c)
      add(c * rows_per_chunk, std::min(rows, (c + 1) * rows_per_chunk), partial.data() + c * columns);
  });
  std::fill_n(target, columns, T(0));
  loops<T>().accumulate_rows(chunks, columns, columns, partial.data(), target);
}

template <class T>
T sum_run(const T* source, std::int64_t step, std::int64_t count) {
  if (step == 1) return loops<T>().sum(count, source);
  T total = T(0);
  for (std::int64_t i = 0; i < count; ++i) total += source[i * step];
  return total;
}

}  // namespace

template <class T>
void sum_elements(const View& source, const View& target) {
  if (target.size == 0) return;
  if (source.size == 0) return fill_elements<T>(target, 0.0);
  if (target.size == 1 && source.contiguous) {
    const T* x = source.as<T>();
    *target.as<T>() = reduce_chunks<T>(source.size, [x](std::int64_t begin, std::int64_t end) {
      return loops<T>().sum(end - begin, x + begin);
    });
    return;
  }
  // Axes that are kept and axes that are summed, each walked row-major.
  StridedWalk<2> kept;
  StridedWalk<1> summed;
  for (int axis = 0; axis < source.rank; ++axis) {
    if (target.extents[axis] == source.extents[axis])
      kept.add_axis(source.extents[axis], {source.strides[axis], target.strides[axis]}, 2);
    else
      summed.add_axis(source.extents[axis], {source.strides[axis]}, 1);
  }
  const T* x = source.as<T>();
  T* y = target.as<T>();
  const auto kept_last = static_cast<std::size_t>(std::max(kept.rank - 1, 0));
  if (kept.rank >= 1 && summed.rank == 1 && kept.strides[0][kept_last] == 1 &&
      kept.strides[1][kept_last] == 1) {
    kept.for_each(kept.rank - 1, [&](const std::array<std::int64_t, 2>& offset) {
      sum_rows(x + offset[0], summed.extents[0], summed.strides[0][0], kept.extents[kept_last],
               y + offset[1]);
    });
    return;
  }
  const auto summed_last = static_cast<std::size_t>(std::max(summed.rank - 1, 0));
  if (kept.rank >= 1 && summed.rank == 1 && summed.strides[0][0] == 1) {
    // Rows that are summed: shared between threads, one call for the many that lie evenly apart.
    const std::int64_t length = summed.extents[0], count = kept.positions(kept.rank);
    const std::array<std::int64_t, 2> steps = kept.last_steps();
    parallel_ranges(count, std::max<std::int64_t>(chunks_per_task * chunk / length, 1),
                    [&](std::int64_t begin, std::int64_t end) {
                      kept.for_runs(
                          begin, end, [&](const std::array<std::int64_t, 2>& at, std::int64_t rows) {
                            loops<T>().sum_rows(rows, steps[0], length, x + at[0], y + at[1], steps[1]);
                          });
                    });
    return;
  }
  kept.for_each(kept.rank, [&](const std::array<std::int64_t, 2>& offset) {
    if (summed.rank == 0) {
      y[offset[1]] = x[offset[0]];
      return;
    }
    T total = T(0);
    summed.for_each(summed.rank - 1, [&](const std::array<std::int64_t, 1>& inner) {
      total += sum_run(x + offset[0] + inner[0], summed.strides[0][summed_last], summed.extents[summed_last]);
    });
    y[offset[1]] = total;
  });
}

template <class T>
void dot_elements(const View& a, const View& b, const View& target) {
  const T *x = a.as<T>(), *y = b.as<T>();
  *target.as<T>() = reduce_chunks<T>(a.size, [x, y](std::int64_t begin, std::int64_t end) {
    return loops<T>().dot(end - begin, x + begin, y + begin);
  });
}

template <class T>
bool any_non_finite(const View& source) {
  if (source.size == 0) return false;
  StridedWalk<1> walk;
  for (int axis = 0; axis < source.rank; ++axis)
    walk.add_axis(source.extents[axis], {source.strides[axis]}, 1);
  const int inner = walk.rank - 1;
  const auto last = static_cast<std::size_t>(std::max(inner, 0));
  const bool unit = walk.rank == 0 || walk.strides[0][last] == 1;
  const std::int64_t length = walk.rank ? walk.extents[last] : 1;
  bool found = false;
  walk.for_each(std::max(inner, 0), [&](const std::array<std::int64_t, 1>& offset) {
    const T* x = source.as<T>() + offset[0];
    if (unit) {
      found |= loops<T>().has_non_finite(length, x);
    } else {
      for (std::int64_t i = 0; i < length; ++i)
        found |= loops<T>().has_non_finite(1, x + i * walk.strides[0][last]);
    }
  });
  return found;
}

#define HYPERTAPE_REDUCTIONS(T)                                         \
  template void sum_elements<T>(const View&, const View&);              \
  template void dot_elements<T>(const View&, const View&, const View&); \
  template bool any_non_finite<T>(const View&);
HYPERTAPE_REDUCTIONS(float)
HYPERTAPE_REDUCTIONS(double)
#undef HYPERTAPE_REDUCTIONS

}  // namespace hypertape::detail
