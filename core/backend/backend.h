// The seam between operations and memory: whatever dereferences storage is a Backend.
//
// Operations check shapes and dtypes, then hand strided views to the backend of their operands. A backend's
// values depend on the views alone: never on threads, timing or whether a derivative is being recorded.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include <hypertape/core/random.h>
#include "core/backend/digit_buffer.h"
#include "core/backend/fixed_point.h"
#include "core/base/default_floats.h"
#include "core/elementwise/codes.h"
#include "core/tensor/header.h"

namespace hypertape::detail {

/// A strided array: no ownership.
struct View {
  void* data;
  const std::int64_t* extents;
  const std::int64_t* strides;
  std::int64_t size;
  Dtype dtype;
  int rank;
  bool contiguous;

  template <class T>
  T* as() const noexcept {
    return static_cast<T*>(data);
  }
};

inline View view_of(const Tensor& tensor) noexcept {
  Header& header = *tensor.header();
  return {header.data,  header.extents(), header.strides(), header.size,
          header.dtype, header.rank,      header.contiguous};
}

/// One elementwise kernel over up to `inputs` operands, all broadcast to the shape of the outputs. A dual
/// kernel also reads the tangents named in its mask and writes a second output.
struct ElementwiseCall {
  static constexpr int max_inputs = 8;
  ElementwiseKernels kernel;
  const Tensor* inputs[max_inputs];
  int input_count = 0;
  const Tensor* outputs[2];
  int output_count = 0;
  double scalar = 0.0;
  /// The value is added to what the output holds; for plain kernels.
  bool accumulate = false;
};

/// One parameter of a fixed-point momentum step: w and v int64 (fixed_point.h), the gradient floating, all
/// contiguous and of one size. Where no gradient is read, its view may be empty.
struct MomentumViews {
  View w, v, gradient;
  double rate;
  int weight_bits = fraction_bits, velocity_bits = fraction_bits;
};

/// The end of a layer: value = activation(value + bias), bias for every row; likewise the tangent, in place.
/// On entry value, contiguous, holds the product, and tangent, if there is one, the product's tangent.
struct LayerViews {
  View value, bias;
  View tangent{}, bias_tangent{};         ///< without data where there is none
  bool bias_tangent_alone = false;        ///< the product has no tangent
  const OpKernels* activation = nullptr;  ///< none
};

/// One tensor's step of SGD with momentum: all contiguous, of one size and floating dtype; rate and momentum
/// have one element. A target may be an operand's own memory.
struct SgdViews {
  View w, v, push, rate, momentum, next_w, next_v;
};

/// Its transpose at cotangents of next_w and next_v, both given. A sum whose target is empty is left out, and
/// then v (or next_v) may be empty.
struct SgdBackViews {
  View bar_w, bar_v, v, next_v, rate, momentum, bar_push, bar_v_before;
  View rate_sum;      ///< <bar_w, next_v>: minus the rate's gradient
  View momentum_sum;  ///< <bar_push, v>
};

/// Its tangents, from those of w, v and push, all given; empty views stand for constant rates and momenta,
/// and then next_v (or v) may be empty.
struct SgdTangentViews {
  View v, next_v, w_tangent, v_tangent, push_tangent, rate, momentum, rate_tangent, momentum_tangent;
  View next_w_tangent, next_v_tangent;
};

/// One tensor's step of Adam; numbers as in core/cpu/steps/kernels.h, one element each.
struct AdamViews {
  View w, m, v, g, beta1, beta2, new1, new2, total2, epsilon, rate, next_w, next_m, next_v;
  double least;
};

/// What a term of a Neumann series tells about its x, A x and r = b - A x: inner products.
struct SeriesSums {
  double xx = 0.0, axax = 0.0, x_ax = 0.0, rr = 0.0;
};

/// One tensor's term of a Neumann series, as in core/cpu/steps/kernels.h: all contiguous, of one size and
/// floating dtype; `step` and `next_step` without data if there is no momentum. The tensor's sums are added
/// to `sums`.
struct SeriesViews {
  View x, ax, b, next_x;
  View step{}, next_step{};
  double rate = 0.0, momentum = 0.0;
  SeriesSums* sums = nullptr;
};

/// Derivatives of softmaxes, where r is the result and sums run along the axis: softmax's r (t - sum(r t)),
/// in either mode; log_softmax's t - exp(r) sum(t) in reverse and t - sum(exp(r) t) forward.
enum class SoftmaxDerivative : std::uint8_t { softmax, log_softmax_pull, log_softmax_push };

/// What a reduction of booleans gives: a boolean, or for `count` an int64.
enum class BooleanReduction : std::uint8_t { any, all, count };

/// The first index outside its bounds: row-major position and value; position -1 if there is none.
struct OutsideIndex {
  std::int64_t position = -1, value = 0;
};

/// What `relate` asks of two elements; the last two of booleans only.
enum class Relation : std::uint8_t {
  less,
  less_equal,
  greater,
  greater_equal,
  equal,
  not_equal,
  both,
  either
};

/// What a backend computes. Asked for through a BackendCall alone.
class BackendOperations {
 public:
  virtual ~BackendOperations() = default;

