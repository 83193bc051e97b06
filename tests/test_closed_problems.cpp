// The problems of `hypertape compare` whose hypergradients are known: the closed forms themselves, and every
// method against them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include "bilevel_problems.h"
#include "closed_problems.h"
#include "compare.h"
#include "ladder.h"
#include "mutation_gate.h"
#include "progress.h"
#include "thrown.h"

namespace {

using hypertape::ClosedForm;
using hypertape::ClosedProblem;
using hypertape::Comparison;
using hypertape::ComparisonRow;
using hypertape::ProblemKind;

constexpr ProblemKind kinds[] = {ProblemKind::quadratic, ProblemKind::ridge, ProblemKind::regression,
                                 ProblemKind::logistic};

std::string name_of(ProblemKind kind) { return hypertape::problem_names[static_cast<std::size_t>(kind)]; }

Comparison compare(ProblemKind kind, std::int64_t steps = 0) {
  hypertape::CompareOptions options;
  options.problem = kind;
  options.training.steps = steps;
  hypertape::Progress progress(nullptr);
  return hypertape::compare_closed(options, progress);
}

double error_of(const Comparison& comparison, const std::string& method, const std::string& setting = "") {
  for (const ComparisonRow& row : comparison.rows)
    if (row.method == method && row.setting.find(setting) != std::string::npos)
      return row.relative_error.value();
  throw std::runtime_error("no row of " + method + ", " + setting);
}

// The derivative of a closed form's value in its k-th number, by extrapolated differences of solved problems.
template <class Numbers>
void expect_gradient(Numbers numbers, std::vector<double> Numbers::*hyperparameters) {
  const ClosedForm form = closed_form(numbers);
  const std::vector<double> at = numbers.*hyperparameters;
  REQUIRE(form.gradient.size() == at.size());
  for (std::size_t k = 0; k < at.size(); ++k) {
    const auto value = [&](double distance) {
      (numbers.*hyperparameters)[k] = at[k] + distance;
      return closed_form(numbers).value;
    };
    CHECK(ladder::ridders(value, 0.02) == doctest::Approx(form.gradient[k]).epsilon(1e-9));
    (numbers.*hyperparameters)[k] = at[k];
  }
}

}  // namespace

TEST_CASE("closed forms: solved by hand") {
  // A = (2 1; 1 2), eigenvalues 1 and 3; b + Bh = (3, 3) at h = 1, so w = (1, 1); c = (0, 1): F_w = (1, 0),
  // q = (2, -1) / 3 and dF/dh = d + B'q = 0.5 + 2/3.
  const ClosedForm quadratic = closed_form(hypertape::QuadraticNumbers{
      .a = {2, 1, 1, 2}, .b_matrix = {1, 0}, .b = {2, 3}, .c = {0, 1}, .d = {0.5}, .h = {1}});
  CHECK(quadratic.parameters[0] == doctest::Approx(1.0).epsilon(1e-15));
  CHECK(quadratic.parameters[1] == doctest::Approx(1.0).epsilon(1e-15));
  CHECK(quadratic.value == doctest::Approx(1.0).epsilon(1e-15));
  CHECK(quadratic.gradient[0] == doctest::Approx(0.5 + 2.0 / 3.0).epsilon(1e-15));
  CHECK(quadratic.least_curvature == doctest::Approx(1.0).epsilon(1e-14));
  CHECK(quadratic.most_curvature == doctest::Approx(3.0).epsilon(1e-14));
  // x = (1, 2), y = (1, 3): x'x / 2 = 2.5, x'y / 2 = 3.5; with penalty 1 the weight is 1 and the
  // curvature 3.5. Validation sample (1, 0): F = 1/2 and dF/dpenalty = -1 / 3.5.
  const ClosedForm ridge = closed_form(hypertape::RegressionNumbers{
      .x = {1, 2}, .y = {1, 3}, .x_outer = {1}, .y_outer = {0}, .penalties = {1}});
  CHECK(ridge.parameters[0] == doctest::Approx(1.0).epsilon(1e-15));
  CHECK(ridge.value == doctest::Approx(0.5).epsilon(1e-15));
  CHECK(ridge.gradient[0] == doctest::Approx(-1.0 / 3.5).epsilon(1e-15));
  CHECK(ridge.most_curvature == doctest::Approx(3.5).epsilon(1e-15));
  // One sample of label 0 in two classes: by symmetry W = (u, -u), where penalty u = 1 / (1 + exp(2u)).
  const ClosedForm logistic = closed_form(hypertape::LogisticNumbers{
      .x = {1}, .x_outer = {1}, .labels = {0}, .labels_outer = {0}, .penalties = {0.25}});
  const double u = logistic.parameters[0];
  CHECK(logistic.parameters[1] == doctest::Approx(-u).epsilon(1e-15));
  CHECK(0.25 * u == doctest::Approx(1.0 / (1.0 + std::exp(2.0 * u))).epsilon(1e-14));
  // F = log(1 + exp(-2u)); u (1 + exp(2u)) = 1 / penalty gives du = -1 / (p^2 (1 + e + 2 u e)), e = exp(2u).
  const double e = std::exp(2.0 * u), slope = -16.0 / (1.0 + e + 2.0 * u * e);
  CHECK(logistic.value == doctest::Approx(std::log1p(1.0 / e)).epsilon(1e-14));
  CHECK(logistic.gradient[0] == doctest::Approx(-2.0 / (1.0 + e) * slope).epsilon(1e-13));
}

