// Copies between layouts and dtypes, and fills.
#include <cstring>
#include <type_traits>

#include <hypertape/core/error.h>
#include <hypertape/core/parallel.h>
#include "core/cpu/isa/loops.h"
#include "core/cpu/views.h"

namespace hypertape::detail {
namespace {

constexpr std::int64_t parallel_grain = 16384;

template <class From, class To>
constexpr bool may_fail = std::is_floating_point_v<From>&& std::is_same_v<To, std::int64_t>;

template <class From>
std::int64_t truncated(From value) {
  // 2^63 is a floating number, the largest int64 is not.
  if (!(value >= From(-0x1p63) && value < From(0x1p63)))
    fail("astype", "the element ", value, " does not fit in an int64");
  return static_cast<std::int64_t>(value);
}

template <class From, class To>
void copy_run(const From* source, std::int64_t source_step, To* target, std::int64_t target_step,
              std::int64_t count) {
  if constexpr (std::is_same_v<From, To>) {
    if (source_step == 1 && target_step == 1) {
      std::memcpy(target, source, static_cast<std::size_t>(count) * sizeof(To));
      return;
    }
  }
  for (std::int64_t i = 0; i < count; ++i) {
    if constexpr (std::is_same_v<To, bool>)
      target[i * target_step] = source[i * source_step] != From(0);
    else if constexpr (may_fail<From, To>)
      target[i * target_step] = truncated(source[i * source_step]);
    else
      target[i * target_step] = static_cast<To>(source[i * source_step]);
  }
}

// A copy that turns two axes around: the source is contiguous along one, the target along the other.
struct Turn {
  int row_axis = -1, column_axis = -1;  // in the walk: the source's, the target's; -1 if the copy is none
};
Turn turn_of(const StridedWalk<2>& walk) {
  const int last = walk.rank - 1;
  for (const int contiguous : {0, 1}) {  // the operand that is not contiguous along the last axis
    if (walk.rank < 2) break;
    const auto &other = walk.strides[static_cast<std::size_t>(contiguous)],
               &along = walk.strides[static_cast<std::size_t>(1 - contiguous)];
    if (along[static_cast<std::size_t>(last)] != 1 || other[static_cast<std::size_t>(last)] <= 1) continue;
    for (int axis = 0; axis < last; ++axis) {
      if (other[static_cast<std::size_t>(axis)] != 1 || along[static_cast<std::size_t>(axis)] <= 1) continue;
      if (contiguous == 0) return {axis, last};
      return {last, axis};
    }
  }
  return {};
}

// Whether every step of the target but the one along `contiguous` is a number of whole cache lines.
template <class T>
bool steps_by_lines(const StridedWalk<2>& walk, int contiguous) {
  for (int axis = 0; axis < walk.rank; ++axis)
    if (axis != contiguous && walk.strides[1][static_cast<std::size_t>(axis)] % line_of<T> != 0) return false;
  return true;
}

template <class T>
void copy_turned(const T* source, T* target, const StridedWalk<2>& walk, const Turn& turn) {
  StridedWalk<2> rest;
  for (int axis = 0; axis < walk.rank; ++axis) {
    const auto a = static_cast<std::size_t>(axis);
    if (axis != turn.row_axis && axis != turn.column_axis)
      rest.add_axis(walk.extents[a], {walk.strides[0][a], walk.strides[1][a]}, 2);
  }
  const auto row = static_cast<std::size_t>(turn.row_axis),
             column = static_cast<std::size_t>(turn.column_axis);
  const std::int64_t rows = walk.extents[row], columns = walk.extents[column];
  const std::int64_t source_step = walk.strides[0][column], target_step = walk.strides[1][row];
  // Blocks of the target's rows and columns: of the source, rows lie far apart and are read a part at a time.
  constexpr std::int64_t height = 512, width = 8 * line_of<T>;
  const std::int64_t row_blocks = divide_up(rows, height), column_blocks = divide_up(columns, width);
  const std::int64_t blocks = row_blocks * column_blocks;
  const std::int64_t block_size = std::min(height, rows) * std::min(width, columns);
  // A target that would push all else out of the caches goes past them: its lines, written far apart, are
  // else each waited for.
  constexpr std::int64_t large = std::int64_t{6} << 20;
  const bool lines =
      reinterpret_cast<std::uintptr_t>(target) % 64 == 0 && steps_by_lines<T>(walk, turn.column_axis);
  const auto turned =
      rows * columns * rest.positions(rest.rank) * static_cast<std::int64_t>(sizeof(T)) >= large && lines
          ? loops<T>().transpose_past_caches
          : loops<T>().transpose;
  parallel_ranges(rest.positions(rest.rank) * blocks, std::max<std::int64_t>(parallel_grain / block_size, 1),
                  [&](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t task = begin; task < end; ++task) {
                      const std::array<std::int64_t, 2> at = rest.offsets_at(rest.rank, task / blocks);
                      const std::int64_t i = task % row_blocks * height;
                      const std::int64_t j = task % blocks / row_blocks * width;
                      turned(std::min(height, rows - i), std::min(width, columns - j),
                             source + at[0] + i + j * source_step, source_step,
                             target + at[1] + i * target_step + j, target_step);
                    }
                  });
}

}  // namespace

