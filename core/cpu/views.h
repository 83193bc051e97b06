// What core/cpu/backend/backend.cpp dispatches to. T is the element type of the views; labels are int64.
#pragma once

#include <algorithm>
#include <array>

#include <hypertape/core/parallel.h>
#include "core/backend/backend.h"
#include "core/base/divide_up.h"

namespace hypertape::detail {

/// How work over elements is shared between threads: not at all unless there are more than `least` of them,
/// then in even pieces of at most about as many, an even number of them or nearly so.
///
/// A parallel call costs 0.4 us while helpers are looking for work, and pays from 1 us of work on (measured
/// on a virtual machine); that they sleep costs nothing but their help, see helper_threads.cpp. Sharing all
/// that pays also leaves each half of the data where the next operation looks for it. Hence `least`: `bytes`
/// of each operand of an addition, which are 0.8 us in the second-level cache and more beyond it. All of it
/// depends on shapes alone.
struct Sharing {
  std::int64_t least;

  /// For a loop that takes (cost + 1) / 2 times as long as an addition.
  static Sharing of(std::size_t element_bytes, int cost = 1) noexcept {
    constexpr std::int64_t bytes = 1 << 15;
    return {std::max<std::int64_t>(2 * bytes / (static_cast<std::int64_t>(element_bytes) * (cost + 1)), 1)};
  }
  /// Pieces as even as whole cache lines allow: an uneven split leaves a thread waiting.
  std::int64_t piece(std::int64_t size) const noexcept {
    if (size <= least) return std::max<std::int64_t>(size, 1);
    const std::int64_t pieces = divide_up(divide_up(size, least), 2) * 2;
    return std::max<std::int64_t>(divide_up(divide_up(size, pieces), 64) * 64, 64);
  }
  CallSize call_size(std::int64_t size) const noexcept {
    return size <= 16 * least ? CallSize::brief : CallSize::any;
  }
};

template <class From, class To>
void copy_elements(const View& source, const View& target);
template <class T>
void fill_elements(const View& target, double value);
template <class T>
void random_elements(const View& target, Distribution distribution, const Key& key);
void run_elementwise(const ElementwiseCall& call);
template <class T>
void relate_elements(Relation relation, const View& a, const View& b, const View& target);
template <class T>
void select_elements(const View& mask, const View& a, const View& b, const View& target);
template <class T>
void sum_elements(const View& source, const View& target);
template <class T>
void dot_elements(const View& a, const View& b, const View& target);
void run_product(const View& a, bool transpose_a, const View& b, bool transpose_b, const View& target,
                 bool accumulate);
template <class T>
void finish_layer_rows(const LayerViews& layer);
template <class T>
void gather_label_elements(const View& rows, const View& labels, const View& target);
template <class T>
void scatter_label_elements(const View& values, const View& labels, const View& target);
template <class T>
void softmax_rows(const View& source, int axis, bool logarithm, const View& target);
template <class T>
void softmax_derivative_rows(SoftmaxDerivative kind, const View& result, const View& t, int axis,
                             const View& target);
template <class T>
void cross_entropy_rows(const View& logits, const View& labels, const View& target);
template <class T>
void cross_entropy_loss_rows(const View& logits, const View& labels, const View& target);
template <class T>
void cross_entropy_gradient_rows(const View& scales, bool mean, const View& logits, const View& labels,
                                 const View& target);
template <class T>
void cross_entropy_curvature_rows(const View& scales, bool mean, const View& logits, const View& t,
                                  const View& target);
template <class T>
void extremes(const View& source, int axis, bool largest, bool finite, const View& target);
template <class T>
void extreme_positions(const View& source, int axis, bool largest, const View& target);
template <class T>
void norm_elements(const View& source, const View& target);
template <class T>
void cumulative_sums(const View& source, int axis, bool reverse, const View& target);
void reduce_flags(const View& source, BooleanReduction reduction, const View& target);
template <class T>
void gather_elements(const View& source, int axis, const View& indices, const View& target);
template <class T>
void scatter_add_elements(const View& values, int axis, const View& indices, const View& target);
OutsideIndex find_outside(const View& indices, std::int64_t bound);
template <class T>
bool any_non_finite(const View& source);

template <class T>
void step_of_sgd(const SgdViews& step);
template <class T>
void step_back_of_sgd(const SgdBackViews& step);
template <class T>
void step_tangent_of_sgd(const SgdTangentViews& step);
template <class T>
void step_of_adam(const AdamViews& step);
template <class T>
void step_of_series(const SeriesViews& step);

/// Walks several strided operands over one shape: axes of extent 1 are dropped, and neighbours that every
/// operand lays out as one run are merged.
///
///   extents (4, 3, 2), strides {(6, 2, 1), (0, 2, 1)}  ->  extents (4, 6), strides {(6, 1), (0, 1)}
template <int operands>
struct StridedWalk {
  int rank = 0;
  // Of the first `rank` axes; to set all of them would cost small calls a tenth of their time.
  std::array<std::int64_t, max_rank> extents;
  std::array<std::array<std::int64_t, max_rank>, operands> strides;