TEST_CASE("closed forms: the gradient is the derivative of the solved problem's value") {
  const auto draws = [](std::int64_t count, std::uint64_t seed) {
    return ladder::elements(ladder::sample({count}, -1.0, 1.0, seed));
  };
  hypertape::QuadraticNumbers quadratic{.a = {3, 1, 0.5, 1, 2, -0.25, 0.5, -0.25, 1.5},
                                        .b_matrix = draws(6, 1),
                                        .b = draws(3, 2),
                                        .c = draws(3, 3),
                                        .d = draws(2, 4),
                                        .h = draws(2, 5)};
  expect_gradient(quadratic, &hypertape::QuadraticNumbers::h);
  hypertape::RegressionNumbers regression{.x = draws(36, 6),
                                          .y = draws(12, 7),
                                          .x_outer = draws(15, 8),
                                          .y_outer = draws(5, 9),
                                          .penalties = {0.2, 0.5, 0.9}};
  expect_gradient(regression, &hypertape::RegressionNumbers::penalties);
  hypertape::LogisticNumbers logistic{.x = draws(24, 10),
                                      .x_outer = draws(12, 11),
                                      .labels = {0, 1, 2, 2, 1, 0, 0, 1, 2, 1, 0, 2},
                                      .labels_outer = {2, 0, 1, 1, 0, 2},
                                      .penalties = {0.15, 0.4},
                                      .classes = 3};
  expect_gradient(logistic, &hypertape::LogisticNumbers::penalties);
}

TEST_CASE("closed problems: every method on the converged run gives the closed form, whatever the seed") {
  using namespace hypertape::bilevel;
  for (const ProblemKind kind : kinds)
    for (const std::uint64_t seed : {0, 1, 2}) {
      const ClosedProblem closed = hypertape::make_closed_problem(kind, seed);
      const bilevel_problems::Case problem = {name_of(kind), closed.problem, closed.outer,
                                              closed.hyperparameters};
      std::vector<Estimator> methods = bilevel_problems::reverse_methods(false);
      methods.push_back(Forward{});
      CAPTURE(seed);
      CAPTURE(closed.problem.steps);
      for (const Estimator& method : methods) {
        // A reverse pass that stops at the last ten steps is what must be seen.
        const Hypergradient result = mutation_gate::expect_gated(
            problem, method,
            [&](const Hypergradient& candidate) {
              return bilevel_problems::relative_error(candidate.gradients, {closed.exact.gradient}) < 1e-10;
            },
            closed.problem.steps - 10);
        CHECK(result.value == doctest::Approx(closed.exact.value).epsilon(1e-12));
        const std::vector<double> w = ladder::elements(result.parameters.tensors()[0]);
        REQUIRE(w.size() == closed.exact.parameters.size());
        for (std::size_t i = 0; i < w.size(); ++i) CHECK(std::abs(w[i] - closed.exact.parameters[i]) < 1e-12);
        if (seed > 0) break;  // one method is enough to judge the other draws
      }
    }
}

