// Joint algorithms against the solution of the bilevel problem, known in closed form.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/joint.h>
#include <hypertape/core/random.h>
#include "dense.h"
#include "ladder.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using dense::Matrix;
using dense::Real;
using dense::Vector;
using ht::NamedTensors;
using ht::Tensor;
using ht::bilevel::JointAlgorithm;
using ht::bilevel::JointProblem;
using ht::bilevel::JointState;
using ht::bilevel::StepContext;

// f = 1/2 w'Aw - w'Bh + noise w'z_t;  F = 1/2 |w - c|^2 + 0.1/2 |h|^2 + noise (w + u)'z_t.
struct Quadratic {
  Tensor a =
      ht::matmul(ladder::sample({4, 4}, -1.0, 1.0, 1), ladder::sample({4, 4}, -1.0, 1.0, 1), true, false) +
      Tensor::from({0.6, 0.0, 0.0, 0.0, 0.0, 0.6, 0.0, 0.0, 0.0, 0.0, 0.6, 0.0, 0.0, 0.0, 0.0, 0.6}, {4, 4});
  Tensor b = ladder::sample({4, 2}, -1.0, 1.0, 2), c = ladder::sample({4}, -1.0, 1.0, 3);
  NamedTensors h = {{"h", Tensor::from({0.5, -0.8})}};

  JointProblem problem(double noise = 0.0) const {
    JointProblem result;
    result.seed = 5;
    result.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::zeros({4})}}; };
    const auto push = [=](const Tensor& w, const StepContext& context) {
      return noise * ht::dot(w, ht::random({4}, ht::Distribution::normal, context.key));
    };
    result.inner = [=, *this](const NamedTensors& w, const NamedTensors& hyper, const StepContext& context) {
      const Tensor& x = w["w"];
      return 0.5 * ht::dot(x, ht::matmul(a, x)) - ht::dot(x, ht::matmul(b, hyper["h"])) + push(x, context);
    };
    result.outer = [=, *this](const NamedTensors& w, const NamedTensors& hyper, const StepContext& context) {
      return 0.5 * ht::sum(ht::square(w["w"] - c)) + 0.05 * ht::sum(ht::square(hyper["h"])) +
             push(w["w"], context);
    };
    return result;
  }

  // (J'J + 0.1 I) h = J'c with J = A^-1 B; w = J h; v = -A^-1 (w - c).
  struct Solution {
    std::vector<double> w, v, h;
  };
  Solution solution() const {
    const Matrix A = dense::matrix(ladder::elements(a), 4, 4), B = dense::matrix(ladder::elements(b), 4, 2);
    Matrix J(4, 2);
    for (std::size_t k = 0; k < 2; ++k) {
      Vector column(4);
      for (std::size_t i = 0; i < 4; ++i) column[i] = B(i, k);
      column = dense::solve(A, column);
      for (std::size_t i = 0; i < 4; ++i) J(i, k) = column[i];
    }
    Matrix normal = dense::gram(J, Vector(4, 1.0L));
    for (std::size_t k = 0; k < 2; ++k) normal(k, k) += 0.1L;
    const Vector target = dense::widened(ladder::elements(c));
    const Vector best = dense::solve(normal, dense::transposed_times(J, target));
    const Vector w = dense::times(J, best);
    Vector v = dense::solve(A, dense::sum(w, target, -1.0L));
    for (Real& each : v) each = -each;
    return {dense::narrowed(w), dense::narrowed(v), dense::narrowed(best)};
  }
};

double distance(const Tensor& x, const std::vector<double>& y) {
  const std::vector<double> values = ladder::elements(x);
  double sum = 0.0;
  for (std::size_t i = 0; i < y.size(); ++i) sum += (values[i] - y[i]) * (values[i] - y[i]);
  return std::sqrt(sum);
}

JointState run(const JointAlgorithm& algorithm, const JointProblem& problem, JointState state, int steps) {
  for (int t = 0; t < steps; ++t) state = algorithm.step(problem, state);
  return state;
}

}  // namespace

TEST_CASE("soba: full batches converge to the solution of the bilevel problem") {
  const Quadratic quadratic;
  const JointProblem problem = quadratic.problem();
  const JointAlgorithm soba = ht::bilevel::soba({.inner_rate = 0.3, .linear_rate = 0.3, .outer_rate = 0.05});
  const Quadratic::Solution exact = quadratic.solution();
  const JointState state = run(soba, problem, soba.init(problem, quadratic.h), 4000);
  CHECK(distance(state.hyperparameters["h"], exact.h) < 1e-10);
  CHECK(distance(state.parameters["w"], exact.w) < 1e-10);
  CHECK(distance(state.adjoint["w"], exact.v) < 1e-10);
  CHECK(state.hypergradient < 1e-10);
  CHECK(state.linear_residual < 1e-10);
  CHECK(state.step == 4000);
}

