#include "hypertape/bilevel/linear.h"

#include <cmath>
#include <memory>
#include <string>

#include "hypertape/autodiff/derivatives.h"
#include "hypertape/autodiff/ops.h"
#include "hypertape/core/error.h"
#include "method.h"

namespace hypertape::bilevel {
namespace {

using detail::norm;
using detail::require_plain;

double inner_product(const TensorList& a, const TensorList& b) {
  double total = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) total += dot(a[i], b[i]).item();
  return total;
}

// y + factor x
TensorList plus(const TensorList& y, double factor, const TensorList& x) {
  TensorList sum(y.size());
  for (std::size_t i = 0; i < y.size(); ++i)
    sum[i] = multiply_add(Tensor::scalar(factor, x[i].dtype()), x[i], y[i]);
  return sum;
}

TensorList times(const TensorList& x, double factor) {
  TensorList scaled;
  for (const Tensor& each : x) scaled.push_back(each * factor);
  return scaled;
}

TensorList zeros_like(const TensorList& x) {
  TensorList zeros;
  for (const Tensor& each : x) zeros.push_back(Tensor::zeros(each.shape(), each.dtype()));
  return zeros;
}

void require_vector(const char* operation, const TensorList& b) {
  if (b.empty()) fail(operation, "the right-hand side has no tensors");
  for (std::size_t i = 0; i < b.size(); ++i) {
    if (!b[i].defined()) fail(operation, "tensor ", i, " of the right-hand side is absent");
    if (!is_floating(b[i].dtype())) fail(operation, "the right-hand side is ", b[i].dtype());
    if (b[i].dtype() != b[0].dtype())
      fail(operation, "the right-hand side mixes ", b[0].dtype(), " and ", b[i].dtype());
  }
}

void check(const char* operation, const CgOptions& options) {
  if (!(options.tolerance >= 0.0)) fail(operation, "tolerance is ", options.tolerance);
  if (options.iterations < 1) fail(operation, "iterations is ", options.iterations, "; at least 1 is needed");
  if (!(options.damping >= 0.0 && std::isfinite(options.damping)))
    fail(operation, "damping is ", options.damping, "; it must be finite and not negative");
}

// A x + damping x, with the number of products counted and the shapes checked.
class Operator {
 public:
  Operator(const char* operation, const LinearMap& a, double damping = 0.0, bool differentiable = false)
      : operation_(operation), a_(a), damping_(damping), differentiable_(differentiable) {
    if (!a) fail(operation, "there is no operator");
  }
  TensorList operator()(const TensorList& x) {
    ++products_;
    TensorList y = a_(x);
    if (!differentiable_) require_plain(operation_, y);
    if (y.size() != x.size()) fail(operation_, "the operator returned ", y.size(), " tensors for ", x.size());
    detail::fill_absent(y, x);
    for (std::size_t i = 0; i < x.size(); ++i)
      if (y[i].shape() != x[i].shape() || y[i].dtype() != x[i].dtype())
        fail(operation_, "the operator turned tensor ", i, " from ", x[i].dtype(), " ", x[i].shape(),
             " into ", y[i].dtype(), " ", y[i].shape());
    return damping_ == 0.0 ? y : plus(y, damping_, x);
  }
  std::int64_t products() const noexcept { return products_; }

 private:
  const char* operation_;
  const LinearMap& a_;
  double damping_;
  bool differentiable_;
  std::int64_t products_ = 0;
};

// The right-hand side zero, or not a number: nothing to iterate on.
bool is_settled(const TensorList& b, double size, LinearSolution& solution) {
  solution.x = zeros_like(b);
  if (std::isfinite(size) && size > 0.0) return false;
  solution.status = size == 0.0 ? LinearStatus::converged : LinearStatus::not_finite;
  solution.residuals = {size == 0.0 ? 0.0 : 1.0};
  return true;
}

}  // namespace

std::string_view name_of(LinearStatus status) noexcept {
  switch (status) {
    case LinearStatus::converged:
      return "converged";
    case LinearStatus::not_converged:
      return "not converged";
    case LinearStatus::negative_curvature:
      return "negative curvature";
    case LinearStatus::diverging:
      return "diverging";
    case LinearStatus::not_finite:
      return "not finite";
  }
  return "unknown";
}

LinearMap hessian_operator(std::function<Tensor(const TensorList& w)> loss, const TensorList& w) {
  if (!loss) fail("hessian_operator", "there is no loss");
  bool depends = false;
  auto [gradient, linear] = linearize(
      [&](const TensorList& x) {
        TensorList g = grad(loss, x);
        for (const Tensor& each : g) depends |= each.defined();
        detail::fill_absent(g, x);
        return g;
      },
      w);
  if (!depends) fail("hessian_operator", "the loss does not depend on the parameters");
  return [linear = linear](const TensorList& v) { return linear(v); };
}

