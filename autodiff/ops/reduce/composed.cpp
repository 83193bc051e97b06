// Reductions made of other operations: products, variances, logarithms of sums of exponentials.
#include <cmath>
#include <limits>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/reduce/axes.h"
#include "autodiff/ops/softmax/shift.h"
#include "autodiff/tape/kinks.h"

namespace hypertape {
namespace detail {

Tensor softmax_shift(const Tensor& x, const std::array<bool, max_rank>& reduced) {
  int last = -1;
  for (int axis = 0; axis < x.rank(); ++axis)
    if (reduced[static_cast<std::size_t>(axis)]) last = axis;
  Tensor shift = make_alias(x);
  for (int axis = 0; axis <= last; ++axis) {
    if (!reduced[static_cast<std::size_t>(axis)]) continue;
    Tensor next = make_tensor(shift.shape().with(axis, 1), x.dtype());
    backend_of(x)->extreme(view_of(shift), axis, true, axis == last, view_of(next));
    shift = std::move(next);
  }
  return shift;
}

namespace {

// (count, results): the reduced axes first, in row-major order, as one.
Tensor as_columns(const Tensor& x, const ReducedAxes& over) {
  std::vector<std::int64_t> order;
  for (const bool reduced : {true, false})
    for (int axis = 0; axis < x.rank(); ++axis)
      if (over.reduced[static_cast<std::size_t>(axis)] == reduced) order.push_back(axis);
  return reshape(transpose(x, order), {over.count, over.output.size()});
}

}  // namespace
}  // namespace detail

Tensor prod(const Tensor& x) { return prod(x, detail::all_axes("prod", x)); }

Tensor prod(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep) {
  detail::require_floating("prod", x);
  const detail::ReducedAxes over = detail::reduced_axes("prod", x, axes, keep);
  if (over.count == 0) return sum(x, axes, keep) + 1.0;
  if (over.count == 1) return reshape(x, over.output);
  Tensor columns = detail::as_columns(x, over), odd;
  for (std::int64_t n = over.count; n > 1; n /= 2) {
    if (n % 2 == 1) {
      const Tensor last = slice(columns, 0, n - 1, n);
      odd = odd.defined() ? odd * last : last;
      columns = slice(columns, 0, 0, n - 1);
    }
    const TensorList halves = unstack(reshape(columns, {2, n / 2, over.output.size()}));
    columns = halves[0] * halves[1];
  }
  return reshape(odd.defined() ? columns * odd : columns, over.output);
}

Tensor variance(const Tensor& x) { return variance(x, detail::all_axes("variance", x)); }

Tensor variance(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep, std::int64_t correction) {
  detail::require_floating("variance", x);
  const detail::ReducedAxes over = detail::reduced_axes("variance", x, axes, keep);
  if (correction < 0 || over.count <= correction)
    fail("variance", "needs a correction from 0 to one less than the ", over.count,
         " elements of each result, not ", correction, ", for shape ", x.shape());
  const Tensor deviation = x - mean(x, axes, true);
  return divide_scalar(sum(square(deviation), axes, keep), static_cast<double>(over.count - correction));
}

Tensor squared_norm(const Tensor& x) { return squared_norm(x, detail::all_axes("squared_norm", x)); }

Tensor squared_norm(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep) {
  detail::require_floating("squared_norm", x);
  detail::reduced_axes("squared_norm", x, axes, keep);
  return sum(square(x), axes, keep);
}

Tensor standard_deviation(const Tensor& x) {
  return standard_deviation(x, detail::all_axes("standard_deviation", x));
}

Tensor standard_deviation(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep,
                          std::int64_t correction) {
  constexpr const char* op = "standard_deviation";
  const detail::DefaultFloats floats;
  detail::require_floating(op, x);
  const detail::ReducedAxes over = detail::reduced_axes(op, x, axes, keep);
  if (correction < 0 || over.count <= correction)
    fail(op, "needs a correction from 0 to one less than the ", over.count, " elements of each result, not ",
         correction, ", for shape ", x.shape());
  // Their mean may differ from equal elements by a rounding, which would be a direction.
  const Tensor plain = stop_gradient(x), same = equal(max(plain, axes, true), min(plain, axes, true));
  const Tensor deviation = where(same, 0.0, x - mean(x, axes, true));
  return divide_scalar(detail::norm_as(op, deviation, over.kept, over.output),
                       std::sqrt(static_cast<double>(over.count - correction)));
}

Tensor logsumexp(const Tensor& x) { return logsumexp(x, detail::all_axes("logsumexp", x)); }

Tensor logsumexp(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep) {
  detail::require_floating("logsumexp", x);
  const detail::ReducedAxes over = detail::reduced_axes("logsumexp", x, axes, keep);
  if (axes.empty()) return x;
  const Tensor shift = detail::softmax_shift(x, over.reduced);
  const Tensor total = sum(exp(x - shift), axes, true);
  // The largest term is 1, unless there is none above exp(-inf).
  const Tensor none = equal(total, 0.0);
  const Tensor result =
      where(none, -std::numeric_limits<double>::infinity(), log(where(none, 1.0, total)) + shift);
  return reshape(result, over.output);
}

}  // namespace hypertape
