// What implicit methods say of a result: statuses, availability, and errors where nobody reads them.
#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "implicit_problems.h"
#include "ladder.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using namespace implicit_problems;
using bilevel_problems::relative_error;
using ht::NamedTensors;
using ht::Tensor;
using ht::TensorList;
using ht::bilevel::Availability;
using ht::bilevel::Estimator;
using ht::bilevel::Hypergradient;
using ht::bilevel::ImplicitCg;
using ht::bilevel::ImplicitDense;
using ht::bilevel::ImplicitNeumann;
using ht::bilevel::ImplicitNormalCg;
using ht::bilevel::ResultStatus;
using ht::bilevel::T1T2;
using ht::bilevel::Truncated;

}  // namespace

TEST_CASE("implicit: statuses name what went wrong") {
  const Known flat = saddle();
  // At a saddle point CG stops; the normal equations and the factorisation do not care.
  const Hypergradient stopped = flat.problem.by(ImplicitCg{});
  CHECK(stopped.status == ResultStatus::negative_curvature);
  expect_text(stopped.message, "negative curvature");
  const Hypergradient around = flat.problem.by(ImplicitNormalCg{});
  CHECK(relative_error(around.gradients, flat.gradients) < 1e-10);
  CHECK(around.status == ResultStatus::negative_curvature);
  expect_text(around.message, "no minimum");
  const Hypergradient dense = flat.problem.by(ImplicitDense{});
  CHECK(relative_error(dense.gradients, flat.gradients) < 1e-12);
  CHECK(dense.status == ResultStatus::negative_curvature);

  const Known known = quadratic();
  const Hypergradient unstable = known.problem.by(ImplicitNeumann{.terms = 30, .rate = 2.0});
  CHECK(unstable.status == ResultStatus::unstable_series);
  // Away from the minimum too, what the linear system adds to that is said.
  const Hypergradient both = quadratic(1.0, 3).problem.by(ImplicitNeumann{.terms = 30, .rate = 2.0});
  CHECK(both.status == ResultStatus::not_converged);
  expect_text(both.message, "not at its minimum");
  expect_text(both.message, "; the series grows");
  const Hypergradient one_term = quadratic(1.0, 3).problem.by(ImplicitNeumann{.terms = 1, .rate = 0.01});
  expect_text(one_term.setting, "1 term, rate 0.01");
  CHECK(one_term.message.find(';') == std::string::npos);
  expect_text(unstable.message, "too large for the largest eigenvalue");
  CHECK(known.problem.by(ImplicitNeumann{.terms = 1, .rate = 2.0}).status == ResultStatus::unstable_series);
  CHECK(known.problem.by(ImplicitNeumann{.terms = 3000, .rate = 2.0}).status != ResultStatus::diverged);
  const Hypergradient upward = flat.problem.by(ImplicitNeumann{.terms = 60, .rate = 0.5});
  CHECK(upward.status == ResultStatus::unstable_series);
  expect_text(upward.message, "negative curvature");
  const Hypergradient damped = known.problem.by(ImplicitCg{.damping = 1.0});
  CHECK(damped.status == ResultStatus::approximate);
  expect_text(damped.message, "damped");
  const Hypergradient short_of = known.problem.by(ImplicitCg{.iterations = 2});
  CHECK(short_of.status == ResultStatus::not_converged);
  expect_text(short_of.message, "2 iterations");
  CHECK(short_of.linear_iterations == 2);
  const Hypergradient early = quadratic(1.0, 3).problem.by(ImplicitCg{});
  CHECK(early.status == ResultStatus::not_converged);
  expect_text(early.message, "not at its minimum");
  CHECK(early.inner_residual > 1e-3);
  // Whatever the loss's scale, and however steep the start was.
  CHECK(quadratic(1e-9, 3).problem.by(ImplicitCg{}).status == ResultStatus::not_converged);
  CHECK(quadratic(1e9, 3).problem.by(ImplicitCg{}).status == ResultStatus::not_converged);
  for (const double start : {0.0, 1e-9}) {
    Case steep;
    steep.h = {{"h", Tensor::scalar(2.0)}};
    steep.problem.init = [=](const NamedTensors&) { return NamedTensors{{"w", Tensor::scalar(start)}}; };
    steep.problem.full_loss = [](const NamedTensors& w, const NamedTensors& h) {
      return w["w"] - h["h"] * ht::log(w["w"]);  // w* = h
    };
    steep.outer = [](const NamedTensors& w, const NamedTensors&) { return ht::square(w["w"]); };
    steep.problem.solver = [](const NamedTensors&, const NamedTensors&) {
      return NamedTensors{{"w", Tensor::scalar(1.0)}};
    };
    CHECK(steep.by(ImplicitCg{}).status == ResultStatus::not_converged);
    steep.problem.solver = [](const NamedTensors&, const NamedTensors& h) {
      return NamedTensors{{"w", h["h"]}};
    };
    CHECK(steep.by(ImplicitCg{}).status == ResultStatus::converged);
    CHECK(steep.by(ImplicitCg{}).gradients["h"].item() == doctest::Approx(4.0).epsilon(1e-12));
  }
  // Without hypergradient() nobody reads a status: the pullback refuses to hand out a wrong number.
  const auto pull = [&](const Estimator& method, const Case& problem) {
    return thrown([&] {
      ht::grad([&](const TensorList& h) { return outer_of(problem, method, h); }, problem.h.tensors());
    });
  };
  expect_text(pull(ImplicitCg{}, flat.problem), "negative curvature");
  expect_text(pull(ImplicitCg{.iterations = 2}, known.problem), "not converged");
  expect_text(pull(ImplicitCg{}, quadratic(1.0, 3).problem), "not at its minimum");
  CHECK(pull(ImplicitCg{.inner_tolerance = 1.0}, quadratic(1.0, 3).problem) == "nothing thrown");
  expect_text(pull(ImplicitNeumann{.terms = 30, .rate = 2.0}, known.problem), "diverging");
  CHECK(pull(ImplicitNeumann{.terms = 3, .rate = 0.4}, known.problem) == "nothing thrown");
}