template <class From, class To>
void copy_elements(const View& source, const View& target) {
  if (target.size == 0) return;
  if (source.contiguous && target.contiguous) {
    // One range where an element may be refused: which one is named must not depend on threads.
    const std::int64_t grain = may_fail<From, To> ? target.size : parallel_grain;
    parallel_ranges(target.size, grain, [&](std::int64_t begin, std::int64_t end) {
      copy_run(source.as<From>() + begin, 1, target.as<To>() + begin, 1, end - begin);
    });
    return;
  }
  StridedWalk<2> walk;
  for (int axis = 0; axis < target.rank; ++axis)
    walk.add_axis(target.extents[axis], {source.strides[axis], target.strides[axis]}, 2);
  if constexpr (std::is_same_v<From, To> && std::is_floating_point_v<To>) {
    if (const Turn turn = turn_of(walk); turn.row_axis >= 0)
      return copy_turned(source.as<From>(), target.as<To>(), walk, turn);
  }
  const int inner = walk.rank - 1;
  const auto last = static_cast<std::size_t>(std::max(inner, 0));
  const std::int64_t length = walk.rank ? walk.extents[last] : 1;
  const auto run = [&](const StridedWalk<2>& part, std::int64_t first) {
    const From* from = source.as<From>() + (first ? first * walk.strides[0][0] : 0);
    To* to = target.as<To>() + (first ? first * walk.strides[1][0] : 0);
    part.for_each(std::max(inner, 0), [&](const std::array<std::int64_t, 2>& offset) {
      copy_run(from + offset[0], walk.rank ? walk.strides[0][last] : 1, to + offset[1],
               walk.rank ? walk.strides[1][last] : 1, length);
    });
  };
  if (walk.rank < 2 || target.size <= parallel_grain || may_fail<From, To>) return run(walk, 0);
  const std::int64_t rows = walk.extents[0];
  parallel_ranges(rows, std::max<std::int64_t>(rows * parallel_grain / target.size, 1),
                  [&](std::int64_t begin, std::int64_t end) {
                    StridedWalk<2> part = walk;
                    part.extents[0] = end - begin;
                    run(part, begin);
                  });
}

template <class T>
void fill_elements(const View& target, double value) {
  T element;
  if constexpr (std::is_same_v<T, bool>)
    element = value != 0.0;
  else
    element = static_cast<T>(value);
  std::fill_n(target.as<T>(), target.size, element);
}

#define HYPERTAPE_COPIES_FROM(From)                                          \
  template void copy_elements<From, float>(const View&, const View&);        \
  template void copy_elements<From, double>(const View&, const View&);       \
  template void copy_elements<From, std::int64_t>(const View&, const View&); \
  template void copy_elements<From, bool>(const View&, const View&);         \
  template void fill_elements<From>(const View&, double);
HYPERTAPE_COPIES_FROM(float)
HYPERTAPE_COPIES_FROM(double)
HYPERTAPE_COPIES_FROM(std::int64_t)
HYPERTAPE_COPIES_FROM(bool)
#undef HYPERTAPE_COPIES_FROM

}  // namespace hypertape::detail
