// The iterative solvers.
#include "hypertape/bilevel/linear.h"

#include <algorithm>
#include <cmath>

#include "hypertape/autodiff/ops.h"
#include "hypertape/core/error.h"
#include "linear_operator.h"
#include "node.h"
#include "series_term.h"

namespace hypertape::bilevel {
namespace {

using detail::inner_product;
using detail::norm;
using detail::Operator;
using detail::plus;
using detail::Scaled;
using detail::times;

void check(const char* operation, const TensorList& b, const CgOptions& options) {
  if (!(options.tolerance >= 0.0)) fail(operation, "tolerance is ", options.tolerance);
  if (options.iterations < 1) fail(operation, "iterations is ", options.iterations, "; at least 1 is needed");
  if (!(options.damping >= 0.0 && std::isfinite(options.damping)))
    fail(operation, "damping is ", options.damping, "; it must be finite and not negative");
  detail::require_vector(operation, b);
  detail::require_plain(operation, b);
}

// x with its residual, and the best of all so far: rounding can make later iterates worse.
class Iterates {
 public:
  Iterates(const Scaled& b, double tolerance, LinearSolution& solution)
      : b_(b), tolerance_(tolerance), x_(detail::zeros_like(b.vector())), best_(x_), solution_(solution) {
    solution_.residuals.push_back(1.0);
  }
  const TensorList& x() const noexcept { return x_; }
  void move(double length, const TensorList& p) {
    x_ = plus(x_, length, p);
    ++solution_.iterations;
  }
  /// Notes the residual; true if it claims to be small enough.
  bool claims(const TensorList& r) {
    const double residual = norm(r) / b_.size();
    solution_.residuals.push_back(residual);
    if (residual < best_residual_) {
      best_residual_ = residual;
      best_ = x_;
    }
    return residual <= tolerance_;
  }
  /// The recursion's residual drifts from the truth: b - A x is computed once more. If that is too large, the
  /// iteration starts afresh from it, unless the last fresh start gained nothing.
  bool holds(Operator& apply, TensorList& r) {
    r = plus(b_.vector(), -1.0, apply(x_));
    const double residual = norm(r) / b_.size();
    solution_.residuals.back() = residual;
    stagnates_ = !(residual < 0.5 * last_true_);
    last_true_ = best_residual_ = residual;
    best_ = x_;
    return residual <= tolerance_;
  }
  bool stagnates() const noexcept { return stagnates_; }
  /// Ends the iteration: the best iterate.
  void finish(LinearStatus status, const Operator& apply) {
    solution_.status = status;
    solution_.x = b_.restored(status == LinearStatus::converged ? x_ : best_);
    solution_.products = apply.products();
  }

 private:
  const Scaled& b_;
  double tolerance_, best_residual_ = 1.0, last_true_ = 1e300;
  bool stagnates_ = false;
  TensorList x_, best_;
  LinearSolution& solution_;
};

// Sees |A| from below, and with it which p'Ap are zero but for rounding.
class Curvatures {
 public:
  /// p'Ap, exactly 0 if it vanishes.
  double along(const TensorList& p, const TensorList& ap) {
    const double length = norm(p), curvature = inner_product(p, ap);
    if (length == 0.0) return 0.0;
    largest_ = std::max(largest_, norm(ap) / length);
    return std::abs(curvature) <= detail::attainable(0.0, p) * largest_ * length * length ? 0.0 : curvature;
  }
  /// Whether x'Ax of a term is negative beyond its rounding.
  bool negative(const detail::SeriesTerm& term, double rounding) {
    largest_ = std::max(largest_, term.stretch);
    return term.cosine * term.stretch < -rounding * largest_;
  }
  /// The largest |A p| / |p|.
  double largest() const noexcept { return largest_; }