TEST_CASE("implicit: a second-order solve that fails after the result was returned is an error") {
  // F_w is an eigenvector, so that one iteration solves the first system; the second one has other right-hand
  // sides.
  const Tensor diagonal = Tensor::from({1.0, 3.0, 0.2});
  Case problem;
  problem.h = {{"h", Tensor::from({0.5, 0.4, 0.3})}};
  problem.problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::ones({3})}}; };
  problem.problem.full_loss = [=](const NamedTensors& w, const NamedTensors& h) {
    return 0.5 * ht::dot(diagonal, ht::square(w["w"] - h["h"])) +
           0.05 * ht::square(ht::dot(w["w"] - h["h"], h["h"]));
  };
  problem.problem.solver = [](const NamedTensors&, const NamedTensors& h) {
    return NamedTensors{{"w", h["h"]}};
  };
  problem.outer = [](const NamedTensors& w, const NamedTensors&) { return ht::sum(ht::exp(w["w"])); };
  const auto slope = [&](std::int64_t iterations) {
    return [&, iterations](const TensorList& h) {
      Case there = problem;
      there.h = problem.h.with(h);
      const Hypergradient result = there.by(ImplicitCg{.iterations = iterations});
      return ht::sum(result.gradients["h"]);
    };
  };
  expect_text(thrown([&] { ht::grad(slope(1), problem.h.tensors()); }), "[implicit-cg]");
  // F = sum exp(h): its Hessian is diagonal.
  const std::vector<double> hessian = ladder::elements(ht::grad(slope(50), problem.h.tensors())[0]),
                            h = ladder::elements(problem.h["h"]);
  for (std::size_t i = 0; i < 3; ++i) CHECK(hessian[i] == doctest::Approx(std::exp(h[i])).epsilon(1e-10));
}

TEST_CASE("implicit: steps that training never takes do not fail a result") {
  // The first steps' weights are outside the domain that the last steps' loss needs.
  Case problem = quadratic().problem;
  problem.problem.loss = [loss = problem.problem.loss](const NamedTensors& w, const NamedTensors& h,
                                                       const ht::bilevel::StepContext& context) {
    const Tensor plain = loss(w, h, context);
    if (context.step < 20) return plain;
    return plain + 0.0 * ht::sum(ht::log(ht::square(w["first"])));
  };
  CHECK(problem.by(ImplicitCg{}).status == ResultStatus::converged);
  CHECK(problem.by(Truncated{50}).status == ResultStatus::approximate);
}

