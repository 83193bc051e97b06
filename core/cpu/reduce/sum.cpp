// Sums. The order of additions is fixed by the shape: chunks of fixed size, 16 lanes within a chunk, chunks
// added first to last, whoever computed them.
#include <vector>

#include <hypertape/core/parallel.h>
#include "core/cpu/isa/loops.h"
#include "core/cpu/reduce/reduction.h"
#include "core/cpu/views.h"

namespace hypertape::detail {
namespace {

constexpr std::int64_t chunk = reduction_chunk;
constexpr std::int64_t chunks_per_task = 2;  // some 1 us

// reduce(begin, end) gives the partial result of one chunk.
template <class T, class Reduce>
T reduce_chunks(std::int64_t size, const Reduce& reduce) {
  if (size <= chunk) return reduce(std::int64_t{0}, size);
  const std::int64_t chunks = divide_up(size, chunk);
  auto partial = list_of<std::vector<T>>(chunks);
  const auto run = [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t c = first; c < last; ++c)
      partial[static_cast<std::size_t>(c)] = reduce(c * chunk, std::min(size, (c + 1) * chunk));
  };
  parallel_ranges(chunks, chunks_per_task, run, chunks <= 16 ? CallSize::brief : CallSize::any);
  return loops<T>().sum(chunks, partial.data());
}

// sums[j] += the sum over rows [begin, end) of the run of column j, row by row.
template <class T>
void add_rows(const T* x, const StridedWalk<1>& run, std::int64_t begin, std::int64_t end,
              const StridedWalk<2>& columns, T* sums) {
  const std::int64_t count = columns.positions(columns.rank), step = run.last_steps()[0];
  if (lies_together(columns)) {
    run.for_runs(begin, end, [&](const std::array<std::int64_t, 1>& at, std::int64_t rows) {
      loops<T>().accumulate_rows(rows, step, count, x + at[0], sums);
    });
    return;
  }
  const std::int64_t width = std::min<std::int64_t>(count, 8 * line_of<T>);
  const std::int64_t height = std::min(std::max<std::int64_t>(chunk / width, 1), end - begin);
  const Scratch<T> block(width * height);
  for (std::int64_t j = 0; j < count; j += width) {
    const std::int64_t stop = std::min(j + width, count);
    run.for_runs(begin, end, [&](const std::array<std::int64_t, 1>& at, std::int64_t rows) {
      for (std::int64_t i = 0; i < rows; i += height) {
        const std::int64_t now = std::min(height, rows - i);
        gather_rows(now, step, columns, j, stop, x + at[0] + i * step, block.get());
        loops<T>().accumulate_rows(now, stop - j, stop - j, block.get(), sums + j);
      }
    });
  }
}

// target[j] = sum over the run of column j.
template <class T>
void sum_rows(const T* x, const StridedWalk<1>& run, const StridedWalk<2>& columns, T* target) {
  const std::int64_t count = columns.positions(columns.rank), rows = run.positions(run.rank);
  const auto add = [&](std::int64_t begin, std::int64_t end, T* sums) {
    std::fill_n(sums, count, T(0));
    add_rows(x, run, begin, end, columns, sums);
  };
  const std::int64_t rows_per_chunk = std::max<std::int64_t>(4 * chunk / std::max<std::int64_t>(count, 1), 1);
  if (rows <= rows_per_chunk) return add(0, rows, target);
  const std::int64_t chunks = divide_up(rows, rows_per_chunk);
  auto partial = list_of<std::vector<T>>(chunks * count);
  parallel_ranges(chunks, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t c = first; c < last; ++c)
      add(c * rows_per_chunk, std::min(rows, (c + 1) * rows_per_chunk), partial.data() + c * count);
  });
  std::fill_n(target, count, T(0));
  loops<T>().accumulate_rows(chunks, count, count, partial.data(), target);
}

// One after the other, as columns are summed.
template <class T>
T sum_in_turn(const T* x, const StridedWalk<1>& run) {
  const std::int64_t step = run.last_steps()[0];
  T total = T(0);
  run.for_runs(0, run.positions(run.rank), [&](const std::array<std::int64_t, 1>& at, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) total += x[at[0] + i * step];
  });
  return total;
}

}  // namespace

template <class T>
void sum_elements(const View& source, const View& target) {
  if (target.size == 0) return;
  if (source.size == 0) return fill_elements<T>(target, 0.0);
  const T* x = source.as<T>();
  T* y = target.as<T>();
  if (target.size == 1 && source.contiguous) {
    *y = reduce_chunks<T>(source.size, [x](std::int64_t begin, std::int64_t end) {
      return loops<T>().sum(end - begin, x + begin);
    });
    return;
  }
  const ReductionAxes axes(source, target);
  if (target.size == 1) {
    const StridedWalk<1> run = axes.run();
    *y = reduce_chunks<T>(source.size, [&](std::int64_t begin, std::int64_t end) {
      const SideBySide<T> elements(run, end - begin);
      return loops<T>().sum(end - begin, elements(x, begin, end));
    });
    return;
  }
  const StridedWalk<2>& kept = axes.kept;
  if (axes.reduced.rank == 0) {
    kept.for_each(kept.rank, [&](const std::array<std::int64_t, 2>& at) { y[at[1]] = x[at[0]]; });
    return;
  }
  const StridedWalk<1> run = axes.run();
  const std::int64_t length = run.positions(run.rank);
  if (axes.outer == 0 && axes.run_is_last()) {
    const auto sum = [length](std::int64_t rows, std::int64_t row_step, const T* first, T* sums,
                              std::int64_t sum_step) {
      loops<T>().sum_rows(rows, row_step, length, first, sums, sum_step);
    };
    return for_each_row(axes, x, y, chunks_per_task * chunk, sum);
  }
  if (axes.outer == 0) {
    const StridedWalk<2> columns = axes.behind();
    kept.for_each(axes.before, [&](const std::array<std::int64_t, 2>& at) {
      sum_rows(x + at[0], run, columns, y + at[1]);
    });
    return;
  }
  const SideBySide<T> elements(run, axes.run_is_last() ? length : 0);
  kept.for_each(kept.rank, [&](const std::array<std::int64_t, 2>& at) {
    T total = T(0);
    axes.reduced.for_each(axes.outer, [&](const std::array<std::int64_t, 1>& inner) {
      const T* const first = x + at[0] + inner[0];
      total +=
          axes.run_is_last() ? loops<T>().sum(length, elements(first, 0, length)) : sum_in_turn(first, run);
    });
    y[at[1]] = total;
  });
}

// The sum of squares of all elements, as `dot` has it.
template <class T>
T sum_squares(const View& source, const ReductionAxes& axes) {
  const T* x = source.as<T>();
  const StridedWalk<1> run = axes.run();
  return reduce_chunks<T>(source.size, [&](std::int64_t begin, std::int64_t end) {
    const SideBySide<T> elements(run, end - begin);
    const T* const part = elements(x, begin, end);
    return loops<T>().dot(end - begin, part, part);
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
  template T sum_squares<T>(const View&, const ReductionAxes&);         \
  template void dot_elements<T>(const View&, const View&, const View&); \
  template bool any_non_finite<T>(const View&);
HYPERTAPE_REDUCTIONS(float)
HYPERTAPE_REDUCTIONS(double)
#undef HYPERTAPE_REDUCTIONS

}  // namespace hypertape::detail