TEST_CASE("closed problems: the comparison's rows are errors against the closed form") {
  for (const ProblemKind kind : kinds) {
    const Comparison comparison = compare(kind);
    CHECK(comparison.failure.empty());
    CHECK(comparison.problem == name_of(kind));
    CHECK(comparison.reference == "the closed form");
    CHECK(comparison.groups.size() == 1);
    for (const ComparisonRow& row : comparison.rows) {
      INFO(name_of(kind), " ", row.method, " ", row.setting, " ", row.status);
      if (row.method == "reversible") {
        CHECK(row.status == "not defined (there is no momentum to undo)");
        CHECK_FALSE(row.relative_error);
        continue;
      }
      REQUIRE(row.relative_error);
      if (row.method == "ridders")
        CHECK(*row.relative_error <= 1e-9);
      else if (row.status == "exact" || row.status == "converged")
        CHECK(*row.relative_error <= 1e-10);
      else if (row.method == "truncated")
        CHECK(row.status == "approximate (zero by construction before the last steps)");
      else
        CHECK(row.status == "approximate");
    }
    for (const char* method : {"unrolled", "checkpointed", "trajectory", "forward", "implicit-cg",
                               "implicit-dense", "implicit-normal-cg"})
      CHECK(error_of(comparison, method) <= 1e-10);
    // More terms are better, momentum helps, and a run truncated to a step more is the plain series.
    double last = error_of(comparison, "t1-t2");
    for (const char* terms : {"1", "5", "20", "100"}) {
      const std::string series = std::string(terms) + (terms == std::string("1") ? " term, " : " terms, ");
      const double plain = error_of(comparison, "implicit-neumann", series);
      INFO(name_of(kind), " ", terms);
      CHECK(plain <= last);
      CHECK(plain < 1.0);
      last = plain;
    }
    for (const auto& [terms, steps] :
         {std::pair("1 term", "2 steps"), std::pair("5 terms", "6 steps"), std::pair("20 terms", "21 steps")})
      CHECK(error_of(comparison, "truncated", steps) ==
            doctest::Approx(error_of(comparison, "implicit-neumann", terms)).epsilon(1e-9));
    double plain = 0.0, accelerated = 0.0;
    for (const ComparisonRow& row : comparison.rows)
      if (row.method == "implicit-neumann" && row.setting.starts_with("20 terms"))
        (contains(row.setting, "momentum") ? accelerated : plain) = *row.relative_error;
    CHECK(accelerated < 0.5 * plain);
    CHECK(error_of(comparison, "darts") == doctest::Approx(error_of(comparison, "t1-t2")).epsilon(1e-3));
  }
}

TEST_CASE("closed problems: a run that is too short shows as an error, and implicit methods say so") {
  const Comparison comparison = compare(ProblemKind::regression, 3);
  CHECK(comparison.steps == 3);
  CHECK(error_of(comparison, "unrolled") > 1e-3);
  for (const ComparisonRow& row : comparison.rows)
    if (row.method == "implicit-cg") CHECK(row.status.starts_with("not converged ("));
}

TEST_CASE(
    "closed problems: where real training does not depend on h at all, Ridders says how wrong that is") {
  // One step from 0: the penalty's gradient is 0 there.
  const Comparison comparison = compare(ProblemKind::ridge, 1);
  CHECK(error_of(comparison, "ridders") == 1.0);
  CHECK(comparison.rows.front().status == "approximate (to 0)");
}

TEST_CASE("closed problems: all methods run without being asked for, with all their settings") {
  const Comparison comparison = compare(ProblemKind::ridge);
  for (const char* method : hypertape::method_names)
    CHECK(std::any_of(comparison.rows.begin(), comparison.rows.end(),
                      [&](const ComparisonRow& row) { return row.method == method; }));
  CHECK(comparison.rows.size() == 25);
}

TEST_CASE("closed problems: a net has none") {
  CHECK(contains(thrown([] { hypertape::make_closed_problem(ProblemKind::net, 0); }), "no closed form"));
}
