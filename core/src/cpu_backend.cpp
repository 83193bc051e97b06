// The CPU's backend: dispatch on dtype; the loops are in the cpu_*.cpp files beside this one.
#include <bit>
#include <limits>
#include <vector>

#include "backend.h"
#include "cpu_loops.h"
#include "hypertape/core/error.h"
#include "products.h"

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

// A rank-2 view as BLAS sees it: unit stride along one axis.
struct Matrix {
  const void* data;
  std::int64_t leading;
  bool transposed;
};

bool as_matrix(const View& view, Matrix& matrix) {
  const std::int64_t rows = view.extents[0], columns = view.extents[1];
  if ((view.strides[1] == 1 || columns == 1) && (view.strides[0] >= columns || rows == 1)) {
    matrix = {view.data, rows == 1 ? std::max<std::int64_t>(columns, 1) : view.strides[0], false};
    return true;
  }
  if ((view.strides[0] == 1 || rows == 1) && (view.strides[1] >= rows || columns == 1)) {
    matrix = {view.data, columns == 1 ? std::max<std::int64_t>(rows, 1) : view.strides[1], true};
    return true;
  }
  return false;
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

  void product(const View& a, bool transpose_a, const View& b, bool transpose_b, const View& target,
               bool accumulate) override {
    Matrix left{}, right{};
    Tensor left_copy, right_copy;
    if (!as_matrix(a, left)) left = compact(a, left_copy);
    if (!as_matrix(b, right)) right = compact(b, right_copy);
    const std::int64_t m = target.extents[0], n = target.extents[1], k = a.extents[transpose_a ? 0 : 1];
    for_floating("matmul", target.dtype, [&](auto type) {
      using T = decltype(type);
      detail::product<T>(transpose_a != left.transposed, transpose_b != right.transposed, m, n, k,
                         static_cast<const T*>(left.data), left.leading, static_cast<const T*>(right.data),
                         right.leading, target.as<T>(), std::max<std::int64_t>(n, 1), accumulate);
    });
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
  void softmax_cross_entropy_backward(const View& scale, const View& logits, const View& labels,
                                      const View& target) override {
    for_floating("softmax_cross_entropy", logits.dtype, [&](auto type) {
      cross_entropy_backward_rows<decltype(type)>(scale, logits, labels, target);
    });
  }
  void row_maximum(const View& rows, const View& target) override {
    for_floating("row_maximum", rows.dtype, [&](auto type) { row_maxima<decltype(type)>(rows, target); });
  }
  void to_fixed(const View& values, const View& fixed) override {
    for_floating("to_fixed", values.dtype, [&](auto type) {
      detail::to_fixed<decltype(type)>(elements<decltype(type)>(values), integers(fixed));
    });
  }
  void from_fixed(const View& fixed, const View& values) override {
    for_floating("from_fixed", values.dtype, [&](auto type) {
      detail::from_fixed<decltype(type)>(integers(fixed), elements<decltype(type)>(values));
    });
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
  template <class T>
  static std::span<T> elements(const View& view) {
    return {view.as<T>(), static_cast<std::size_t>(view.size)};
  }
  static std::span<std::int64_t> integers(const View& view) { return elements<std::int64_t>(view); }

  template <class T>
  static std::vector<MomentumSegment<T>> segments_of(std::span<const MomentumViews> parameters) {
    std::vector<MomentumSegment<T>> segments;
    for (const MomentumViews& p : parameters)
      segments.push_back({integers(p.w), integers(p.v), elements<T>(p.gradient), p.rate});
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

  Matrix compact(const View& view, Tensor& copy_of) {
    copy_of = make_tensor(Shape{view.extents[0], view.extents[1]}, view.dtype);
    copy(view, view_of(copy_of));
    return {copy_of.header()->data, std::max<std::int64_t>(view.extents[1], 1), false};
  }
};

}  // namespace

Backend& cpu_backend() noexcept {
  // Never destroyed: tensors with static storage duration may be released after any destructor ran.
  static CpuBackend& backend = *new CpuBackend;
  return backend;
}

}  // namespace hypertape::detail