LinearSolution conjugate_gradient(const LinearMap& a, const TensorList& b, const CgOptions& options) {
  constexpr const char* name = "conjugate_gradient";
  check(name, options);
  require_vector(name, b);
  require_plain(name, b);
  LinearSolution solution;
  const double size = norm(b);
  if (is_settled(b, size, solution)) return solution;
  Operator apply(name, a, options.damping);
  TensorList r = b, p = b;
  double rr = inner_product(r, r);
  solution.residuals.push_back(1.0);
  while (solution.iterations < options.iterations) {
    const TensorList ap = apply(p);
    const double curvature = inner_product(p, ap);
    if (!std::isfinite(curvature)) {
      solution.status = LinearStatus::not_finite;
      break;
    }
    if (curvature <= 0.0) {
      solution.status = LinearStatus::negative_curvature;
      break;
    }
    const double length = rr / curvature;
    solution.x = plus(solution.x, length, p);
    r = plus(r, -length, ap);
    ++solution.iterations;
    const double next = inner_product(r, r);
    solution.residuals.push_back(norm(r) / size);
    if (solution.residuals.back() <= options.tolerance) {
      solution.status = LinearStatus::converged;
      break;
    }
    p = plus(r, next / rr, p);
    rr = next;
  }
  solution.products = apply.products();
  return solution;
}

LinearSolution normal_conjugate_gradient(const LinearMap& a, const TensorList& b, const CgOptions& options) {
  constexpr const char* name = "normal_conjugate_gradient";
  check(name, options);
  require_vector(name, b);
  require_plain(name, b);
  LinearSolution solution;
  const double size = norm(b);
  if (is_settled(b, size, solution)) return solution;
  Operator apply(name, a, options.damping);
  // CGLS: r is the residual of A x = b itself, s = A r that of the normal equations.
  TensorList r = b, s = apply(r), p = s;
  double ss = inner_product(s, s);
  solution.residuals.push_back(1.0);
  while (solution.iterations < options.iterations) {
    if (ss == 0.0) break;  // b has a part that A never reaches
    const TensorList q = apply(p);
    const double qq = inner_product(q, q);
    if (!std::isfinite(qq) || !std::isfinite(ss) || qq == 0.0) {
      solution.status = LinearStatus::not_finite;
      break;
    }
    const double length = ss / qq;
    solution.x = plus(solution.x, length, p);
    r = plus(r, -length, q);
    ++solution.iterations;
    solution.residuals.push_back(norm(r) / size);
    if (solution.residuals.back() <= options.tolerance) {
      solution.status = LinearStatus::converged;
      break;
    }
    s = apply(r);
    const double next = inner_product(s, s);
    p = plus(s, next / ss, p);
    ss = next;
  }
  solution.products = apply.products();
  return solution;
}

LinearSolution neumann_series(const LinearMap& a, const TensorList& b, const NeumannOptions& options) {
  constexpr const char* name = "neumann_series";
  if (!(options.rate > 0.0 && std::isfinite(options.rate)))
    fail(name, "rate is ", options.rate, "; it must be positive, e.g. the learning rate of the training");
  if (options.terms < 0) fail(name, "terms is ", options.terms);
  if (!(options.momentum >= 0.0 && options.momentum < 1.0))
    fail(name, "momentum ", options.momentum, " is not in [0, 1)");
  require_vector(name, b);
  LinearSolution solution;
  const double size = norm(b);
  Operator apply(name, a, 0.0, true);
  TensorList step = times(b, options.rate);
  solution.x = step;
  for (; solution.iterations < options.terms; ++solution.iterations) {
    const TensorList r = plus(b, -1.0, apply(solution.x));
    solution.residuals.push_back(size > 0.0 ? norm(r) / size : 0.0);
    step = options.momentum == 0.0 ? times(r, options.rate)
                                   : plus(times(step, options.momentum), options.rate, r);
    solution.x = plus(solution.x, 1.0, step);
  }
  solution.products = apply.products();
  const std::vector<double>& history = solution.residuals;
  if (!std::isfinite(norm(solution.x))) {
    solution.status = LinearStatus::not_finite;
  } else if (size == 0.0 || (!history.empty() && history.back() <= options.tolerance)) {
    solution.status = LinearStatus::converged;
  } else if (history.size() > 1 && history.back() > history[history.size() - 2] && history.back() > 1.0) {
    solution.status = LinearStatus::diverging;
  }
  return solution;
}

}  // namespace hypertape::bilevel