  /// target = source, same shape, converting between dtypes; Error if int64 cannot hold a floating number.
  virtual void copy(const View& source, const View& target) = 0;
  virtual void fill(const View& target, double value) = 0;
  virtual void random(const View& target, Distribution distribution, const Key& key) = 0;

  virtual void elementwise(const ElementwiseCall& call) = 0;
  /// target (boolean) = a relation b, broadcast to it; a and b have one dtype.
  virtual void relate(Relation relation, const View& a, const View& b, const View& target) = 0;
  /// target = mask ? a : b, broadcast to it; mask is boolean, the rest have one dtype.
  virtual void select(const View& mask, const View& a, const View& b, const View& target) = 0;
  /// target, contiguous, has the rank of source and extent 1 where it sums. The order of additions is fixed
  /// by the shape, whatever the layout.
  virtual void sum(const View& source, const View& target) = 0;
  /// Sum of products of two contiguous arrays of one size; target is one element.
  virtual void dot(const View& a, const View& b, const View& target) = 0;
  /// target (..., m, n) = op(a) op(b), plus target if `accumulate`; op transposes the last two axes. All have
  /// one rank of at least 2 and the same leading axes, the operands' perhaps broadcast; target is contiguous.
  virtual void product(const View& a, bool transpose_a, const View& b, bool transpose_b, const View& target,
                       bool accumulate) = 0;
  virtual void finish_layer(const LayerViews& layer) = 0;

  /// The elements that arg_extreme finds (target: extent 1 along the axis), not differentiable without their
  /// places; with `finite`, infinite ones become 0 and so does that of nothing: for shifts that cancel.
  virtual void extreme(const View& source, int axis, bool largest, bool finite, const View& target) = 0;
  /// Position along the axis of the first NaN, else of the first largest (or smallest) element; target is
  /// int64 with extent 1 there.
  virtual void arg_extreme(const View& source, int axis, bool largest, const View& target) = 0;
  /// Euclidean norms, shaped as for `sum`; neither overflows nor underflows while the norm does not.
  virtual void norm(const View& source, const View& target) = 0;
  /// target[k] = source[0] + ... + source[k] along the axis, or from the other end.
  virtual void cumulative_sum(const View& source, int axis, bool reverse, const View& target) = 0;
  /// Boolean source; target shaped as for `sum`.
  virtual void reduce_booleans(const View& source, BooleanReduction reduction, const View& target) = 0;

  /// The first element of an int64 view outside [0, bound). What the functions below read must be checked.
  virtual OutsideIndex first_outside(const View& indices, std::int64_t bound) = 0;
  /// target[.., i, ..] = source[.., indices[.., i, ..], ..] along the axis; any dtype.
  virtual void gather(const View& source, int axis, const View& indices, const View& target) = 0;
  /// target (zeroed here)[.., indices[.., i, ..], ..] += values[.., i, ..], in ascending order of i.
  virtual void scatter_add(const View& values, int axis, const View& indices, const View& target) = 0;

