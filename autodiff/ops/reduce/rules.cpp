// Reductions with kernels and rules of their own: Euclidean norm, cumulative sum; and those of booleans.
#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/reduce/axes.h"
#include "autodiff/tape/kinks.h"
#include "autodiff/tape/node.h"

namespace hypertape {
namespace detail {
namespace {

struct NormAttributes {
  const char* op;
  Shape kept, output;
};
const char* name_of_norm(const void* attributes) noexcept {
  return static_cast<const NormAttributes*>(attributes)->op;
}

// x / norm, 0 where the norm is 0 whatever is differentiated: nothing is divided by 0 there.
Tensor unit_vector(const Primal& primal) {
  note_kinks(primal.attributes<NormAttributes>().op, primal.input(0), primal.output());
  const Tensor length = reshape(primal.output(), primal.attributes<NormAttributes>().kept);
  const Tensor zero = equal(length, 0.0);
  return where(zero, 0.0, primal.input(0)) / where(zero, 1.0, length);
}

constexpr OpRule norm_rule = {
    "norm",
    [](Pull& pull) {
      const Tensor t = reshape(pull.cotangent(), pull.attributes<NormAttributes>().kept);
      pull.gradients[0] = t * unit_vector(pull);
    },
    [](Push& push) {
      const auto& at = push.attributes<NormAttributes>();
      push.results[0] = reshape(sum_to(push.tangents[0] * unit_vector(push), at.kept), at.output);
    },
    nullptr, name_of_norm};

struct CumulativeAttributes {
  int axis;
  bool reverse;
};
constexpr OpRule cumulative_rule =
    moving({"cumulative_sum",
            [](Pull& pull) {
              const auto& at = pull.attributes<CumulativeAttributes>();
              pull.gradients[0] = cumulative_sum(pull.cotangent(), at.axis, !at.reverse);
            },
            [](Push& push) {
              const auto& at = push.attributes<CumulativeAttributes>();
              push.results[0] = cumulative_sum(push.tangents[0], at.axis, at.reverse);
            }});

Tensor reduce_booleans(const char* op, const Tensor& x, const std::vector<std::int64_t>& axes, bool keep,
                       BooleanReduction reduction) {
  if (header_of(op, x).dtype != Dtype::boolean)
    fail(op, "needs a boolean tensor, not ", x.dtype(), " of shape ", x.shape());
  const ReducedAxes over = reduced_axes(op, x, axes, keep);
  Tensor result =
      make_tensor(over.output, reduction == BooleanReduction::count ? Dtype::int64 : Dtype::boolean);
  const Tensor seen = make_view(result, over.kept, nullptr, 0);
  backend_of(x)->reduce_booleans(view_of(x), reduction, view_of(seen));
  return result;
}

}  // namespace

Tensor norm_as(const char* op, const Tensor& x, const Shape& kept, const Shape& output) {
  Tensor result = make_tensor(output, x.dtype());
  backend_of(x)->norm(view_of(x), view_of(make_view(result, kept, nullptr, 0)));
  return finish_one(norm_rule, {1, 1}, NormAttributes{op, kept, output}, std::move(result), x);
}

}  // namespace detail

using detail::all_axes;
using detail::BooleanReduction;

Tensor norm(const Tensor& x) { return norm(x, all_axes("norm", x)); }

Tensor norm(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep) {
  detail::require_floating("norm", x);
  const detail::ReducedAxes over = detail::reduced_axes("norm", x, axes, keep);
  return detail::norm_as("norm", x, over.kept, over.output);
}

Tensor cumulative_sum(const Tensor& x, std::int64_t axis, bool reverse) {
  detail::require_floating("cumulative_sum", x);
  const int a = normalize_axis("cumulative_sum", axis, x.shape());
  Tensor result = detail::make_like(*x.header());
  detail::backend_of(x)->cumulative_sum(detail::view_of(x), a, reverse, detail::view_of(result));
  return detail::finish_one(detail::cumulative_rule, {}, detail::CumulativeAttributes{a, reverse},
                            std::move(result), x);
}

Tensor any(const Tensor& x) { return any(x, all_axes("any", x)); }
Tensor any(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep) {
  return detail::reduce_booleans("any", x, axes, keep, BooleanReduction::any);
}
Tensor all(const Tensor& x) { return all(x, all_axes("all", x)); }
Tensor all(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep) {
  return detail::reduce_booleans("all", x, axes, keep, BooleanReduction::all);
}
Tensor count(const Tensor& x) { return count(x, all_axes("count", x)); }
Tensor count(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep) {
  return detail::reduce_booleans("count", x, axes, keep, BooleanReduction::count);
}

}  // namespace hypertape
