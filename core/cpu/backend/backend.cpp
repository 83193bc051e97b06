// The CPU's backend: dispatch on dtype; the loops are in the rooms of core/cpu.
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <vector>

#include <hypertape/core/error.h>
#include "core/backend/backend.h"
#include "core/cpu/backend/fork.h"
#include "core/cpu/views.h"

namespace hypertape::detail {
namespace {

// Calls body(T{}) with T the view's element type.
template <class Body>
void for_dtype(Dtype dtype, Body&& body) {
  switch (dtype) {
    case Dtype::float32:
      return body(float{});
    case Dtype::float64:
      return body(double{});
    case Dtype::int64:
      return body(std::int64_t{});
    case Dtype::boolean:
      return body(bool{});
  }
}

template <class Body>
void for_floating(std::string_view operation, Dtype dtype, Body&& body) {
  if (dtype == Dtype::float32) return body(float{});
  if (dtype == Dtype::float64) return body(double{});
  fail(operation, "needs float32 or float64, not ", dtype);
}

class CpuBackend final : public Backend {
 public:
  std::string_view name() const noexcept override { return "cpu"; }
  void* allocate(std::size_t bytes) override { return allocate_bytes(bytes); }
  void release(void* block) noexcept override { release_bytes(block); }
  void synchronize() override {}

  void copy(const View& source, const View& target) override {
    for_dtype(source.dtype, [&](auto from) {
      for_dtype(target.dtype, [&](auto to) { copy_elements<decltype(from), decltype(to)>(source, target); });
    });
  }
  void fill(const View& target, double value) override {
    for_dtype(target.dtype, [&](auto type) { fill_elements<decltype(type)>(target, value); });
  }
  void random(const View& target, Distribution distribution, const Key& key) override {
    for_floating("random", target.dtype,
                 [&](auto type) { random_elements<decltype(type)>(target, distribution, key); });
  }
  void elementwise(const ElementwiseCall& call) override { run_elementwise(call); }
  void relate(Relation relation, const View& a, const View& b, const View& target) override {
    for_dtype(a.dtype, [&](auto type) { relate_elements<decltype(type)>(relation, a, b, target); });
  }
  void select(const View& mask, const View& a, const View& b, const View& target) override {
    for_dtype(a.dtype, [&](auto type) { select_elements<decltype(type)>(mask, a, b, target); });
  }
  void sum(const View& source, const View& target) override {
    for_floating("sum", source.dtype, [&](auto type) { sum_elements<decltype(type)>(source, target); });
  }
  void dot(const View& a, const View& b, const View& target) override {
    for_floating("dot", a.dtype, [&](auto type) { dot_elements<decltype(type)>(a, b, target); });
  }

  void extreme(const View& source, int axis, bool largest, bool finite, const View& target) override {
    for_floating("extreme", source.dtype,
                 [&](auto type) { extremes<decltype(type)>(source, axis, largest, finite, target); });
  }
  void arg_extreme(const View& source, int axis, bool largest, const View& target) override {
    for_floating("arg_extreme", source.dtype,
                 [&](auto type) { extreme_positions<decltype(type)>(source, axis, largest, target); });
  }
  void norm(const View& source, const View& target) override {
    for_floating("norm", source.dtype, [&](auto type) { norm_elements<decltype(type)>(source, target); });
  }
  void cumulative_sum(const View& source, int axis, bool reverse, const View& target) override {
    for_floating("cumulative_sum", source.dtype,
                 [&](auto type) { cumulative_sums<decltype(type)>(source, axis, reverse, target); });
  }
  void reduce_booleans(const View& source, BooleanReduction reduction, const View& target) override {
    reduce_flags(source, reduction, target);
  }

  OutsideIndex first_outside(const View& indices, std::int64_t bound) override {
    return find_outside(indices, bound);
  }
  void gather(const View& source, int axis, const View& indices, const View& target) override {
    for_dtype(source.dtype,
              [&](auto type) { gather_elements<decltype(type)>(source, axis, indices, target); });
  }
  void scatter_add(const View& values, int axis, const View& indices, const View& target) override {
    for_floating("scatter_add", values.dtype,
                 [&](auto type) { scatter_add_elements<decltype(type)>(values, axis, indices, target); });
  }