  /// Axes are added outermost first.
  void add_axis(std::int64_t extent, const std::array<std::int64_t, operands>& steps, int count,
                bool may_merge = true) {
    if (extent == 1) return;
    if (rank > 0 && may_merge) {
      const auto last = static_cast<std::size_t>(rank - 1);
      bool merges = true;
      for (int k = 0; k < count; ++k) {
        const auto operand = static_cast<std::size_t>(k);
        merges &= strides[operand][last] == steps[operand] * extent;
      }
      if (merges) {
        extents[last] *= extent;
        for (int k = 0; k < count; ++k)
          strides[static_cast<std::size_t>(k)][last] = steps[static_cast<std::size_t>(k)];
        return;
      }
    }
    const auto axis = static_cast<std::size_t>(rank++);
    extents[axis] = extent;
    for (std::size_t k = 0; k < operands; ++k) strides[k][axis] = static_cast<int>(k) < count ? steps[k] : 0;
  }

  /// The axes from `first` on.
  StridedWalk from(int first) const noexcept {
    StridedWalk part;
    for (; first < rank; ++first, ++part.rank) {
      const auto to = static_cast<std::size_t>(part.rank), axis = static_cast<std::size_t>(first);
      part.extents[to] = extents[axis];
      for (std::size_t k = 0; k < operands; ++k) part.strides[k][to] = strides[k][axis];
    }
    return part;
  }

  /// Calls body(offsets) for each position of the first `outer` axes, offsets in elements per operand,
  /// row-major.
  template <class Body>
  void for_each(int outer, Body&& body) const {
    std::array<std::int64_t, max_rank> index{};
    std::array<std::int64_t, operands> offset{};
    for (;;) {
      body(offset);
      int axis = outer - 1;
      for (; axis >= 0; --axis) {
        const auto a = static_cast<std::size_t>(axis);
        for (std::size_t k = 0; k < operands; ++k) offset[k] += strides[k][a];
        if (++index[a] < extents[a]) break;
        for (std::size_t k = 0; k < operands; ++k) offset[k] -= strides[k][a] * extents[a];
        index[a] = 0;
      }
      if (axis < 0) return;
    }
  }

  /// Positions of the first `outer` axes.
  std::int64_t positions(int outer) const noexcept {
    std::int64_t count = 1;
    for (int axis = 0; axis < outer; ++axis) count *= extents[static_cast<std::size_t>(axis)];
    return count;
  }

  /// Offsets at one position of the first `outer` axes, counted row-major.
  std::array<std::int64_t, operands> offsets_at(int outer, std::int64_t position) const noexcept {
    std::array<std::int64_t, operands> offset{};
    for (int axis = outer - 1; axis >= 0; --axis) {
      const auto a = static_cast<std::size_t>(axis);
      for (std::size_t k = 0; k < operands; ++k) offset[k] += position % extents[a] * strides[k][a];
      position /= extents[a];
    }
    return offset;
  }

  /// Steps along the last axis; zeros if there is none.
  std::array<std::int64_t, operands> last_steps() const noexcept {
    std::array<std::int64_t, operands> steps{};
    for (std::size_t k = 0; rank > 0 && k < operands; ++k)
      steps[k] = strides[k][static_cast<std::size_t>(rank - 1)];
    return steps;
  }

  /// Calls body(offsets, count) for the runs along the last axis that make up positions [begin, end) of all
  /// axes.
  template <class Body>
  void for_runs(std::int64_t begin, std::int64_t end, Body&& body) const {
    if (begin >= end) return;
    const int inner = rank > 0 ? rank - 1 : 0;
    const std::int64_t length = rank > 0 ? extents[static_cast<std::size_t>(inner)] : 1;
    std::array<std::int64_t, max_rank> index{};
    std::int64_t outer = begin / length;
    for (int axis = inner - 1; axis >= 0; --axis) {
      const auto a = static_cast<std::size_t>(axis);
      index[a] = outer % extents[a];
      outer /= extents[a];
    }
    std::array<std::int64_t, operands> at = offsets_at(rank, begin);
    std::int64_t first = begin % length;
    for (;;) {
      const std::int64_t count = std::min(length - first, end - begin);
      body(at, count);
      if ((begin += count) >= end) return;
      const std::array<std::int64_t, operands> steps = last_steps();
      for (std::size_t k = 0; k < operands; ++k) at[k] -= first * steps[k];
      first = 0;
      for (int axis = inner - 1; axis >= 0; --axis) {
        const auto a = static_cast<std::size_t>(axis);
        for (std::size_t k = 0; k < operands; ++k) at[k] += strides[k][a];
        if (++index[a] < extents[a]) break;
        for (std::size_t k = 0; k < operands; ++k) at[k] -= strides[k][a] * extents[a];
        index[a] = 0;
      }
    }
  }
};

}  // namespace hypertape::detail
