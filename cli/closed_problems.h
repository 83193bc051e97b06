// Converged full-batch problems whose hypergradients are known in closed form (closed_forms.h), trained by
// plain gradient descent from 0. All numbers are draws of the seed.
//
//   quadratic   f = 1/2 w'Aw - w'(b + Bh);  F = 1/2 |w - c|^2 + d'h                          h
//   ridge       f = 1/(2N) |Xw - y|^2 + 1/2 lambda |w|^2;  F = 1/(2M) |X'w - y'|^2          lambda
//   regression  the same with a penalty exp(log_l2_j) for every feature                      log_l2
//   logistic    softmax cross entropy of XW, the same penalties, F on other samples          log_l2
#pragma once

#include <cstdint>
#include <string>

#include <hypertape/bilevel/problem.h>
#include "closed_forms.h"
#include "options.h"

namespace hypertape {

struct ClosedProblem {
  std::string description;  ///< sizes, for people
  bilevel::Problem problem;
  bilevel::OuterLoss outer;
  NamedTensors hyperparameters;  ///< one group
  double rate = 0.0;             ///< of gradient descent: 1 / the largest curvature
  ClosedForm exact;              ///< its gradient is that with respect to the group
};

/// `kind`: any but net. `steps` 0: as many as leave 1e-17 of the way to w*, known from the curvatures.
ClosedProblem make_closed_problem(ProblemKind kind, std::uint64_t seed, std::int64_t steps = 0);

}  // namespace hypertape
