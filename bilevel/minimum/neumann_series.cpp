// The Neumann series.
#include <algorithm>
#include <cmath>
#include <limits>

#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/linear.h>
#include <hypertape/core/error.h>
#include "autodiff/tape/node.h"
#include "bilevel/minimum/linear_operator.h"
#include "bilevel/minimum/series_term.h"
#include "bilevel/minimum/spectrum.h"
#include "core/base/default_floats.h"

namespace hypertape::bilevel {

using detail::Curvatures;
using detail::norm;
using detail::Operator;
using detail::plus;
using detail::times;

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
  const hypertape::detail::DefaultFloats floats;
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
  double lowest = 0.0;  // x'Ax / x'x
  TensorList step = times(b, options.rate);
  solution.x = step;
  for (; solution.iterations < options.terms; ++solution.iterations) {
    const TensorList ax = apply(solution.x);
    detail::SeriesTerm term = detail::series_term(plain(solution.x), plain(ax), plain(b), plain(step),
                                                  options.rate, options.momentum);
    if (curvatures.negative(term, detail::attainable(0.0, b)))
      lowest = std::min(lowest, term.cosine * term.stretch);
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
  // A rate is at most about 1 / |A|: what is negative beyond the rounding of sixteen times that needs no
  // measuring.
  const bool clearly = lowest < -2.0 * detail::attainable(0.0, b) * 16.0 / options.rate;
  solution.indefinite = clearly || curvatures.confirms(lowest, b, apply);
  solution.products = apply.products();
  const double tolerance = detail::attainable(options.tolerance, b);
  if (!std::isfinite(norm(solution.x)))
    solution.status = LinearStatus::not_finite;
  else if (size == 0.0 || (!solution.residuals.empty() && solution.residuals.back() <= tolerance))
    solution.status = LinearStatus::converged;
  else if (grows(solution.residuals, options.momentum))
    solution.status = LinearStatus::diverging;
  if (curvatures.largest() > 0.0 && std::isfinite(curvatures.largest())) {
    solution.largest_eigenvalue = curvatures.largest();
    solution.smallest_eigenvalue = curvatures.smallest();
  }
  return solution;
}

}  // namespace hypertape::bilevel
