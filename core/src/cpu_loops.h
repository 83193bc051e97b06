// What cpu_backend.cpp dispatches to. T is the element type of the views; labels are int64.
#pragma once

#include <algorithm>
#include <array>

#include "backend.h"

namespace hypertape::detail {

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
template <class T>
void gather_label_elements(const View& rows, const View& labels, const View& target);
template <class T>
void scatter_label_elements(const View& values, const View& labels, const View& target);
template <class T>
void cross_entropy_rows(const View& logits, const View& labels, const View& target);
template <class T>
void cross_entropy_backward_rows(const View& scale, const View& logits, const View& labels,
                                 const View& target);
template <class T>
void row_maxima(const View& rows, const View& target);
template <class T>
bool any_non_finite(const View& source);

/// Walks several strided operands over one shape: axes of extent 1 are dropped, and neighbours that every
/// operand lays out as one run are merged.
///
///   extents (4, 3, 2), strides {(6, 2, 1), (0, 2, 1)}  ->  extents (4, 6), strides {(6, 1), (0, 1)}
template <int operands>
struct StridedWalk {
  int rank = 0;
  std::array<std::int64_t, max_rank> extents{};
  std::array<std::array<std::int64_t, max_rank>, operands> strides{};

  /// Axes are added outermost first.
  void add_axis(std::int64_t extent, const std::array<std::int64_t, operands>& steps, int count) {
    if (extent == 1) return;
    if (rank > 0) {
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
    for (int k = 0; k < count; ++k)
      strides[static_cast<std::size_t>(k)][axis] = steps[static_cast<std::size_t>(k)];
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
};

}  // namespace hypertape::detail
