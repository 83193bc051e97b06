// Softmax and its logarithm along any axis: operations whose derivatives are operations of their own, whose
// derivatives are written with public operations.
#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"
#include "autodiff/tape/support.h"

namespace hypertape {
namespace detail {
namespace {

struct AxisAttributes {
  std::int64_t axis;
};

// Inputs of the rules below: the softmax's result and a direction t.
Tensor softmax_slope(const Tensor& p, const Tensor& t, std::int64_t axis);
Tensor log_softmax_pull(const Tensor& l, const Tensor& t, std::int64_t axis);
Tensor log_softmax_push(const Tensor& l, const Tensor& t, std::int64_t axis);

std::int64_t axis_of(const Primal& primal) { return primal.attributes<AxisAttributes>().axis; }

// Of all gradients, which have the cotangent's shape: a line that was not selected keeps its zeros.
void select_lines(Pull& pull) {
  const std::int64_t axis = axis_of(pull);
  for (std::size_t i = 0; i < pull.gradients.size(); ++i)
    select_lines(pull, static_cast<int>(i), axis, pull.cotangent().shape().with(static_cast<int>(axis), 1));
}

// The sum of a push's terms, each a function of one input's tangent and 0 in its lines that are so by
// selection.
class Terms {
 public:
  explicit Terms(Push& push) : push_(push), sum_(push) {}
  template <class Term>
  void add(int input, Term term) {
    const Tensor& tangent = push_.tangents[static_cast<std::size_t>(input)];
    if (!tangent.defined()) return;
    const std::int64_t axis = axis_of(push_);
    sum_.add(input, term(tangent), axis, tangent.shape().with(static_cast<int>(axis), 1));
  }
  void finish() { sum_.finish(); }

 private:
  Push& push_;
  PushedLines sum_;
};

constexpr OpRule softmax_rule =
    handling({"softmax",
              [](Pull& pull) {
                pull.gradients[0] = softmax_slope(pull.output(), pull.cotangent(), axis_of(pull));
                select_lines(pull);
              },
              [](Push& push) {
                Terms terms(push);
                terms.add(0, [&](const Tensor& t) { return softmax_slope(push.output(), t, axis_of(push)); });
                terms.finish();
              }});

constexpr OpRule log_softmax_rule = handling(
    {"log_softmax",
     [](Pull& pull) {
       pull.gradients[0] = log_softmax_pull(pull.output(), pull.cotangent(), axis_of(pull));
       select_lines(pull);
     },
     [](Push& push) {
       Terms terms(push);
       terms.add(0, [&](const Tensor& t) { return log_softmax_push(push.output(), t, axis_of(push)); });
       terms.finish();
     }});

// p (t - sum(p t)), symmetric in t.
constexpr OpRule softmax_slope_rule =
    handling({"softmax",
              [](Pull& pull) {
                const Tensor &p = pull.input(0), &t = pull.input(1), &s = pull.cotangent();
                const std::int64_t axis = axis_of(pull);
                if (pull.needs(0))
                  pull.gradients[0] = s * (t - sum(p * t, {axis}, true)) - t * sum(p * s, {axis}, true);
                if (pull.needs(1)) pull.gradients[1] = softmax_slope(p, s, axis);
                select_lines(pull);
              },
              [](Push& push) {
                const Tensor &p = push.input(0), &t = push.input(1);
                const std::int64_t axis = axis_of(push);
                Terms terms(push);
                terms.add(0, [&](const Tensor& q) {
                  return q * (t - sum(p * t, {axis}, true)) - p * sum(q * t, {axis}, true);
                });
                terms.add(1, [&](const Tensor& r) { return softmax_slope(p, r, axis); });
                terms.finish();
              }});

// t - exp(l) sum(t)
constexpr OpRule log_softmax_pull_rule =
    handling({"log_softmax",
              [](Pull& pull) {
                const Tensor &l = pull.input(0), &t = pull.input(1), &s = pull.cotangent();
                const std::int64_t axis = axis_of(pull);
                if (pull.needs(0)) pull.gradients[0] = negate((s * exp(l)) * sum(t, {axis}, true));
                if (pull.needs(1)) pull.gradients[1] = log_softmax_push(l, s, axis);
                select_lines(pull);
              },
              [](Push& push) {
                const Tensor &l = push.input(0), &t = push.input(1);
                const std::int64_t axis = axis_of(push);
                Terms terms(push);
                terms.add(0, [&](const Tensor& q) { return negate((q * exp(l)) * sum(t, {axis}, true)); });
                terms.add(1, [&](const Tensor& r) { return log_softmax_pull(l, r, axis); });
                terms.finish();
              }});

// t - sum(exp(l) t)
constexpr OpRule log_softmax_push_rule =
    handling({"log_softmax",
              [](Pull& pull) {
                const Tensor &l = pull.input(0), &t = pull.input(1), &s = pull.cotangent();
                const std::int64_t axis = axis_of(pull);
                if (pull.needs(0)) pull.gradients[0] = negate((exp(l) * t) * sum(s, {axis}, true));
                if (pull.needs(1)) pull.gradients[1] = log_softmax_pull(l, s, axis);
                select_lines(pull);
              },
              [](Push& push) {
                const Tensor &l = push.input(0), &t = push.input(1);
                const std::int64_t axis = axis_of(push);
                Terms terms(push);
                terms.add(0, [&](const Tensor& q) {
                  return expand(negate(sum((exp(l) * q) * t, {axis}, true)), t.shape());
                });
                terms.add(1, [&](const Tensor& r) { return log_softmax_push(l, r, axis); });
                terms.finish();
              }});

Tensor derivative(SoftmaxDerivative kind, const OpRule& rule, const Tensor& result, const Tensor& t,
                  std::int64_t axis) {
  Tensor y = make_tensor(t.shape(), t.dtype());
  backend_of(t)->softmax_derivative(kind, view_of(result), view_of(t), static_cast<int>(axis), view_of(y));
  return finish_one(rule, {3, 0}, AxisAttributes{axis}, std::move(y), result, t);
}
Tensor softmax_slope(const Tensor& p, const Tensor& t, std::int64_t axis) {
  return derivative(SoftmaxDerivative::softmax, softmax_slope_rule, p, t, axis);
}
Tensor log_softmax_pull(const Tensor& l, const Tensor& t, std::int64_t axis) {
  return derivative(SoftmaxDerivative::log_softmax_pull, log_softmax_pull_rule, l, t, axis);
}
Tensor log_softmax_push(const Tensor& l, const Tensor& t, std::int64_t axis) {
  return derivative(SoftmaxDerivative::log_softmax_push, log_softmax_push_rule, l, t, axis);
}

Tensor softmax_along(const OpRule& rule, const Tensor& x, std::int64_t axis, bool logarithm) {
  require_floating(rule.name, x);
  const int a = normalize_axis(rule.name, axis, x.shape());
  if (x.extent(a) == 0) fail(rule.name, "needs elements along axis ", a, " of shape ", x.shape());
  Tensor y = make_tensor(x.shape(), x.dtype());
  backend_of(x)->softmax(view_of(x), a, logarithm, view_of(y));
  return finish_one(rule, {0, 1}, AxisAttributes{a}, std::move(y), x);
}

}  // namespace
}  // namespace detail

Tensor softmax(const Tensor& x, std::int64_t axis) {
  return detail::softmax_along(detail::softmax_rule, x, axis, false);
}

Tensor log_softmax(const Tensor& x, std::int64_t axis) {
  return detail::softmax_along(detail::log_softmax_rule, x, axis, true);
}

}  // namespace hypertape
