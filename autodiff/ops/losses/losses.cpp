// Losses: written with public operations, but for cross entropies of int64 labels
// (autodiff/ops/losses/labels.cpp).
#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"
#include "autodiff/ops/losses/integer_labels.h"
#include "autodiff/tape/support.h"

namespace hypertape {
namespace detail {
namespace {

// Inputs: weights, x. A weight of 0 is a selection: x has no influence.
Tensor pull_factor(const SupportPointer& support, Tensor gradient) {
  return support ? where(support->mask(), gradient, 0.0) : gradient;
}
// The gradient of an input of this shape, and its support.
void give(Pull& pull, int input, Tensor gradient, SupportPointer support, const Shape& shape) {
  if (support && pull.wants_support(input))
    pull.set_support(input, gradient.shape() == shape
                                ? std::move(support)
                                : summed_support(std::move(support), gradient.shape(), shape));
  pull.gradients[static_cast<std::size_t>(input)] = sum_to(gradient, shape);
}
// The elements that count, of a cotangent or tangent of x.
SupportPointer counted_support(const SupportPointer& arrived, const Tensor& weights) {
  return std::make_shared<const Support>(arrived ? arrived->depth() : 0,
                                         [arrived, weights = ReadLater(weights)] {
                                           const Tensor mask = not_equal(weights.get(), 0.0);
                                           return arrived ? logical_and(mask, arrived->mask()) : mask;
                                         });
}
constexpr OpRule weigh_rule = handling({
    "weigh",
    [](Pull& pull) {
      const Tensor &weights = pull.input(0), &x = pull.input(1), &t = pull.cotangent();
      const SupportPointer arrived = pull.support();
      if (pull.needs(0)) give(pull, 0, pull_factor(arrived, t * x), arrived, weights.shape());
      if (!pull.needs(1)) return;
      give(pull, 1, pull_factor(arrived, weigh(weights, t)), counted_support(arrived, weights), x.shape());
    },
    [](Push& push) {
      const Tensor &weights = push.input(0), &x = push.input(1);
      Tensor total;
      std::vector<SupportPointer> parts;
      if (push.tangents[0].defined()) {
        parts.push_back(push.support(0));
        total = pull_factor(parts.back(), push.tangents[0] * x);
      }
      if (push.tangents[1].defined()) {
        Tensor term = pull_factor(push.support(1), weigh(weights, push.tangents[1]));
        total = total.defined() ? add(std::move(total), std::move(term)) : std::move(term);
        if (parts.empty() || parts.back()) parts.push_back(counted_support(push.support(1), weights));
      }
      if (push.result_supports() && parts.back())
        push.result_supports()[0] = joined_support(std::move(parts));
      push.results[0] = contiguous(expand(total, broadcast_shapes("weigh", weights.shape(), x.shape())));
    },
});

void require_weights(const char* op, const char* what, const Tensor& weights, std::int64_t count,
                     const Tensor& like) {
  require_same_dtype(op, weights, like);
  if (weights.shape() != Shape{count})
    fail(op, what, " have shape ", weights.shape(), ", expected (", count, ")");
}

void require_one_shape(const char* op, const Tensor& a, const Tensor& b) {
  require_same_dtype(op, a, b);
  if (a.shape() != b.shape()) fail(op, "shapes differ: ", a.shape(), " and ", b.shape());
  if (a.size() == 0) fail(op, "of empty tensors of shape ", a.shape());
}

bool are_integers(const char* op, const Tensor& labels) {
  return header_of(op, labels).dtype == Dtype::int64;
}

// Distributions as labels: rows like those of the logits.
void require_distributions(const char* op, const Tensor& logits, const Tensor& labels) {
  require_one_shape(op, logits, labels);
  if (logits.rank() != 2) fail(op, "needs rows of shape (N, C), not ", logits.shape());
}

Tensor distribution_losses(const Tensor& logits, const Tensor& labels) {
  return negate(sum(weigh(labels, log_softmax(logits)), {1}));
}

// Elementwise losses to a weighted mean over the first axis.
Tensor mean_of_samples(const char* op, const Tensor& losses, const Tensor& weights) {
  if (losses.rank() == 0) fail(op, "weights need samples along a first axis; the operands are scalars");
  require_weights(op, "weights", weights, losses.extent(0), losses);
  const std::int64_t samples = losses.extent(0);
  return weighted_mean(mean(reshape(losses, {samples, losses.size() / samples}), {1}), weights);
}

Tensor squared_errors(const Tensor& prediction, const Tensor& target) {
  require_one_shape("mean_squared_error", prediction, target);
  return square(prediction - target);
}

Tensor binary_losses(const Tensor& z, const Tensor& q) {
  require_one_shape("binary_cross_entropy_with_logits", z, q);
  // c |z| + log(1 + exp(-|z|)), where c is 1 - q or q, with the sign that makes each branch the function
  // itself, 0 included: the derivatives of every order are right there, too. In statements, because the order
  // in which operands are evaluated is the compiler's choice, and with it the order in which z's cotangents
  // are added up.
  const Tensor positive = greater(z, 0.0);
  Tensor tail = log1p(exp(where(positive, -z, z)));
  Tensor linear = weigh(where(positive, 1.0 - q, -q), z);
  return std::move(linear) + std::move(tail);
}

}  // namespace
}  // namespace detail

Tensor weigh(const Tensor& weights, const Tensor& x) {
  detail::require_same_dtype("weigh", weights, x);
  broadcast_shapes("weigh", weights.shape(), x.shape());
  const Tensor plain_weights = stop_gradient(weights), plain_x = stop_gradient(x);
  Tensor result = where(equal(plain_weights, 0.0), 0.0, plain_weights * plain_x);
  return detail::finish_one(detail::weigh_rule, {3, 0}, detail::NoAttributes{}, std::move(result), weights,
                            x);
}

Tensor weighted_mean(const Tensor& x, const Tensor& weights) {
  detail::require_one_shape("weighted_mean", x, weights);
  return sum(weigh(weights, x)) / sum(weights);
}

Tensor softmax_cross_entropy_losses(const Tensor& logits, const Tensor& labels) {
  constexpr const char* op = "softmax_cross_entropy_losses";
  if (detail::are_integers(op, labels)) return detail::integer_cross_entropy_losses(op, logits, labels);
  detail::require_distributions(op, logits, labels);
  return detail::distribution_losses(logits, labels);
}

Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& labels) {
  constexpr const char* op = "softmax_cross_entropy";
  if (detail::are_integers(op, labels)) return detail::integer_cross_entropy(logits, labels);
  detail::require_distributions(op, logits, labels);
  return mean(detail::distribution_losses(logits, labels));
}

Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& labels, const LossWeights& weights) {
  constexpr const char* op = "softmax_cross_entropy";
  const bool integers = detail::are_integers(op, labels), by_class = weights.classes.defined();
  if (!by_class && !weights.samples.defined()) return softmax_cross_entropy(logits, labels);
  Tensor losses;
  if (integers)
    losses = detail::integer_cross_entropy_losses(op, logits, labels);
  else
    detail::require_distributions(op, logits, labels);
  const std::int64_t samples = logits.extent(0), classes = logits.extent(1);
  if (by_class) detail::require_weights(op, "class weights", weights.classes, classes, logits);
  if (weights.samples.defined())
    detail::require_weights(op, "sample weights", weights.samples, samples, logits);

  if (integers) {
    Tensor weight = by_class ? take(weights.classes, labels) : weights.samples;
    if (by_class && weights.samples.defined()) weight = weight * weights.samples;
    return weighted_mean(losses, weight);
  }
  if (!by_class) return weighted_mean(detail::distribution_losses(logits, labels), weights.samples);
  const Tensor weighted = labels * weights.classes;
  losses = detail::distribution_losses(logits, weighted);
  const Tensor totals = sum(weighted, {1});
  if (!weights.samples.defined()) return sum(losses) / sum(totals);
  return sum(weigh(weights.samples, losses)) / dot(totals, weights.samples);
}

Tensor mean_squared_error(const Tensor& prediction, const Tensor& target) {
  return mean(detail::squared_errors(prediction, target));
}
Tensor mean_squared_error(const Tensor& prediction, const Tensor& target, const Tensor& weights) {
  return detail::mean_of_samples("mean_squared_error", detail::squared_errors(prediction, target), weights);
}

Tensor binary_cross_entropy_with_logits(const Tensor& logits, const Tensor& targets) {
  return mean(detail::binary_losses(logits, targets));
}
Tensor binary_cross_entropy_with_logits(const Tensor& logits, const Tensor& targets, const Tensor& weights) {
  return detail::mean_of_samples("binary_cross_entropy_with_logits", detail::binary_losses(logits, targets),
                                 weights);
}

}  // namespace hypertape