 private:
  double largest_ = 0.0;
};

}  // namespace

LinearSolution conjugate_gradient(const LinearMap& a, const TensorList& b, const CgOptions& options) {
  constexpr const char* name = "conjugate_gradient";
  check(name, b, options);
  Operator apply(name, a, options.damping);
  LinearSolution solution;
  const Scaled right(b);
  if (right.is_settled(solution)) return solution;
  Iterates iterates(right, detail::attainable(options.tolerance, b), solution);
  TensorList r = right.vector(), p = r;
  double rr = inner_product(r, r);
  LinearStatus status = LinearStatus::not_converged;
  Curvatures curvatures;
  while (solution.iterations < options.iterations) {
    const TensorList ap = apply(p);
    const double curvature = curvatures.along(p, ap);
    if (!std::isfinite(curvature)) {
      status = LinearStatus::not_finite;
      break;
    }
    if (curvature == 0.0) {
      status = LinearStatus::singular;
      break;
    }
    if (curvature < 0.0) {
      status = LinearStatus::negative_curvature;
      solution.indefinite = true;
      break;
    }
    const double length = rr / curvature;
    iterates.move(length, p);
    r = plus(r, -length, ap);
    const bool restarts = iterates.claims(r);
    if (restarts && iterates.holds(apply, r)) {
      status = LinearStatus::converged;
      break;
    }
    if (iterates.stagnates()) break;
    const double next = inner_product(r, r);
    p = restarts ? r : plus(r, next / rr, p);
    rr = next;
  }
  iterates.finish(status, apply);
  return solution;
}

LinearSolution normal_conjugate_gradient(const LinearMap& a, const TensorList& b, const CgOptions& options) {
  constexpr const char* name = "normal_conjugate_gradient";
  check(name, b, options);
  Operator apply(name, a, options.damping);
  LinearSolution solution;
  const Scaled right(b);
  if (right.is_settled(solution)) return solution;
  Iterates iterates(right, detail::attainable(options.tolerance, b), solution);
  // CGLS: r is the residual of A x = b itself, s = A r that of the normal equations.
  TensorList r = right.vector(), s = apply(r), p = s;
  double ss = inner_product(s, s);
  Curvatures curvatures;
  curvatures.along(r, s);
  LinearStatus status = LinearStatus::not_converged;
  while (solution.iterations < options.iterations) {
    // A r = 0 but for rounding: what is left of b is out of A's reach.
    if (std::sqrt(ss) <= detail::attainable(0.0, b) * curvatures.largest() * norm(r)) {
      status = LinearStatus::singular;
      break;
    }
    const TensorList q = apply(p);
    const double qq = inner_product(q, q), curvature = curvatures.along(p, q);
    if (!std::isfinite(qq) || !std::isfinite(ss)) {
      status = LinearStatus::not_finite;
      break;
    }
    if (curvature < 0.0) solution.indefinite = true;
    const double length = ss / qq;
    iterates.move(length, p);
    r = plus(r, -length, q);
    const bool restarts = iterates.claims(r);
    if (restarts && iterates.holds(apply, r)) {
      status = LinearStatus::converged;
      break;
    }
    if (iterates.stagnates()) break;
    s = apply(r);
    const double next = inner_product(s, s);
    p = restarts ? s : plus(s, next / ss, p);
    ss = next;
  }
  iterates.finish(status, apply);
  return solution;
}

namespace {

TensorList plain(TensorList list) {
  for (Tensor& each : list) each = stop_gradient(each);
  return list;
}

// Without momentum the residuals are powers of I - rate A applied to b: once they grow, they grow for ever.
// With momentum they may rise for a while first, so that halves of the history are compared.
bool grows(const std::vector<double>& residuals, double momentum) {
  if (residuals.empty()) return false;
  if (momentum == 0.0) {
    const double before = residuals.size() > 1 ? residuals[residuals.size() - 2] : 1.0;
    return residuals.back() > (1.0 + 1e-6) * before;
  }
  constexpr std::size_t enough = 12;
  if (residuals.size() < enough) return false;
  const auto middle = residuals.begin() + static_cast<std::ptrdiff_t>(residuals.size() / 2);
  return *std::max_element(middle, residuals.end()) > *std::max_element(residuals.begin(), middle);
}

bool is_differentiated(const TensorList& list) {
  return std::any_of(list.begin(), list.end(),
                     [](const Tensor& each) { return hypertape::detail::links_of(each).any(); });
}

}  // namespace

LinearSolution neumann_series(const LinearMap& a, const TensorList& b, const NeumannOptions& options) {
  constexpr const char* name = "neumann_series";
  if (!(options.rate > 0.0 && std::isfinite(options.rate)))
    fail(name, "rate is ", options.rate, "; it must be positive, e.g. the learning rate of the training");
  if (options.terms < 0) fail(name, "terms is ", options.terms);
  if (!(options.momentum >= 0.0 && options.momentum < 1.0))
    fail(name, "momentum ", options.momentum, " is not in [0, 1)");
  if (!(options.tolerance >= 0.0)) fail(name, "tolerance is ", options.tolerance);
  detail::require_vector(name, b);
  LinearSolution solution;
  const double size = norm(b);
  Operator apply(name, a, 0.0, true);
  Curvatures curvatures;
  TensorList step = times(b, options.rate);
  solution.x = step;
  for (; solution.iterations < options.terms; ++solution.iterations) {
    const TensorList ax = apply(solution.x);
    detail::SeriesTerm term = detail::series_term(plain(solution.x), plain(ax), plain(b), plain(step),
                                                  options.rate, options.momentum);
    if (curvatures.negative(term, detail::attainable(0.0, b))) solution.indefinite = true;
    solution.residuals.push_back(size > 0.0 ? term.residual / size : 0.0);
    if (!is_differentiated(ax) && !is_differentiated(solution.x) && !is_differentiated(b)) {
      step = std::move(term.step);
      solution.x = std::move(term.x);
      continue;
    }
    const TensorList r = plus(b, -1.0, ax);
    step = options.momentum == 0.0 ? times(r, options.rate)
                                   : plus(times(step, options.momentum), options.rate, r);
    solution.x = plus(solution.x, 1.0, step);
  }
  solution.products = apply.products();
  const double tolerance = detail::attainable(options.tolerance, b);
  if (!std::isfinite(norm(solution.x)))
    solution.status = LinearStatus::not_finite;
  else if (size == 0.0 || (!solution.residuals.empty() && solution.residuals.back() <= tolerance))
    solution.status = LinearStatus::converged;
  else if (grows(solution.residuals, options.momentum))
    solution.status = LinearStatus::diverging;
  return solution;
}

}  // namespace hypertape::bilevel
