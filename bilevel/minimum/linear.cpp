// Conjugate gradients, on A x = b and on its normal equations.
#include <hypertape/bilevel/linear.h>

#include <algorithm>
#include <cmath>

#include <hypertape/core/error.h>
#include "bilevel/minimum/aside.h"
#include "bilevel/minimum/linear_operator.h"
#include "bilevel/minimum/spectrum.h"
#include "core/base/default_floats.h"

namespace hypertape::bilevel {
namespace {

using detail::Aside;
using detail::Curvatures;
using detail::inner_product;
using detail::norm;
using detail::Operator;
using detail::plus;
using detail::RitzValues;
using detail::Scaled;

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
  bool claims(const TensorList& r, double rr) {
    const double residual = (is_harmless(rr, r) ? std::sqrt(rr) : norm(r)) / b_.size();
    solution_.residuals.push_back(residual);
    if (residual < best_residual_) {
      best_residual_ = residual;
      best_ = x_;
    }
    return residual <= tolerance_;
  }
  /// The recursion's residual drifts from the truth: b - A x is computed once more. If that is too large, the
  /// iteration starts afresh from it. Once a fresh start gains nothing, rounding has the last word, and the
  /// tolerance is one of the backward error: no x can have a smaller residual than |A| |x| times a rounding.
  bool holds(Operator& apply, TensorList& r, const Curvatures& curvatures) {
    r = plus(b_.vector(), -1.0, apply(x_));
    const double residual = norm(r) / b_.size();
    solution_.residuals.back() = residual;
    stagnates_ = !(residual < 0.5 * last_true_);
    if (!(residual > last_true_)) {
      last_true_ = residual;
      true_ = x_;
    }
    best_residual_ = last_true_;
    best_ = true_;
    if (residual <= tolerance_) return true;
    return stagnates_ && backward_error(best_, best_residual_, curvatures.largest()) <= tolerance_;
  }
  bool stagnates() const noexcept { return stagnates_; }
  /// Ends the iteration: the best iterate. `largest` and `smallest` are those of the normalised A.
  void finish(LinearStatus status, const Operator& apply, double largest, double smallest) {
    // Found by dividing by a rounding error, before |A| was known.
    if (status == LinearStatus::converged && best_residual_ > tolerance_ &&
        smallest <= detail::attainable(0.0, best_) * largest)
      status = LinearStatus::singular;
    solution_.status = status;
    const TensorList& x = best_;
    if (!b_.restore(x, apply.exponent(), solution_.x) && status == LinearStatus::converged)
      solution_.status = LinearStatus::out_of_range;
    solution_.products = apply.products();
    solution_.backward_error = backward_error(x, best_residual_, largest);
    if (!(largest > 0.0 && smallest > 0.0 && std::isfinite(largest))) return;
    solution_.largest_eigenvalue = std::ldexp(largest, apply.exponent());
    solution_.smallest_eigenvalue = std::ldexp(smallest, apply.exponent());
    solution_.error = best_residual_ * b_.size() / (smallest * norm(x));
  }

 private:
  // A sum of squares that neither overflowed nor lost bits.
  static bool is_harmless(double squares, const TensorList& r) {
    return std::isfinite(squares) && squares > (r.front().dtype() == Dtype::float32 ? 1e-30 : 1e-280);
  }
  double backward_error(const TensorList& x, double residual, double largest) const {
    return residual / (largest * norm(x) / b_.size() + 1.0);
  }

  const Scaled& b_;
  double tolerance_, best_residual_ = 1.0, last_true_ = 1e300;
  bool stagnates_ = false;
  TensorList x_, best_, true_;  ///< true_: whose residual was computed, with the smallest
  LinearSolution& solution_;
};

}  // namespace

