// Inner problems whose minimum and its derivatives are known in closed form, for implicit methods. The closed
// forms are dense loops in long double (dense.h).
#pragma once

#include <cstdint>
#include <vector>

#include "bilevel_problems.h"

namespace implicit_problems {

using bilevel_problems::Case;
using bilevel_problems::Gradients;

/// A case with its exact implicit hypergradient, in the order of h.
struct Known {
  Case problem;
  double value = 0.0;
  Gradients gradients;
  /// d2F/dh2 for a single scalar hyperparameter, and d3F/dh3.
  double second = 0.0, third = 0.0;
};

/// f = 1/2 w'(A + diag(exp(log_diagonal)))w - w'(b + B shift), times `scale`; F = 1/2 |w - c|^2 + d'shift.
/// w in two tensors of 3 and 2 elements; hyperparameters shift (3), log_diagonal (5). Gradient descent from
/// 0.
Known quadratic(double scale = 1.0, std::int64_t steps = 400);

/// f = 1/(2m) |Xw - y|^2 + lambda/2 |w|^2; F = 1/(2v) |X_v w - y_v|^2. Hyperparameter lambda, rank 0.
Known ridge(double lambda = 0.3);

/// Leave-one-out: one weight vector per sample, trained without it; F = sum_i (y_i - x_i'w_i)^2 (PRESS).
/// Hyperparameter lambda.
Known press(double lambda = 0.7);

/// iMAML on linear regression: f = 1/(2m) |Xw - y|^2 + lambda/2 |w - theta|^2, started at theta.
/// Hyperparameters theta (4), lambda.
Known meta_regression(double lambda = 2.0);

/// f = mean log(1 + exp(-y x'w)) + 1/2 sum_j exp(l_j) w_j^2; F the mean logistic loss on other data.
/// Hyperparameter l (4). The minimum comes from Newton's method, in long double, through Problem::solver.
Known logistic();

/// f = 1/2 w'diag(2, -1, 0.5)w - w'shift at its saddle point, which the solver gives. Hyperparameter shift.
Known saddle();

/// A method that solves the linear system, with its mutant: the solve stopped halfway (for the dense method,
/// conjugate gradients stopped there).
struct Solver {
  hypertape::bilevel::Estimator method, halfway;
};
std::vector<Solver> solvers(std::int64_t unknowns);

/// F at the end of `method`'s solve, as a function of h.
hypertape::Tensor outer_of(const Case& problem, const hypertape::bilevel::Estimator& method,
                           const hypertape::TensorList& h);

}  // namespace implicit_problems