  /// target[n] = rows[n, labels[n]].
  virtual void gather_labels(const View& rows, const View& labels, const View& target) = 0;
  /// target (zeroed here)[n, labels[n]] = values[n].
  virtual void scatter_labels(const View& values, const View& labels, const View& target) = 0;
  /// target[n] = -log softmax(logits[n])[labels[n]] summed over n and divided by N.
  virtual void softmax_cross_entropy(const View& logits, const View& labels, const View& target) = 0;
  /// Each row's loss by itself.
  virtual void softmax_cross_entropy_losses(const View& logits, const View& labels, const View& target) = 0;
  /// target[n] = scale[n] * (softmax(logits[n]) - one_hot(labels[n])); with `mean`, scales are one element
  /// and scale[n] is that over N.
  virtual void softmax_cross_entropy_gradient(const View& scales, bool mean, const View& logits,
                                              const View& labels, const View& target) = 0;
  /// target[n] = scale[n] * p (t[n] - sum(p t[n])), p = softmax(logits[n]).
  virtual void softmax_cross_entropy_curvature(const View& scales, bool mean, const View& logits,
                                               const View& t, const View& target) = 0;
  /// softmax of lines along the axis, or its logarithm; a maximum that is infinite is not subtracted.
  virtual void softmax(const View& source, int axis, bool logarithm, const View& target) = 0;
  virtual void softmax_derivative(SoftmaxDerivative kind, const View& result, const View& t, int axis,
                                  const View& target) = 0;
  /// Optimizer steps in one pass (core/cpu/steps/kernels.h), with the bits of the operations one by one.
  virtual void sgd_step(const SgdViews& step) = 0;
  virtual void sgd_step_back(const SgdBackViews& step) = 0;
  virtual void sgd_step_tangent(const SgdTangentViews& step) = 0;
  virtual void adam_step(const AdamViews& step) = 0;
  virtual void series_step(const SeriesViews& step) = 0;

  /// Floating numbers to int64 with 52 fraction bits and back, same size, contiguous; Error if out of range.
  virtual void to_fixed(const View& values, const View& fixed, int bits) = 0;
  virtual void from_fixed(const View& fixed, const View& values, int bits) = 0;
  /// Whether two contiguous arrays of one dtype and size have the same bits. All that runs again is compared
  /// with its first run by this alone: a device that computes behind its caller may say true, and lower a
  /// fault for its next synchronize() instead.
  virtual bool expect_same(const View& a, const View& b) = 0;
  /// target (one int64) = a number for the bits of a contiguous source, which arrays that differ in one
  /// element never share.
  virtual void fingerprint(const View& source, const View& target) = 0;
  /// The same number for the same integers.
  virtual std::uint64_t hash_fixed(const View& fixed) = 0;
  /// The exactly reversible momentum step and its two halves back; meaning and faults as in fixed_point.h.
  virtual StepFault momentum_forward(DigitBuffer& digits, std::uint32_t numerator, bool dampened,
                                     std::span<const MomentumViews> parameters) = 0;
  virtual StepFault momentum_reverse_weights(std::span<const MomentumViews> parameters) = 0;
  virtual StepFault momentum_reverse_velocities(DigitBuffer& digits, std::uint32_t numerator, bool dampened,
                                                std::span<const MomentumViews> parameters) = 0;

  /// Whether any element is infinite or NaN.
  virtual bool has_non_finite(const View& source) = 0;
};

class Backend : protected BackendOperations {
 public:
  virtual std::string_view name() const noexcept = 0;

  virtual void* allocate(std::size_t bytes) = 0;
  virtual void release(void* block) noexcept = 0;
  /// Waits until everything issued is done.
  virtual void synchronize() = 0;

 private:
  friend class BackendCall;
};

/// The only way to a backend's operations: `backend_of(x)->sum(...)`. They compute in default arithmetic,
/// whatever the calling thread's is.
class BackendCall {
 public:
  explicit BackendCall(Backend& backend) noexcept : operations_(backend) {}
  BackendOperations* operator->() const noexcept { return &operations_; }

 private:
  DefaultFloats floats_;
  BackendOperations& operations_;
};

/// The CPU's backend; lives as long as the process.
Backend& cpu_backend() noexcept;
inline BackendCall backend_of(const Tensor& tensor) noexcept {
  return BackendCall(*tensor.header()->storage->backend);
}

}  // namespace hypertape::detail
