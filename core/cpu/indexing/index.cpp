// Gather and scatter along one axis. Indices are checked before they come here.
//
// A target element of scatter_add gets its terms in ascending order along the axis, whatever the layout and
// the number of threads: lines or rows of the target are shared out, never the terms of one element.
#include <cstring>

#include "core/cpu/isa/loops.h"
#include "core/cpu/lines.h"

namespace hypertape::detail {
namespace {

// target[j] = source[j * step + index[j] * axis_step]
template <class T>
void gather_run(const T* source, std::int64_t step, std::int64_t axis_step, const std::int64_t* index,
                std::int64_t index_step, T* target, std::int64_t count) {
  if (index_step == 0) {
    const T* run = source + *index * axis_step;
    if (step == 1) {
      std::memcpy(target, run, static_cast<std::size_t>(count) * sizeof(T));
      return;
    }
    for (std::int64_t j = 0; j < count; ++j) target[j] = run[j * step];
    return;
  }
  for (std::int64_t j = 0; j < count; ++j) target[j] = source[j * step + index[j * index_step] * axis_step];
}

// target[i] = source[i] row by row, of the row that the index says. The next ones are on their way from
// memory.
template <class T>
void gather_rows(const T* source, std::int64_t step, std::int64_t axis_step, const std::int64_t* index,
                 std::int64_t index_step, T* target, std::int64_t target_step, std::int64_t length,
                 std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t ahead = 8, most = 8 * line_of<T>;
  const auto row = [&](std::int64_t i) { return source + i * step + index[i * index_step] * axis_step; };
  for (std::int64_t i = begin; i < end; ++i) {
    if (i + ahead < end) {
      const T* const next = row(i + ahead);
      for (std::int64_t j = 0; j < std::min(length, most); j += line_of<T>) __builtin_prefetch(next + j);
    }
    std::memcpy(target + i * target_step, row(i), static_cast<std::size_t>(length) * sizeof(T));
  }
}

// target[index[i]] += source[i] row by row. Each thread takes the rows of its own part of the target, whose
// columns would be too few to share. Two threads that leave out each other's rows read memory no faster than
// one.
template <class T>
void scatter_rows_shared(const T* source, std::int64_t step, std::int64_t rows, std::int64_t length,
                         const std::int64_t* index, std::int64_t index_step, T* target,
                         std::int64_t target_step, std::int64_t target_rows) {
  constexpr std::int64_t in_caches = (std::int64_t{1} << 24) / static_cast<std::int64_t>(sizeof(T));
  const bool alone = rows * length > in_caches && thread_count() <= few_threads;
  const std::int64_t parts =
      alone ? 1
            : std::min({static_cast<std::int64_t>(thread_count()), target_rows, rows * length / lines_grain});
  if (parts == 1) {
    loops<T>().scatter_rows(rows, length, source, step, nullptr, index, index_step, target, target_step);
    return;
  }
  parallel_chunks(parts, [&](std::int64_t part) {
    const std::int64_t first = target_rows * part / parts, last = target_rows * (part + 1) / parts;
    constexpr std::int64_t block = 512;
    std::int64_t place[block], row[block];
    for (std::int64_t begin = 0; begin < rows; begin += block) {
      std::int64_t mine = 0;
      for (std::int64_t i = begin; i < std::min(rows, begin + block); ++i) {
        place[mine] = i;
        row[mine] = index[i * index_step];
        mine += static_cast<std::int64_t>(row[mine] >= first && row[mine] < last);
      }
      loops<T>().scatter_rows(mine, length, source, step, place, row, 1, target, target_step);
    }
  });
}

}  // namespace

template <class T>
void gather_elements(const View& source, int axis, const View& indices, const View& target) {
  if (target.size == 0) return;
  StridedWalk<3> walk;
  for (int a = 0; a < target.rank; ++a)
    walk.add_axis(target.extents[a],
                  {a == axis ? 0 : source.strides[a], indices.strides[a], target.strides[a]}, 3);
  const std::array<std::int64_t, 3> steps = walk.last_steps();
  const std::int64_t axis_step = source.strides[axis];
  if (walk.rank == 2 && steps == std::array<std::int64_t, 3>{1, 0, 1}) {
    const std::int64_t rows = walk.extents[0], length = walk.extents[1];
    parallel_ranges(rows, std::max<std::int64_t>(lines_grain / length, 1),
                    [&](std::int64_t begin, std::int64_t end) {
                      gather_rows(source.as<T>(), walk.strides[0][0], axis_step, indices.as<std::int64_t>(),
                                  walk.strides[1][0], target.as<T>(), walk.strides[2][0], length, begin, end);
                    });
    return;
  }
  parallel_ranges(target.size, lines_grain, [&](std::int64_t begin, std::int64_t end) {
    walk.for_runs(begin, end, [&](const std::array<std::int64_t, 3>& offset, std::int64_t count) {
      gather_run(source.as<T>() + offset[0], steps[0], axis_step, indices.as<std::int64_t>() + offset[1],
                 steps[1], target.as<T>() + offset[2], count);
    });
  });
}

template <class T>
void scatter_add_elements(const View& values, int axis, const View& indices, const View& target) {
  fill_elements<T>(target, 0.0);
  if (values.size == 0) return;
  const Lines<3> lines(values.extents, values.rank, axis, {values.strides, indices.strides, target.strides});
  const std::array<std::int64_t, 3> steps = lines.inner.last_steps();
  const std::int64_t length = values.extents[axis], value_step = values.strides[axis],
                     index_step = indices.strides[axis], target_step = target.strides[axis];
  const bool rows = steps[0] == 1 && steps[1] == 0 && steps[2] == 1;
  const std::int64_t columns = lines.inner.positions(lines.inner.rank);
  if (rows && lines.inner.rank == 1 && lines.outer.positions(lines.outer.rank) == 1 && thread_count() > 1 &&
      columns < 1024 && columns * length > 2 * lines_grain) {
    scatter_rows_shared(values.as<T>(), value_step, length, columns, indices.as<std::int64_t>(), index_step,
                        target.as<T>(), target_step, target.extents[axis]);
    return;
  }
  lines.for_each_block(length, [&](const std::array<std::int64_t, 3>& at, std::int64_t begin,
                                   std::int64_t end) {
    const T* x = values.as<T>() + at[0];
    const std::int64_t* index = indices.as<std::int64_t>() + at[1];
    T* y = target.as<T>() + at[2];
    if (rows && lines.inner.rank == 1) {
      loops<T>().scatter_rows(length, end - begin, x + begin, value_step, nullptr, index, index_step,
                              y + begin, target_step);
      return;
    }
    if (lines.inner.rank == 0) {
      for (std::int64_t i = 0; i < length; ++i) y[index[i * index_step] * target_step] += x[i * value_step];
      return;
    }
    for (std::int64_t i = 0; i < length; ++i, x += value_step, index += index_step) {
      lines.inner.for_runs(begin, end, [&](const std::array<std::int64_t, 3>& offset, std::int64_t count) {
        const T* from = x + offset[0];
        const std::int64_t* where = index + offset[1];
        T* to = y + offset[2];
        if (rows) return loops<T>().accumulate(count, from, to + *where * target_step);
        for (std::int64_t j = 0; j < count; ++j)
          to[where[j * steps[1]] * target_step + j * steps[2]] += from[j * steps[0]];
      });
    }
  });
}

OutsideIndex find_outside(const View& indices, std::int64_t bound) {
  if (indices.size == 0) return {};
  StridedWalk<1> walk;
  for (int axis = 0; axis < indices.rank; ++axis)
    // A broadcast axis repeats what its first position shows.
    walk.add_axis(indices.strides[axis] == 0 ? 1 : indices.extents[axis], {indices.strides[axis]}, 1);
  const std::int64_t step = walk.last_steps()[0];
  const auto outside = [bound](std::int64_t index) {
    return static_cast<std::uint64_t>(index) >= static_cast<std::uint64_t>(bound);
  };
  bool found = false;
  walk.for_runs(0, walk.positions(walk.rank), [&](const std::array<std::int64_t, 1>& at, std::int64_t count) {
    const std::int64_t* index = indices.as<std::int64_t>() + at[0];
    for (std::int64_t j = 0; j < count; ++j) found |= outside(index[j * step]);
  });
  if (!found) return {};
  StridedWalk<1> all;
  for (int axis = 0; axis < indices.rank; ++axis)
    all.add_axis(indices.extents[axis], {indices.strides[axis]}, 1);
  for (std::int64_t position = 0;; ++position) {
    const std::int64_t index = indices.as<std::int64_t>()[all.offsets_at(all.rank, position)[0]];
    if (outside(index)) return {position, index};
  }
}

#define HYPERTAPE_GATHER(T) template void gather_elements<T>(const View&, int, const View&, const View&);
HYPERTAPE_GATHER(float)
HYPERTAPE_GATHER(double)
HYPERTAPE_GATHER(std::int64_t)
HYPERTAPE_GATHER(bool)
#undef HYPERTAPE_GATHER
template void scatter_add_elements<float>(const View&, int, const View&, const View&);
template void scatter_add_elements<double>(const View&, int, const View&, const View&);

}  // namespace hypertape::detail