LinearSolution detail::solve_definite(const char* name, const LinearMap& a, const TensorList& b,
                                      const CgOptions& options, Aside* aside) {
  check(name, b, options);
  Operator apply(name, a, options.damping);
  apply.normalise();
  LinearSolution solution;
  const Scaled right(b);
  if (right.is_settled(solution)) return solution;
  Iterates iterates(right, detail::attainable(options.tolerance, b), solution);
  TensorList r = right.vector(), p = r;
  double rr = inner_product(r, r);
  LinearStatus status = LinearStatus::not_converged;
  Curvatures curvatures;
  RitzValues ritz;
  while (solution.iterations < options.iterations) {
    const TensorList ap = apply(p);
    const double curvature = curvatures.along(p, ap);
    if (!std::isfinite(curvature)) {
      status = LinearStatus::not_finite;
      break;
    }
    if (curvature <= 0.0) {
      solution.indefinite = curvatures.confirms(curvature / inner_product(p, p), p, apply);
      status = solution.indefinite ? LinearStatus::negative_curvature : LinearStatus::singular;
      break;
    }
    const double length = rr / curvature;
    iterates.move(length, p);
    if (aside) aside->follow(p, ap, p, curvature);
    r = plus(r, -length, ap);
    double next = inner_product(r, r);
    const bool restarts = iterates.claims(r, next);
    if (restarts && iterates.holds(apply, r, curvatures)) status = LinearStatus::converged;
    const bool ends = status == LinearStatus::converged || iterates.stagnates();
    if (restarts && !ends) next = inner_product(r, r);
    ritz.add(length, restarts ? 0.0 : next / rr);
    if (ends) break;
    p = restarts ? r : plus(r, next / rr, p);
    rr = next;
  }
  iterates.finish(status, apply, std::max(curvatures.largest(), ritz.largest()), ritz.smallest());
  if (aside) aside->finish(apply.exponent());
  return solution;
}

LinearSolution detail::solve_normal(const char* name, const LinearMap& a, const TensorList& b,
                                    const CgOptions& options, Aside* aside) {
  check(name, b, options);
  Operator apply(name, a, options.damping);
  apply.normalise();
  LinearSolution solution;
  const Scaled right(b);
  if (right.is_settled(solution)) return solution;
  Iterates iterates(right, detail::attainable(options.tolerance, b), solution);
  // CGLS: r is the residual of A x = b itself, s = A r that of the normal equations.
  TensorList r = right.vector(), s = apply(r), p = s;
  double ss = inner_product(s, s);
  Curvatures curvatures;
  curvatures.along(r, s);
  RitzValues squares;  // of A A
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
    if (curvature < 0.0 && !solution.indefinite)
      solution.indefinite = curvatures.confirms(curvature / inner_product(p, p), p, apply);
    const double length = ss / qq;
    iterates.move(length, p);
    if (aside) aside->follow(p, q, q, qq);
    r = plus(r, -length, q);
    const bool restarts = iterates.claims(r, inner_product(r, r));
    if (restarts && iterates.holds(apply, r, curvatures)) status = LinearStatus::converged;
    const bool ends = status == LinearStatus::converged || iterates.stagnates();
    if (!ends) s = apply(r);
    const double next = ends ? 0.0 : inner_product(s, s);
    squares.add(length, restarts ? 0.0 : next / ss);
    if (ends) break;
    p = restarts ? s : plus(s, next / ss, p);
    ss = next;
  }
  iterates.finish(status, apply, std::max(curvatures.largest(), std::sqrt(squares.largest())),
                  std::sqrt(squares.smallest()));
  if (aside) aside->finish(apply.exponent());
  return solution;
}

LinearSolution conjugate_gradient(const LinearMap& a, const TensorList& b, const CgOptions& options) {
  const hypertape::detail::DefaultFloats floats;
  return detail::solve_definite("conjugate_gradient", a, b, options, nullptr);
}

LinearSolution normal_conjugate_gradient(const LinearMap& a, const TensorList& b, const CgOptions& options) {
  const hypertape::detail::DefaultFloats floats;
  return detail::solve_normal("normal_conjugate_gradient", a, b, options, nullptr);
}

}  // namespace hypertape::bilevel
