// The gate that every hypergradient test goes through: a check is worth something only if it fails for wrong
// hypergradients.
//
//     expect_gated(problem, Unrolled{}, [&](const Hypergradient& r) { return error_of(r) < 1e-10; });
//
// computes the hypergradient, asserts that the check passes for it, and that it fails when the hypergradient
// is zero, negated, only the direct term F_h, scaled by 1 + 1e-4 or 1 - 1e-4, or computed with less work.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bilevel_problems.h"

namespace mutation_gate {

/// The same hypergradient with less work done, as the mutant that a check must see.
using LessWork = std::function<hypertape::bilevel::Hypergradient()>;

using Check = std::function<bool(const hypertape::bilevel::Hypergradient&)>;

/// Less work: the result of the problem started `dropped_steps` steps later at the state reached by then, as
/// of a reverse pass that stops early.
hypertape::bilevel::Hypergradient with_less_work(const bilevel_problems::Case& problem,
                                                 const hypertape::bilevel::Estimator& estimator,
                                                 std::int64_t dropped_steps);

/// Names of the mutants of `truth` that `check` does not tell from it.
std::vector<std::string> survivors(const bilevel_problems::Case& problem,
                                   const hypertape::bilevel::Estimator& estimator, const Check& check,
                                   const hypertape::bilevel::Hypergradient& truth,
                                   std::int64_t dropped_steps = 1);

/// The same with another notion of less work: for implicit methods, a solve stopped at half its iterations or
/// a series without its first term.
std::vector<std::string> survivors(const bilevel_problems::Case& problem, const Check& check,
                                   const hypertape::bilevel::Hypergradient& truth, const LessWork& less_work);

/// Asserts that `check` passes for the method's result and fails for every mutant; returns the result.
hypertape::bilevel::Hypergradient expect_gated(const bilevel_problems::Case& problem,
                                               const hypertape::bilevel::Estimator& estimator,
                                               const Check& check, std::int64_t dropped_steps = 1);

hypertape::bilevel::Hypergradient expect_gated(const bilevel_problems::Case& problem,
                                               const hypertape::bilevel::Estimator& estimator,
                                               const Check& check, const LessWork& less_work);

}  // namespace mutation_gate