TEST_CASE("implicit: an outer loss that ignores the parameters leaves the direct term alone") {
  Case problem = quadratic().problem;
  problem.outer = [](const NamedTensors&, const NamedTensors& h) { return ht::sum(ht::square(h["shift"])); };
  const Hypergradient result = problem.by(ImplicitCg{});
  CHECK(result.availability == std::vector<Availability>{Availability::defined, Availability::unused});
  CHECK(ladder::difference({result.gradients["shift"]}, {2.0 * problem.h["shift"]}) == 0.0);
}

TEST_CASE("implicit: tiny outer losses keep their hypergradient") {
  const Known known = quadratic();
  Case tiny = known.problem;
  tiny.outer = [outer = known.problem.outer](const NamedTensors& w, const NamedTensors& h) {
    return 1e-170 * outer(w, h);
  };
  for (const Solver& solver : solvers(5)) {
    const Hypergradient result = tiny.by(solver.method);
    Gradients scaled = known.gradients;
    for (auto& group : scaled)
      for (double& each : group) each *= 1e-170;
    const std::vector<double> found = ladder::elements(result.gradients["log_diagonal"]);
    for (std::size_t i = 0; i < found.size(); ++i)
      CHECK(found[i] / scaled[1][i] == doctest::Approx(1.0).epsilon(1e-9));
    CHECK(result.status == ResultStatus::converged);
  }
}

TEST_CASE("implicit: defined only where the hyperparameter is in the inner loss, told from the graph") {
  Known known = quadratic();
  Case problem = known.problem;
  problem.h.add("log_rate", Tensor::scalar(std::log(0.4)));
  problem.h.add("start", Tensor::zeros({3}));
  problem.h.add("outer only", Tensor::scalar(0.5));
  problem.h.add("start and outer", Tensor::zeros({2}));
  problem.h.add("apart", Tensor::scalar(2.0));
  problem.h.add("nothing", Tensor::scalar(1.0));
  problem.problem.prepare = [](const NamedTensors& h) { return h.with("log_rate", ht::exp(h["log_rate"])); };
  problem.problem.step = ht::optim::sgd({.rate = "log_rate"});
  problem.problem.init = [](const NamedTensors& h) {
    return NamedTensors{{"first", h["start"]}, {"second", h["start and outer"]}};
  };
  problem.problem.full_loss = [inner = problem.problem.full_loss](const NamedTensors& w,
                                                                  const NamedTensors& h) {
    return inner(w, h) + ht::square(h["apart"]);
  };
  problem.outer = [outer = problem.outer](const NamedTensors& w, const NamedTensors& h) {
    return outer(w, h) + ht::square(h["outer only"]) + ht::sum(h["start and outer"]);
  };
  for (const Estimator& method :
       {Estimator(ImplicitCg{}), Estimator(ImplicitNormalCg{}), Estimator(ImplicitDense{}),
        Estimator(ImplicitNeumann{.rate = 0.3}), Estimator(T1T2{}), Estimator(ht::bilevel::Darts{})}) {
    CAPTURE(method.name());
    const Hypergradient result = problem.by(method);
    const std::vector<Availability> expected = {Availability::defined,
                                                Availability::defined,
                                                Availability::not_defined,
                                                Availability::not_defined,
                                                Availability::defined,
                                                Availability::not_defined,
                                                Availability::zero_by_construction,
                                                Availability::unused};
    CHECK(result.availability == expected);
    CHECK(result.gradients["outer only"].item() == 1.0);
    for (const char* name : {"log_rate", "start", "start and outer", "apart", "nothing"})
      CHECK(!result.gradients[name].defined());
    CHECK(result.unused() == std::vector<std::string>{"nothing"});
  }
  CHECK(relative_error(NamedTensors{{"shift", problem.by(ImplicitCg{}).gradients["shift"]}},
                       {known.gradients[0]}) < 1e-10);
}

TEST_CASE("implicit: a zero outer gradient gives zeros that are a solution, not a silence") {
  Known known = quadratic();
  known.problem.outer = [](const NamedTensors& w, const NamedTensors&) { return 0.0 * ht::sum(w["first"]); };
  for (const Solver& solver : solvers(5)) {
    const Hypergradient result = known.problem.by(solver.method);
    CHECK(result.status == ResultStatus::converged);
    CHECK(result.availability[0] == Availability::defined);
    CHECK(ladder::norm(result.gradients.tensors()) == 0.0);
  }
  CHECK(ladder::norm(known.problem.by(ht::bilevel::Darts{}).gradients.tensors()) == 0.0);
}
