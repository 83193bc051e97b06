// Euclidean norms and reductions of booleans.
#include <cmath>
#include <limits>

#include "cpu_loops.h"
#include "hypertape/core/parallel.h"
#include "loops.h"

namespace hypertape::detail {
namespace {

// Axes that are kept (in source and target) and axes that are reduced, each walked row-major.
struct Reduction {
  StridedWalk<2> kept;
  StridedWalk<1> reduced;
  Reduction(const View& source, const View& target) {
    for (int axis = 0; axis < source.rank; ++axis) {
      if (target.extents[axis] == source.extents[axis])
        kept.add_axis(source.extents[axis], {source.strides[axis], target.strides[axis]}, 2);
      else
        reduced.add_axis(source.extents[axis], {source.strides[axis]}, 1);
    }
  }
  std::int64_t count() const noexcept { return reduced.positions(reduced.rank); }

  // body(offset in source, offset in target) for each result, shared between threads.
  template <class Body>
  void for_each_result(const Body& body) const {
    const std::int64_t results = kept.positions(kept.rank);
    parallel_ranges(results, std::max<std::int64_t>(4096 / std::max<std::int64_t>(count(), 1), 1),
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t i = begin; i < end; ++i) {
                        const std::array<std::int64_t, 2> at = kept.offsets_at(kept.rank, i);
                        body(at[0], at[1]);
                      }
                    });
  }
};

template <class T>
T square_run(const T* x, std::int64_t step, std::int64_t count) {
  if (step == 1) return loops<T>().dot(count, x, x);
  T total = T(0);
  for (std::int64_t i = 0; i < count; ++i) total += x[i * step] * x[i * step];
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
  const Reduction reduction(source, target);
  const std::int64_t step = reduction.reduced.last_steps()[0], count = reduction.count();
  const auto from_squares = [&](T total, const T* x) {
    return total >= low && total <= high ? std::sqrt(total) : scaled_norm(x, reduction.reduced);
  };
  if (target.size == 1 && source.contiguous) {
    dot_elements<T>(source, source, target);
    T& result = *target.as<T>();
    result = from_squares(result, source.as<T>());
    return;
  }
  const StridedWalk<2>& kept = reduction.kept;
  const std::array<std::int64_t, 2> kept_steps = kept.last_steps();
  if (kept.rank == 1 && reduction.reduced.rank == 1 && step != 1 && kept_steps[0] == 1 &&
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
  reduction.for_each_result([&](std::int64_t from, std::int64_t to) {
    const T* x = source.as<T>() + from;
    T total = T(0);
    reduction.reduced.for_runs(0, count, [&](const std::array<std::int64_t, 1>& at, std::int64_t run) {
      total += square_run(x + at[0], step, run);
    });
    target.as<T>()[to] = from_squares(total, x);
  });
}

void reduce_flags(const View& source, BooleanReduction reduction, const View& target) {
  if (target.size == 0) return;
  const Reduction axes(source, target);
  const std::int64_t step = axes.reduced.last_steps()[0], count = source.size / target.size;
  axes.for_each_result([&](std::int64_t from, std::int64_t to) {
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
