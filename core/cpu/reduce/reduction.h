// How reductions read a view. The order of their additions is that of the view's shape: of its row-major
// copy, whatever the layout in memory. Where the layout has not the order, elements are gathered a piece at a
// time.
#pragma once

#include "core/cpu/isa/loops.h"
#include "core/cpu/views.h"
#include "core/memory/scratch.h"

namespace hypertape::detail {

/// The axes of a reduction, those of extent 1 left out. Neighbours that are summed form a run; the last run
/// is added up first, and its sums in row-major order of the others:
///
///   extents (4, 1, 3, 5, 2), summed 1, 2, 3  ->  kept 4 before the run and 2 behind it, reduced: the run (3,
///   5) extents (4, 3, 5), summed 0, 2           ->  kept 3 before the run, reduced: 4 outside and the run 5
struct ReductionAxes {
  StridedWalk<2> kept;     ///< strides in source and target
  StridedWalk<1> reduced;  ///< merged within runs only
  int before = 0;          ///< axes of `kept` in front of the last run
  int outer = 0;           ///< axes of `reduced` outside of it

  ReductionAxes(const View& source, const View& target) {
    bool in_run = false, in_kept = false;
    for (int axis = 0; axis < source.rank; ++axis) {
      const std::int64_t extent = source.extents[axis];
      if (extent == 1) continue;
      if (target.extents[axis] == extent) {
        kept.add_axis(extent, {source.strides[axis], target.strides[axis]}, 2, in_kept);
        in_run = false;
        in_kept = true;
      } else {
        if (!in_run) {
          before = kept.rank;
          outer = reduced.rank;
        }
        reduced.add_axis(extent, {source.strides[axis]}, 1, in_run);
        in_run = true;
        in_kept = false;
      }
    }
  }

  /// The run is innermost: in row-major memory its elements lie side by side.
  bool run_is_last() const noexcept { return before == kept.rank; }
  StridedWalk<1> run() const noexcept { return reduced.from(outer); }
  StridedWalk<2> behind() const noexcept { return kept.from(before); }
};

/// Whether the first operand's elements of the walk lie side by side, in its order.
template <int operands>
bool lies_together(const StridedWalk<operands>& walk) noexcept {
  return walk.rank == 0 || (walk.rank == 1 && walk.strides[0][0] == 1);
}

/// target[i * (end - begin) + j] = element begin + j of the walk from x + i * row_step, i < rows.
template <class T, int operands>
void gather_rows(std::int64_t rows, std::int64_t row_step, const StridedWalk<operands>& walk,
                 std::int64_t begin, std::int64_t end, const T* x, T* target) {
  const std::int64_t columns = end - begin, step = walk.last_steps()[0];
  if (row_step == 1 && walk.rank == 1) {
    constexpr std::int64_t together = 8 * line_of<T>;
    for (std::int64_t j = 0; j < columns; j += together)
      loops<T>().transpose(rows, std::min(together, columns - j), x + (begin + j) * step, step, target + j,
                           columns);
    return;
  }
  for (std::int64_t i = 0; i < rows; ++i, x += row_step) {
    walk.for_runs(begin, end, [&](const std::array<std::int64_t, operands>& at, std::int64_t count) {
      const T* const from = x + at[0];
      for (std::int64_t j = 0; j < count; ++j) *target++ = from[j * step];
    });
  }
}

/// Elements of a walk side by side: where they are, or gathered.
template <class T>
class SideBySide {
 public:
  /// Of at most `most` elements at once.
  SideBySide(const StridedWalk<1>& walk, std::int64_t most)
      : walk_(walk), gathered_(lies_together(walk) ? 0 : most) {}

  /// Elements [begin, end) of the walk from x; until the next call.
  const T* operator()(const T* x, std::int64_t begin, std::int64_t end) const {
    if (lies_together(walk_)) return x + begin;
    gather_rows(1, 0, walk_, begin, end, x, gathered_.get());
    return gathered_.get();
  }

 private:
  const StridedWalk<1>& walk_;
  Scratch<T> gathered_;
};

/// Where all that is reduced is one innermost run: body(rows, row_step, x, y, y_step) for rows side by side,
/// where they are or gathered, shared between threads in pieces of some `grain` elements.
template <class T, class Body>
void for_each_row(const ReductionAxes& axes, const T* x, T* y, std::int64_t grain, const Body& body) {
  constexpr std::int64_t most = reduction_chunk;
  const StridedWalk<2>& kept = axes.kept;
  const StridedWalk<1> run = axes.run();
  const std::int64_t length = run.positions(run.rank), count = kept.positions(kept.rank);
  const std::array<std::int64_t, 2> steps = kept.last_steps();
  const bool together = lies_together(run);
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t height = std::min(std::max(most / length, 2 * line_of<T>), end - begin);
    const Scratch<T> block(together ? 0 : height * length);
    kept.for_runs(begin, end, [&](const std::array<std::int64_t, 2>& at, std::int64_t rows) {
      if (together) return body(rows, steps[0], x + at[0], y + at[1], steps[1]);
      for (std::int64_t i = 0; i < rows; i += height) {
        const std::int64_t now = std::min(height, rows - i);
        gather_rows(now, steps[0], run, 0, length, x + at[0] + i * steps[0], block.get());
        body(now, length, block.get(), y + at[1] + i * steps[1], steps[1]);
      }
    });
  };
  parallel_ranges(count, std::max<std::int64_t>(grain / length, 1), part);
}

/// The sum of the squares of a view whose axes are all reduced.
template <class T>
T sum_squares(const View& source, const ReductionAxes& axes);

}  // namespace hypertape::detail