TEST_CASE("soba: one step is the formula, all three directions from the same state") {
  const Quadratic quadratic;
  const JointProblem problem = quadratic.problem();
  JointState state;
  state.parameters = {{"w", ladder::sample({4}, -1.0, 1.0, 7)}};
  state.adjoint = {{"w", ladder::sample({4}, -1.0, 1.0, 8)}};
  state.hyperparameters = quadratic.h;
  state.step = 3;
  const JointState next =
      ht::bilevel::soba({.inner_rate = 0.2, .linear_rate = 0.3, .outer_rate = 0.04, .decay = 0.5})
          .step(problem, state);
  const Matrix A = dense::matrix(ladder::elements(quadratic.a), 4, 4),
               B = dense::matrix(ladder::elements(quadratic.b), 4, 2);
  const Vector w = dense::widened(ladder::elements(state.parameters["w"])),
               v = dense::widened(ladder::elements(state.adjoint["w"])),
               h = dense::widened(ladder::elements(quadratic.h["h"])),
               c = dense::widened(ladder::elements(quadratic.c));
  const Vector inner = dense::sum(dense::times(A, w), dense::times(B, h), -1.0L);
  const Vector system = dense::sum(dense::times(A, v), dense::sum(w, c, -1.0L));
  Vector hyper = dense::transposed_times(B, v);
  for (std::size_t k = 0; k < 2; ++k) hyper[k] = 0.1L * h[k] - hyper[k];
  const Real half = 0.5L;  // (3 + 1)^-0.5
  CHECK(distance(next.parameters["w"], dense::narrowed(dense::sum(w, inner, -0.2L * half))) < 1e-15);
  CHECK(distance(next.adjoint["w"], dense::narrowed(dense::sum(v, system, -0.3L * half))) < 1e-15);
  CHECK(distance(next.hyperparameters["h"], dense::narrowed(dense::sum(h, hyper, -0.04L * half))) < 1e-15);
  CHECK(next.inner_gradient == doctest::Approx(static_cast<double>(std::sqrt(dense::dot(inner, inner)))));
  CHECK(next.linear_residual == doctest::Approx(static_cast<double>(std::sqrt(dense::dot(system, system)))));
  CHECK(next.hypergradient == doctest::Approx(static_cast<double>(std::sqrt(dense::dot(hyper, hyper)))));
  CHECK(next.step == 4);
}

TEST_CASE("soba: with noise and falling rates the error falls, and a run replays from any state") {
  const Quadratic quadratic;
  const JointProblem problem = quadratic.problem(0.3);
  const JointAlgorithm soba =
      ht::bilevel::soba({.inner_rate = 0.3, .linear_rate = 0.3, .outer_rate = 0.15, .decay = 0.5});
  const Quadratic::Solution exact = quadratic.solution();
  const JointState start = soba.init(problem, quadratic.h);
  const JointState early = run(soba, problem, start, 200);
  const JointState late = run(soba, problem, early, 7800);
  CHECK(distance(early.hyperparameters["h"], exact.h) < 0.5 * distance(quadratic.h["h"], exact.h));
  CHECK(distance(late.hyperparameters["h"], exact.h) < 0.1 * distance(quadratic.h["h"], exact.h));
  const JointState again = run(soba, problem, run(soba, problem, start, 120), 80);
  CHECK(ladder::same_bits(again.hyperparameters.tensors(), early.hyperparameters.tensors()));
  CHECK(ladder::same_bits(again.adjoint.tensors(), early.adjoint.tensors()));
  // Another seed is another path: the noise is really there.
  JointProblem other = problem;
  other.seed = 6;
  CHECK(!ladder::same_bits(run(soba, other, start, 5).parameters.tensors(),
                           run(soba, problem, start, 5).parameters.tensors()));
}

TEST_CASE("soba: bad options, problems and divergence are named") {
  const Quadratic quadratic;
  const JointProblem problem = quadratic.problem();
  expect_text(thrown([] { ht::bilevel::soba({.inner_rate = 0.0}); }), "[soba] a rate is 0");
  expect_text(thrown([] { ht::bilevel::soba({.decay = -1.0}); }), "[soba] decay is -1");
  const JointAlgorithm soba = ht::bilevel::soba();
  const auto without = [&](auto member) {
    JointProblem lacking = problem;
    lacking.*member = {};
    return thrown([&] { soba.init(lacking, quadratic.h); });
  };
  expect_text(without(&JointProblem::init), "no init");
  expect_text(without(&JointProblem::inner), "no inner loss");
  expect_text(without(&JointProblem::outer), "no outer loss");
  NamedTensors more = quadratic.h;
  more.add("unused", Tensor::scalar(1.0));
  expect_text(thrown([&] { soba.step(problem, soba.init(problem, more)); }),
              "hyperparameter 'unused' has no path");
  const auto altered = [&](const NamedTensors& adjoint) {
    JointState state = soba.init(problem, quadratic.h);
    state.adjoint = adjoint;
    return thrown([&] { soba.step(problem, state); });
  };
  expect_text(altered({}), "adjoint must have the names");
  expect_text(altered({{"w", Tensor::zeros({4})}, {"more", Tensor::zeros({2})}}),
              "adjoint must have the names");
  expect_text(altered({{"w", Tensor::zeros({3})}}), "adjoint of parameter 'w'");
  const JointAlgorithm wild = ht::bilevel::soba({.inner_rate = 1e200, .outer_rate = 1e200});
  expect_text(thrown([&] { run(wild, problem, wild.init(problem, quadratic.h), 10); }), "not finite at step");
}
