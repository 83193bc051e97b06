// Euclidean norms and reductions of booleans.
#include <cmath>
#include <limits>

#include <hypertape/core/parallel.h>
#include "core/cpu/isa/loops.h"
#include "core/cpu/reduce/reduction.h"
#include "core/cpu/views.h"

namespace hypertape::detail {
namespace {

// body(offset in source, offset in target) for each result, shared between threads.
template <class Body>
void for_each_result(const ReductionAxes& axes, const Body& body) {
  const std::int64_t results = axes.kept.positions(axes.kept.rank);
  const std::int64_t count = axes.reduced.positions(axes.reduced.rank);
  parallel_ranges(results, std::max<std::int64_t>(4096 / std::max<std::int64_t>(count, 1), 1),
                  [&](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t i = begin; i < end; ++i) {
                      const std::array<std::int64_t, 2> at = axes.kept.offsets_at(axes.kept.rank, i);
                      body(at[0], at[1]);
                    }
                  });
}

// One after the other, as neighbouring lines are summed.
template <class T>
T squares_in_turn(const T* x, const StridedWalk<1>& run) {
  const std::int64_t step = run.last_steps()[0];
  T total = T(0);
  run.for_runs(0, run.positions(run.rank), [&](const std::array<std::int64_t, 1>& at, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) total += x[at[0] + i * step] * x[at[0] + i * step];
  });
  return total;
}

// sqrt of the sum of squares, the elements scaled by a power of two that brings the largest near 1.
template <class T>
T scaled_norm(const T* x, const StridedWalk<1>& walk) {
  const std::int64_t step = walk.last_steps()[0], count = walk.positions(walk.rank);
  const auto each = [&](const auto& body) {
    walk.for_runs(0, count, [&](const std::array<std::int64_t, 1>& at, std::int64_t run) {
      for (std::int64_t i = 0; i < run; ++i) body(x[at[0] + i * step]);
    });
  };
  T largest = T(0);
  each([&](T value) {
    if (!(std::abs(value) <= largest)) largest = largest != largest ? largest : std::abs(value);
  });
  if (largest == T(0) || !std::isfinite(largest)) return largest;
  const int exponent = std::ilogb(largest);
  T total = T(0);
  each([&](T value) {
    const T scaled = std::scalbn(value, -exponent);
    total += scaled * scaled;
  });
  return std::scalbn(std::sqrt(total), exponent);
}

}  // namespace

template <class T>
void norm_elements(const View& source, const View& target) {
  if (target.size == 0) return;
  if (source.size == 0) return fill_elements<T>(target, 0.0);
  // Between these, squares that count neither overflow nor lose bits to underflow.
  constexpr T high = std::numeric_limits<T>::max();
  constexpr T low =
      std::numeric_limits<T>::min() / (std::numeric_limits<T>::epsilon() * std::numeric_limits<T>::epsilon());
  const ReductionAxes axes(source, target);
  const StridedWalk<1> run = axes.run();
  const std::int64_t count = run.positions(run.rank), step = run.last_steps()[0];
  const auto from_squares = [&](T total, const T* x) {
    return total >= low && total <= high ? std::sqrt(total) : scaled_norm(x, axes.reduced);
  };
  if (target.size == 1) {
    *target.as<T>() = from_squares(sum_squares<T>(source, axes), source.as<T>());
    return;
  }
  const StridedWalk<2>& kept = axes.kept;
  const std::array<std::int64_t, 2> kept_steps = kept.last_steps();
  if (kept.rank == 1 && axes.reduced.rank == 1 && !axes.run_is_last() && kept_steps[0] == 1 &&
      kept_steps[1] == 1) {
    // Neighbouring lines together, each in its order still.
    constexpr std::int64_t together = 128;
    const std::int64_t lines = kept.extents[0];
    parallel_ranges(lines, std::max<std::int64_t>(65536 / count / together, 1) * together,
                    [&](std::int64_t begin, std::int64_t end) {
                      for (; begin < end; begin += together) {
                        const std::int64_t width = std::min(together, end - begin);
                        const T* const x = source.as<T>() + begin;
                        T totals[together] = {};
                        for (std::int64_t i = 0; i < count; ++i)
                          for (std::int64_t j = 0; j < width; ++j)
                            totals[j] += x[i * step + j] * x[i * step + j];
                        for (std::int64_t j = 0; j < width; ++j)
                          target.as<T>()[begin + j] = from_squares(totals[j], x + j);
                      }
                    });
    return;
  }
  if (axes.outer == 0 && axes.run_is_last() && axes.reduced.rank > 0) {
    StridedWalk<1> row;
    row.add_axis(count, {1}, 1);
    const auto norms = [&](std::int64_t rows, std::int64_t row_step, const T* x, T* y, std::int64_t y_step) {
      for (std::int64_t i = 0; i < rows; ++i, x += row_step, y += y_step) {
        const T total = loops<T>().dot(count, x, x);
        *y = total >= low && total <= high ? std::sqrt(total) : scaled_norm(x, row);
      }
    };
    return for_each_row(axes, source.as<T>(), target.as<T>(), 4096, norms);
  }
  for_each_result(axes, [&](std::int64_t from, std::int64_t to) {
    const T* x = source.as<T>() + from;
    const SideBySide<T> elements(run, axes.run_is_last() ? count : 0);
    T total = T(0);
    axes.reduced.for_each(axes.outer, [&](const std::array<std::int64_t, 1>& at) {
      if (axes.run_is_last()) {
        const T* const part = elements(x + at[0], 0, count);
        total += loops<T>().dot(count, part, part);
      } else {
        total += squares_in_turn(x + at[0], run);
      }
    });
    target.as<T>()[to] = from_squares(total, x);
  });
}

void reduce_flags(const View& source, BooleanReduction reduction, const View& target) {
  if (target.size == 0) return;
  const ReductionAxes axes(source, target);
  const std::int64_t step = axes.reduced.last_steps()[0], count = source.size / target.size;
  for_each_result(axes, [&](std::int64_t from, std::int64_t to) {
    std::int64_t set = 0;
    axes.reduced.for_runs(0, count, [&](const std::array<std::int64_t, 1>& at, std::int64_t run) {
      const bool* x = source.as<bool>() + from + at[0];
      for (std::int64_t i = 0; i < run; ++i) set += x[i * step] ? 1 : 0;
    });
    switch (reduction) {
      case BooleanReduction::any:
        target.as<bool>()[to] = set > 0;
        break;
      case BooleanReduction::all:
        target.as<bool>()[to] = set == count;
        break;
      case BooleanReduction::count:
        target.as<std::int64_t>()[to] = set;
        break;
    }
  });
}

template void norm_elements<float>(const View&, const View&);
template void norm_elements<double>(const View&, const View&);

}  // namespace hypertape::detail
