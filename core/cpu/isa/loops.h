// Inner loops over unit-stride elements, compiled for each ISA level.
#pragma once

#include <cstdint>

namespace hypertape::detail {

/// Elements of one partial sum of a long reduction.
inline constexpr std::int64_t reduction_chunk = 16384;
/// Elements of a cache line.
template <class T>
inline constexpr std::int64_t line_of = 64 / static_cast<std::int64_t>(sizeof(T));

/// Sums run in fixed lanes, folded in a fixed tree, so that every ISA and alignment gives the same bits: n
/// elements in blocks of 4 (float) or 2 (double) sets of 16 lanes, then in one set, the sets added up
/// between.
template <class T>
struct Loops {
  T (*sum)(std::int64_t n, const T* x);
  /// sums[i * sum_step] = sum of row i, n elements each, as `sum` has it.
  void (*sum_rows)(std::int64_t rows, std::int64_t row_step, std::int64_t n, const T* x, T* sums,
                   std::int64_t sum_step);
  T (*dot)(std::int64_t n, const T* a, const T* b);
  /// target += x
  void (*accumulate)(std::int64_t n, const T* x, T* target);
  /// target += row 0, then row 1, ...
  void (*accumulate_rows)(std::int64_t rows, std::int64_t row_step, std::int64_t n, const T* x, T* target);
  /// Row index[i * index_step] of target += row i of x, or row places[i] where there are places, for i = 0,
  /// then 1, ...: n elements each.
  void (*scatter_rows)(std::int64_t rows, std::int64_t n, const T* x, std::int64_t row_step,
                       const std::int64_t* places, const std::int64_t* index, std::int64_t index_step,
                       T* target, std::int64_t target_step);
  /// target[i * target_step + j] = source[i + j * source_step] for i < rows, j < columns.
  void (*transpose)(std::int64_t rows, std::int64_t columns, const T* source, std::int64_t source_step,
                    T* target, std::int64_t target_step);
  /// The same, not leaving the target in the caches: target starts at a cache line,
  /// and target_step is a number of whole ones.
  void (*transpose_past_caches)(std::int64_t rows, std::int64_t columns, const T* source,
                                std::int64_t source_step, T* target, std::int64_t target_step);
  bool (*has_non_finite)(std::int64_t n, const T* x);
  /// The place of the first of the largest elements, or of the smallest; a NaN beats every number. n > 0.
  std::int64_t (*extreme)(bool largest, std::int64_t n, const T* x);
  /// values[i * value_step] = that element of row i, n > 0 elements each.
  void (*extremes)(bool largest, std::int64_t rows, std::int64_t row_step, std::int64_t n, const T* x,
                   T* values, std::int64_t value_step);
  /// The same as `extreme` for lines side by side, element i of line j at i * step + j: 0 < lines <= widest
  /// and 0 < n < 2^31. `best` gets the elements.
  static constexpr std::int64_t widest = 1024;
  void (*extremes_across)(bool largest, std::int64_t lines, std::int64_t n, std::int64_t step, const T* x,
                          T* best, std::int64_t* places);
};

/// Rows of `n` >= 1 contiguous elements. Outputs may be the inputs.
template <class T>
struct SoftmaxLoops {
  /// exp(x - max) / sum of those; a maximum that is infinite counts as 0.
  void (*softmax)(std::int64_t rows, std::int64_t n, const T* x, T* y);
  void (*log_softmax)(std::int64_t rows, std::int64_t n, const T* x, T* y);
  /// p (t - sum(p t)): the derivative of softmax, symmetric, where p is its result.
  void (*softmax_slope)(std::int64_t rows, std::int64_t n, const T* p, const T* t, T* y);
  /// t - exp(l) sum(t) and t - sum(exp(l) t): the derivative of log_softmax in reverse and forward, l its
  /// result.
  void (*log_softmax_pull)(std::int64_t rows, std::int64_t n, const T* l, const T* t, T* y);
  void (*log_softmax_push)(std::int64_t rows, std::int64_t n, const T* l, const T* t, T* y);

  /// Of integer labels, label_step apart: -log softmax(x)[label] for each row.
  void (*losses)(std::int64_t rows, std::int64_t n, const T* x, const std::int64_t* labels,
                 std::int64_t label_step, T* losses);
  /// scale (softmax(x) - one_hot(label)), the rows' scales scale_step apart.
  void (*loss_gradient)(std::int64_t rows, std::int64_t n, const T* x, const std::int64_t* labels,
                        std::int64_t label_step, const T* scales, std::int64_t scale_step, T* y);
  /// scale p (t - sum(p t)) with p = softmax(x): the losses' second derivative.
  void (*loss_curvature)(std::int64_t rows, std::int64_t n, const T* x, const T* t, const T* scales,
                         std::int64_t scale_step, T* y);

  /// The first five for lines that lie side by side: element i of line j at i * step + j, for `lines` <=
  /// widest. Nothing is copied, and the bits are those of the same lines as rows.
  static constexpr std::int64_t widest = 128;
  void (*softmax_across)(std::int64_t lines, std::int64_t n, std::int64_t step, const T* x, T* y);
  void (*log_softmax_across)(std::int64_t lines, std::int64_t n, std::int64_t step, const T* x, T* y);
  using Derivative = void(std::int64_t lines, std::int64_t n, std::int64_t step, const T*, const T* t, T* y);
  Derivative *softmax_slope_across, *log_softmax_pull_across, *log_softmax_push_across;
};

template <class T>
const Loops<T>& loops();
template <class T>
const SoftmaxLoops<T>& softmax_loops();

}  // namespace hypertape::detail