  void product(const View& a, bool transpose_a, const View& b, bool transpose_b, const View& target,
               bool accumulate) override {
    run_product(a, transpose_a, b, transpose_b, target, accumulate);
  }
  void finish_layer(const LayerViews& layer) override {
    for_floating("linear", layer.value.dtype, [&](auto type) { finish_layer_rows<decltype(type)>(layer); });
  }

  void gather_labels(const View& rows, const View& labels, const View& target) override {
    for_floating("gather_labels", rows.dtype,
                 [&](auto type) { gather_label_elements<decltype(type)>(rows, labels, target); });
  }
  void scatter_labels(const View& values, const View& labels, const View& target) override {
    for_floating("scatter_labels", values.dtype,
                 [&](auto type) { scatter_label_elements<decltype(type)>(values, labels, target); });
  }
  void softmax_cross_entropy(const View& logits, const View& labels, const View& target) override {
    for_floating("softmax_cross_entropy", logits.dtype,
                 [&](auto type) { cross_entropy_rows<decltype(type)>(logits, labels, target); });
  }
  void softmax_cross_entropy_losses(const View& logits, const View& labels, const View& target) override {
    for_floating("softmax_cross_entropy", logits.dtype,
                 [&](auto type) { cross_entropy_loss_rows<decltype(type)>(logits, labels, target); });
  }
  void softmax_cross_entropy_gradient(const View& scales, bool mean, const View& logits, const View& labels,
                                      const View& target) override {
    for_floating("softmax_cross_entropy", logits.dtype, [&](auto type) {
      cross_entropy_gradient_rows<decltype(type)>(scales, mean, logits, labels, target);
    });
  }
  void sgd_step(const SgdViews& step) override {
    for_floating("sgd_step", step.w.dtype, [&](auto type) { step_of_sgd<decltype(type)>(step); });
  }
  void sgd_step_back(const SgdBackViews& step) override {
    for_floating("sgd_step", step.bar_w.dtype, [&](auto type) { step_back_of_sgd<decltype(type)>(step); });
  }
  void sgd_step_tangent(const SgdTangentViews& step) override {
    for_floating("sgd_step", step.w_tangent.dtype,
                 [&](auto type) { step_tangent_of_sgd<decltype(type)>(step); });
  }
  void adam_step(const AdamViews& step) override {
    for_floating("adam", step.w.dtype, [&](auto type) { step_of_adam<decltype(type)>(step); });
  }
  void series_step(const SeriesViews& step) override {
    for_floating("neumann_series", step.x.dtype, [&](auto type) { step_of_series<decltype(type)>(step); });
  }
  void softmax_cross_entropy_curvature(const View& scales, bool mean, const View& logits, const View& t,
                                       const View& target) override {
    for_floating("softmax_cross_entropy", logits.dtype, [&](auto type) {
      cross_entropy_curvature_rows<decltype(type)>(scales, mean, logits, t, target);
    });
  }
  void softmax(const View& source, int axis, bool logarithm, const View& target) override {
    for_floating("softmax", source.dtype,
                 [&](auto type) { softmax_rows<decltype(type)>(source, axis, logarithm, target); });
  }
  void softmax_derivative(SoftmaxDerivative kind, const View& result, const View& t, int axis,
                          const View& target) override {
    for_floating("softmax", result.dtype,
                 [&](auto type) { softmax_derivative_rows<decltype(type)>(kind, result, t, axis, target); });
  }
  void to_fixed(const View& values, const View& fixed, int bits) override {
    for_floating("to_fixed", values.dtype, [&](auto type) {
      detail::to_fixed<decltype(type)>(elements<decltype(type)>(values), integers(fixed), bits);
    });
  }
  void from_fixed(const View& fixed, const View& values, int bits) override {
    for_floating("from_fixed", values.dtype, [&](auto type) {
      detail::from_fixed<decltype(type)>(integers(fixed), elements<decltype(type)>(values), bits);
    });
  }
  bool expect_same(const View& a, const View& b) override {
    return a.size == 0 || std::memcmp(a.data, b.data, bytes_of(a)) == 0;
  }
  void fingerprint(const View& source, const View& target) override {
    constexpr std::size_t word = sizeof(std::int64_t);
    const std::size_t bytes = bytes_of(source), words = bytes / word;
    std::vector<std::int64_t> aligned;
    const auto* data = source.as<const std::int64_t>();
    if (words > 0 && reinterpret_cast<std::uintptr_t>(source.data) % word != 0) {
      aligned.resize(words);
      std::memcpy(aligned.data(), source.data, words * word);
      data = aligned.data();
    }
    std::array<std::int64_t, 2> ends{};
    ends[0] = static_cast<std::int64_t>(detail::hash_fixed({data, words}));
    if (bytes > words * word)
      std::memcpy(&ends[1], source.as<const std::byte>() + words * word, bytes - words * word);
    target.as<std::int64_t>()[0] = static_cast<std::int64_t>(detail::hash_fixed(ends));
  }
  std::uint64_t hash_fixed(const View& fixed) override { return detail::hash_fixed(integers(fixed)); }
  StepFault momentum_forward(DigitBuffer& digits, std::uint32_t numerator, bool dampened,
                             std::span<const MomentumViews> parameters) override {
    return with_segments(parameters, [&]<class T>(std::span<const MomentumSegment<T>> segments) {
      return detail::momentum_forward<T>(digits, numerator, dampened, segments);
    });
  }
  StepFault momentum_reverse_weights(std::span<const MomentumViews> parameters) override {
    return with_segments(parameters, [&]<class T>(std::span<const MomentumSegment<T>> segments) {
      return detail::momentum_reverse_weights<T>(segments);
    });
  }
  StepFault momentum_reverse_velocities(DigitBuffer& digits, std::uint32_t numerator, bool dampened,
                                        std::span<const MomentumViews> parameters) override {
    return with_segments(parameters, [&]<class T>(std::span<const MomentumSegment<T>> segments) {
      return detail::momentum_reverse_velocities<T>(digits, numerator, dampened, segments);
    });
  }
  bool has_non_finite(const View& source) override {
    bool found = false;
    for_floating("has_non_finite", source.dtype,
                 [&](auto type) { found = any_non_finite<decltype(type)>(source); });
    return found;
  }

