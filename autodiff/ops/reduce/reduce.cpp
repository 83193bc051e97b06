#include <array>

#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/reduce/axes.h"
#include "autodiff/tape/node.h"

namespace hypertape {
namespace detail {
namespace {

struct SumAttributes {
  Shape input, kept;  ///< kept: rank of the input, extent 1 where summed
  Shape output;
};

Tensor sum_kept(const Tensor& x, const Shape& kept, const Shape& output);

void pull_sum(Pull& pull) {
  const auto& at = pull.attributes<SumAttributes>();
  pull.gradients[0] = expand(reshape(pull.cotangent(), at.kept), at.input);
}
void push_sum(Push& push) {
  const auto& at = push.attributes<SumAttributes>();
  push.results[0] = sum_kept(push.tangents[0], at.kept, at.output);
}
constexpr OpRule sum_rule = moving({"sum", pull_sum, push_sum});

Tensor sum_kept(const Tensor& x, const Shape& kept, const Shape& output) {
  Tensor result = make_tensor(output, x.header()->dtype);
  // The backend sees the summed axes with extent 1; contiguous memory does not care.
  const Tensor seen = make_view(result, kept, nullptr, 0);
  backend_of(x)->sum(view_of(x), view_of(seen));
  if (!links_of(x).any() && !is_watched()) return result;
  return finish_one(sum_rule, {}, SumAttributes{x.shape(), kept, output}, std::move(result), x);
}

void pull_dot(Pull& pull) {
  if (pull.needs(0)) pull.gradients[0] = multiply(pull.cotangent(), pull.input(1));
  if (pull.needs(1)) pull.gradients[1] = multiply(pull.cotangent(), pull.input(0));
}
void push_dot(Push& push) {
  Tensor total;
  if (push.tangents[0].defined()) total = dot(push.tangents[0], push.input(1));
  if (push.tangents[1].defined()) {
    Tensor term = dot(push.input(0), push.tangents[1]);
    total = total.defined() ? add(std::move(total), std::move(term)) : std::move(term);
  }
  push.results[0] = std::move(total);
}
constexpr OpRule dot_rule = {"dot", pull_dot, push_dot};

}  // namespace
}  // namespace detail

Tensor sum(const Tensor& x) {
  detail::require_floating("sum", x);
  const int rank = x.header()->rank;
  if (rank == 0) return x;
  std::array<std::int64_t, max_rank> ones{};
  ones.fill(1);
  return detail::sum_kept(
      x, Shape(std::span<const std::int64_t>(ones.data(), static_cast<std::size_t>(rank))), Shape{});
}

Tensor sum(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep) {
  detail::require_floating("sum", x);
  const detail::ReducedAxes over = detail::reduced_axes("sum", x, axes, keep);
  return detail::sum_kept(x, over.kept, over.output);
}

Tensor mean(const Tensor& x) {
  detail::require_floating("mean", x);
  if (x.size() == 0) fail("mean", "of an empty tensor of shape ", x.shape());
  return divide_scalar(sum(x), static_cast<double>(x.size()));
}

Tensor mean(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep) {
  detail::require_floating("mean", x);
  const detail::ReducedAxes over = detail::reduced_axes("mean", x, axes, keep);
  if (over.count == 0) fail("mean", "of no elements: empty axes of shape ", x.shape());
  return divide_scalar(detail::sum_kept(x, over.kept, over.output), static_cast<double>(over.count));
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  detail::require_floating("sum_to", x);
  const Shape from = x.shape();
  if (from == shape) return x;
  const int missing = from.rank() - shape.rank();
  std::vector<std::int64_t> kept(static_cast<std::size_t>(from.rank()), 1);
  for (int axis = 0; axis < from.rank(); ++axis) {
    const std::int64_t target = axis < missing ? 1 : shape[axis - missing];
    if (missing < 0 || (target != 1 && target != from[axis]))
      fail("sum_to", "shape ", from, " is not what ", shape, " broadcasts to");
    kept[static_cast<std::size_t>(axis)] = target;
  }
  if (missing < 0) fail("sum_to", "shape ", from, " is not what ", shape, " broadcasts to");
  return detail::sum_kept(x, Shape(std::span<const std::int64_t>(kept)), shape);
}

Tensor dot(const Tensor& a, const Tensor& b) {
  detail::require_same_dtype("dot", a, b);
  if (!detail::same_shape(*a.header(), *b.header()))
    fail("dot", "shapes differ: ", a.shape(), " and ", b.shape());
  Tensor result = detail::make_tensor(Shape{}, a.header()->dtype);
  const Tensor left = detail::make_contiguous(a), right = detail::make_contiguous(b);
  detail::backend_of(a)->dot(detail::view_of(left), detail::view_of(right), detail::view_of(result));
  const detail::Saves saves{(detail::links_of(b).any() ? 1u : 0u) | (detail::links_of(a).any() ? 2u : 0u), 0};
  return detail::finish_one(detail::dot_rule, saves, detail::NoAttributes{}, std::move(result), a, b);
}

bool has_non_finite(const Tensor& x) {
  detail::require_floating("has_non_finite", x);
  return detail::backend_of(x)->has_non_finite(detail::view_of(x));
}

}  // namespace hypertape