 private:
  static std::size_t bytes_of(const View& view) {
    return static_cast<std::size_t>(view.size) * size_of(view.dtype);
  }
  template <class T>
  static std::span<T> elements(const View& view) {
    return {view.as<T>(), static_cast<std::size_t>(view.size)};
  }
  static std::span<std::int64_t> integers(const View& view) { return elements<std::int64_t>(view); }

  template <class T>
  static std::vector<MomentumSegment<T>> segments_of(std::span<const MomentumViews> parameters) {
    std::vector<MomentumSegment<T>> segments;
    for (const MomentumViews& p : parameters)
      segments.push_back(
          {integers(p.w), integers(p.v), elements<T>(p.gradient), p.rate, p.weight_bits, p.velocity_bits});
    return segments;
  }
  // All gradients have one dtype: that of the parameters.
  template <class Body>
  static StepFault with_segments(std::span<const MomentumViews> parameters, Body&& body) {
    if (parameters.empty()) return StepFault::none;
    if (parameters.front().gradient.dtype == Dtype::float32)
      return body(std::span<const MomentumSegment<float>>(segments_of<float>(parameters)));
    return body(std::span<const MomentumSegment<double>>(segments_of<double>(parameters)));
  }
};

[[maybe_unused]] const bool forks_prepared = prepare_forks();

}  // namespace

Backend& cpu_backend() noexcept {
  // Never destroyed: tensors with static storage duration may be released after any destructor ran.
  static CpuBackend& backend = *new CpuBackend;
  return backend;
}

}  // namespace hypertape::detail
