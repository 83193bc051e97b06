// Implicit methods against closed forms, through the mutation gate.
#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "implicit_problems.h"
#include "ladder.h"
#include "mutation_gate.h"
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
using ht::bilevel::Unrolled;

void expect_exact(const Known& known, std::int64_t unknowns, double tolerance = 1e-10) {
  CAPTURE(known.problem.name);
  for (const Solver& solver : solvers(unknowns)) {
    CAPTURE(solver.method.name());
    const Hypergradient result = mutation_gate::expect_gated(
        known.problem, solver.method,
        [&](const Hypergradient& r) { return relative_error(r.gradients, known.gradients) < tolerance; },
        [&] { return known.problem.by(solver.halfway); });
    CAPTURE(relative_error(result.gradients, known.gradients));
    CHECK(result.value == doctest::Approx(known.value).epsilon(1e-11));
    CHECK(result.status == ResultStatus::converged);
    CHECK(result.message.empty());
    CHECK(result.inner_residual < 1e-12);
    REQUIRE(!result.linear_residuals.empty());
    CHECK(result.linear_residuals.back() < 1e-11);
    // Two for the inner residual, one for the mixed product, and the solver's own.
    const std::int64_t own = result.cost.hessian_vector_products - 3;
    if (solver.method.name() == "implicit-cg") CHECK(own == result.linear_iterations + 1);
    if (solver.method.name() == "implicit-normal-cg") CHECK(own == 2 * result.linear_iterations + 1);
    if (solver.method.name() == "implicit-dense") {
      std::int64_t parameters = 0;
      for (const Tensor& w : result.parameters.tensors()) parameters += w.size();
      CHECK(own == parameters + 1);
    }
    // The run's, those of the residual (the gradient, and one recorded) and one recorded for the system.
    const std::int64_t steps = known.problem.problem.solver ? 0 : known.problem.problem.steps;
    CHECK(result.cost.gradients == steps + 3);
    for (const Availability each : result.availability) CHECK(each == Availability::defined);
  }
}

}  // namespace

TEST_CASE("implicit: quadratic bilevel with all matrices known") { expect_exact(quadratic(), 5); }
TEST_CASE("implicit: ridge regression") { expect_exact(ridge(), 4); }
TEST_CASE("implicit: leave-one-out ridge is PRESS") { expect_exact(press(), 4); }
TEST_CASE("implicit: iMAML on linear regression") { expect_exact(meta_regression(), 3); }
TEST_CASE("implicit: logistic regression against a dense Hessian, w* by a solver of another kind") {
  expect_exact(logistic(), 4);
}

TEST_CASE("implicit: scalar fixed points found by bisection, which nothing can differentiate") {
  for (const double h : {0.8, -0.6}) {
    Case problem = bilevel_problems::fixed_point(h, 0.3, 120);
    const bilevel_problems::Exact exact = bilevel_problems::fixed_point_exact(h, 0.3);
    problem.problem.full_loss = [loss = problem.problem.loss](const NamedTensors& w,
                                                              const NamedTensors& all) {
      return loss(w, all, {});
    };
    int asked = 0;
    problem.problem.solver = [&asked](const NamedTensors&, const NamedTensors& all) {
      ++asked;
      const double w = bilevel_problems::fixed_point_exact(all["h"].item(), all["c"].item()).parameters[0];
      return NamedTensors{{"w", Tensor::full({1}, w)}};
    };
    for (const Estimator& method :
         {Estimator(ImplicitCg{}), Estimator(ImplicitNormalCg{}), Estimator(ImplicitDense{})}) {
      // One unknown: there is no half of the work; the series' first term stands in.
      const Hypergradient result = mutation_gate::expect_gated(
          problem, method,
          [&](const Hypergradient& r) { return relative_error(r.gradients, exact.gradients) < 1e-10; },
          [&] { return problem.by(T1T2{.rate = 0.9}); });
      CHECK(result.status == ResultStatus::converged);
    }
    CHECK(asked > 0);
    // Rank-0 parameters, where others return zero.
    Case scalar = problem;
    scalar.problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::scalar(0.9)}}; };
    scalar.problem.solver = [](const NamedTensors&, const NamedTensors& all) {
      const double w = bilevel_problems::fixed_point_exact(all["h"].item(), all["c"].item()).parameters[0];
      return NamedTensors{{"w", Tensor::scalar(w)}};
    };
    CHECK(relative_error(scalar.by(ImplicitCg{}).gradients, exact.gradients) < 1e-10);
  }
}

TEST_CASE("implicit: the scale of the inner loss cancels") {
  for (const double scale : {1e-3, 1e3}) {
    const Known known = quadratic(scale);
    for (const Solver& solver : solvers(5))
      CHECK(relative_error(known.problem.by(solver.method).gradients, known.gradients) < 1e-10);
  }
}

TEST_CASE("implicit: second and third derivatives of ridge in lambda") {
  const Known known = ridge();
  const TensorList lambda = known.problem.h.tensors(), one = {Tensor::scalar(1.0)};
  for (const Solver& solver : solvers(4)) {
    CAPTURE(solver.method.name());
    const auto outer = [&](const TensorList& h) { return outer_of(known.problem, solver.method, h); };
    const auto first = [&](const TensorList& h) { return ht::grad(outer, h)[0]; };
    const auto second = [&](const TensorList& h) { return ht::grad(first, h)[0]; };
    CHECK(first(lambda).item() == doctest::Approx(known.gradients[0][0]).epsilon(1e-11));
    CHECK(second(lambda).item() == doctest::Approx(known.second).epsilon(1e-10));
    CHECK(ht::grad(second, lambda)[0].item() == doctest::Approx(known.third).epsilon(1e-10));
    // The other routes: tangents through the solve, through its pullback, and through both.
    CHECK(ht::jvp(outer, lambda, one).second.item() == doctest::Approx(known.gradients[0][0]).epsilon(1e-11));
    CHECK(ht::hvp(outer, lambda, one)[0].item() == doctest::Approx(known.second).epsilon(1e-10));
    const auto pushed = [&](const TensorList& h) { return ht::jvp(outer, h, one).second; };
    CHECK(ht::grad(pushed, lambda)[0].item() == doctest::Approx(known.second).epsilon(1e-10));
    CHECK(ht::jvp(pushed, lambda, one).second.item() == doctest::Approx(known.second).epsilon(1e-10));
    CHECK(ht::jvp(second, lambda, one).second.item() == doctest::Approx(known.third).epsilon(1e-10));
  }
}

TEST_CASE("implicit: mixed second derivatives agree by all routes where the Hessian depends on h") {
  for (const Known& known : {quadratic(), meta_regression(), logistic()}) {
    CAPTURE(known.problem.name);
    const NamedTensors u = bilevel_problems::random_direction(known.problem.h, 7);
    const NamedTensors v = bilevel_problems::random_direction(known.problem.h, 8);
    const auto by = [&](const Estimator& method) {
      return [&, method](const TensorList& h) { return outer_of(known.problem, method, h); };
    };
    const auto objective = by(ImplicitCg{});
    const TensorList hu = ht::hvp(objective, known.problem.h.tensors(), u.tensors()),
                     hv = ht::hvp(objective, known.problem.h.tensors(), v.tensors());
    const double uhv = ladder::pairing(u.tensors(), hv), size = ladder::norm(hv) * ladder::norm(u.tensors());
    CHECK(std::abs(uhv - ladder::pairing(v.tensors(), hu)) < 1e-10 * size);
    const auto slope = [&](const TensorList& h) {
      Tensor total;
      const TensorList g = ht::grad(objective, h);
      for (std::size_t i = 0; i < g.size(); ++i) {
        const Tensor part = ht::dot(g[i], v.tensors()[i]);
        total = total.defined() ? total + part : part;
      }
      return total;
    };
    CHECK(ladder::difference(ht::grad(slope, known.problem.h.tensors()), hv) < 1e-9 * ladder::norm(hv));
    // The analytic first derivative, differenced.
    const auto along = [&](double s) {
      TensorList moved;
      for (std::size_t i = 0; i < u.size(); ++i)
        moved.push_back(known.problem.h.tensors()[i] + s * v.tensors()[i]);
      Case there = known.problem;
      there.h = known.problem.h.with(moved);
      return ladder::pairing(there.by(ImplicitDense{}).gradients.tensors(), u.tensors());
    };
    CHECK(std::abs(ladder::ridders(along, 0.02) - uhv) < 1e-7 * size);
  }
}

TEST_CASE("implicit: K Neumann terms are K + 1 truncated steps of gradient descent") {
  // Plain SGD, constant rate, full batch, at a minimum to 1e-12.
  const double rate = 0.4;
  const Known known = quadratic();
  for (const std::int64_t terms : {0, 1, 5, 20}) {
    CAPTURE(terms);
    const Hypergradient series = known.problem.by(ImplicitNeumann{.terms = terms, .rate = rate});
    const Hypergradient cut = known.problem.by(Truncated{terms + 1});
    CHECK(relative_error(series.gradients, cut.gradients) < 1e-12);
    CHECK(series.inner_residual < 1e-12);
    CHECK(series.status == ResultStatus::approximate);
    CHECK(cut.status == ResultStatus::approximate);
    CHECK(series.linear_iterations == terms);
    // Off by one in either would not pass.
    CHECK(relative_error(series.gradients, known.problem.by(Truncated{terms + 2}).gradients) > 1e-9);
  }
  CHECK(relative_error(known.problem.by(ImplicitNeumann{.terms = 400, .rate = rate}).gradients,
                       known.gradients) < 1e-10);
}

TEST_CASE("implicit: a series is its dense formula, with and without momentum, its first term included") {
  const double rate = 0.35, momentum = 0.4;
  const Known known = ridge();
  const auto terms_of = [&](std::int64_t terms, double m) {
    return ImplicitNeumann{.terms = terms, .rate = rate, .momentum = m};
  };
  // On ridge the mixed product with w is linear: the series in the eigenbasis of a 1 x 1 problem.
  Case scalar;
  scalar.name = "one weight";
  const double curvature = 0.9, h = 0.7;
  scalar.h = {{"h", Tensor::scalar(h)}};
  scalar.problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::scalar(0.0)}}; };
  scalar.problem.full_loss = [=](const NamedTensors& w, const NamedTensors& all) {
    return 0.5 * curvature * ht::square(w["w"]) - w["w"] * ht::square(all["h"]);
  };
  scalar.problem.solver = [=](const NamedTensors&, const NamedTensors& all) {
    return NamedTensors{{"w", ht::square(all["h"]) / curvature}};
  };
  scalar.outer = [](const NamedTensors& w, const NamedTensors&) { return ht::square(w["w"]); };
  const double w = h * h / curvature, u = 2.0 * w;
  for (const double m : {0.0, momentum})
    for (const std::int64_t terms : {0, 1, 2, 7}) {
      double x = rate * u, d = x;
      for (std::int64_t k = 0; k < terms; ++k) {
        d = m * d + rate * (u - curvature * x);
        x += d;
      }
      const Gradients expected = {{2.0 * h * x}};
      const Gradients first = {{2.0 * h * rate * u}};
      mutation_gate::expect_gated(
          scalar, terms_of(terms, m),
          [&](const Hypergradient& r) { return relative_error(r.gradients, expected) < 1e-13; },
          [&] {  // the series without its first term
            Hypergradient less = scalar.by(terms_of(terms, m));
            less.gradients = less.gradients.with({less.gradients.tensors()[0] - first[0][0]});
            return less;
          });
    }
  // Momentum converges faster where plain is slow.
  const auto error = [&](double m) {
    return relative_error(known.problem.by(terms_of(20, m)).gradients, known.gradients);
  };
  CHECK(error(0.4) < 0.2 * error(0.0));
  // Its second derivative is the derivative of the series itself.
  const auto slope = [&](const Estimator& method) {
    const auto outer = [&, method](const TensorList& x) { return outer_of(scalar, method, x); };
    const auto gradient = [&](const TensorList& x) { return ht::grad(outer, x)[0]; };
    return ht::grad(gradient, scalar.h.tensors())[0].item();
  };
  const auto gradient_at = [&](double s) {
    Case there = scalar;
    there.h = {{"h", Tensor::scalar(h + s)}};
    return there.by(terms_of(30, 0.0)).gradients.tensors()[0].item();
  };
  CHECK(slope(terms_of(60, 0.0)) == doctest::Approx(ladder::ridders(gradient_at, 0.01)).epsilon(1e-4));
  CHECK(slope(terms_of(200, 0.0)) ==
        doctest::Approx(4.0 * 3.0 * h * h / curvature / curvature).epsilon(1e-9));
}

TEST_CASE("implicit: T1-T2 is the mixed product, DARTS its finite difference") {
  // A quartic penalty, whose mixed product is not linear in w; the formulas hold at any w.
  Known known = logistic();
  known.problem.problem.full_loss = [](const NamedTensors& w, const NamedTensors& h) {
    return ht::sum(ht::tanh(w["w"])) + ht::dot(ht::exp(h["l"]), ht::square(ht::square(w["w"])));
  };
  const double rate = 0.25;
  const Hypergradient one_step = known.problem.by(T1T2{.rate = rate});
  CHECK(one_step.status == ResultStatus::approximate);
  // F_h - rate f_hw F_w, from plain derivatives at w*.
  const TensorList w = one_step.parameters.tensors();
  const TensorList outer = ht::grad(
      [&](const TensorList& x) { return known.problem.outer(one_step.parameters.with(x), known.problem.h); },
      w);
  const auto inner_by_h = [&](const Tensor& at) {
    return ht::grad(
        [&](const TensorList& h) {
          return known.problem.problem.full_loss(one_step.parameters.with({at}), known.problem.h.with(h));
        },
        known.problem.h.tensors())[0];
  };
  const auto along = [&](double e) { return inner_by_h(w[0] + e * outer[0]); };
  std::vector<double> expected;
  for (std::int64_t i = 0; i < 4; ++i)
    expected.push_back(
        -rate * ladder::ridders(
                    [&](double e) { return ladder::elements(along(e))[static_cast<std::size_t>(i)]; }, 0.05));
  CHECK(relative_error(one_step.gradients, {expected}) < 1e-9);
  mutation_gate::expect_gated(
      known.problem, T1T2{.rate = rate},
      [&](const Hypergradient& r) { return relative_error(r.gradients, {expected}) < 1e-9; },
      [&] { return known.problem.by(T1T2{.rate = 0.5 * rate}); });
  // Its own formula to rounding, T1-T2 to O(scale^2).
  const double scale = 0.01, e = scale / ladder::norm(outer);
  const Tensor formula = (-rate / (2.0 * e)) * (along(e) - along(-e));
  const Hypergradient darts = known.problem.by(ht::bilevel::Darts{.rate = rate, .scale = scale});
  mutation_gate::expect_gated(
      known.problem, ht::bilevel::Darts{.rate = rate, .scale = scale},
      [&](const Hypergradient& r) {
        return relative_error(r.gradients, {ladder::elements(formula)}) < 1e-11;
      },
      [&] { return known.problem.by(ht::bilevel::Darts{.rate = 0.5 * rate, .scale = scale}); });
  const auto error = [&](double s) {
    return relative_error(known.problem.by(ht::bilevel::Darts{.rate = rate, .scale = s}).gradients,
                          one_step.gradients);
  };
  CHECK(error(0.1) < 0.05);
  CHECK(error(0.1) / error(0.01) == doctest::Approx(100.0).epsilon(0.2));
  CHECK(darts.cost.hessian_vector_products == 0);
  // The pullback is not linear, since its step depends on the cotangent: differentiated, it says so.
  const ht::bilevel::Darts coarse{.rate = rate, .scale = 0.5};
  auto [end, pullback] = ht::vjp(
      [&](const TensorList& h) {
        return ht::bilevel::solve(known.problem.problem, known.problem.h.with(h), coarse)
            .parameters.tensors();
      },
      known.problem.h.tensors());
  const TensorList u = {ladder::sample({4}, 0.5, 1.0, 9)}, v = {ladder::sample({4}, -1.0, 1.0, 10)};
  const auto pulled = [&, pull = pullback](const TensorList& cotangent) { return pull(cotangent)[0]; };
  const std::vector<double> along_v = ladder::elements(ht::jvp(pulled, u, v).second);
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(along_v[i] ==
          doctest::Approx(
              ladder::ridders([&](double s) { return ladder::elements(pulled({u[0] + s * v[0]}))[i]; }, 0.05))
              .epsilon(1e-8));
}

TEST_CASE("implicit: pre-training differentiated implicitly under unrolled fine-tuning") {
  // Fine-tuning starts where pre-training ended: two methods compose through init.
  const Known pre = meta_regression();
  Case tuned = bilevel_problems::fixed_point(0.5, 0.1, 3);
  tuned.h = pre.problem.h;
  tuned.problem.init = [pre](const NamedTensors& h) {
    return ht::bilevel::solve(pre.problem.problem, h, ImplicitCg{}).parameters;
  };
  tuned.problem.loss = [](const NamedTensors& w, const NamedTensors&, const ht::bilevel::StepContext&) {
    return ht::sum(ht::square(ht::square(w["w"] - 0.3)));
  };
  tuned.outer = [](const NamedTensors& w, const NamedTensors&) { return ht::sum(ht::tanh(w["w"])); };
  const Hypergradient result = tuned.by(Unrolled{});
  CHECK(result.status == ResultStatus::exact);
  Case through = tuned;
  through.problem.init = [pre](const NamedTensors& h) {
    return ht::bilevel::solve(pre.problem.problem, h, Unrolled{}).parameters;
  };
  CHECK(relative_error(result.gradients, through.by(Unrolled{}).gradients) < 1e-10);
  CHECK(relative_error(tuned.by(ht::bilevel::Checkpointed{}).gradients, result.gradients) < 1e-13);
}

TEST_CASE("implicit: float32 follows float64") {
  Known known = ridge();
  const Hypergradient wide = known.problem.by(ImplicitCg{});
  const Tensor x = ladder::converted(ladder::sample({12, 4}, -1.0, 1.0, 21), ht::Dtype::float32),
               y = ladder::converted(ladder::sample({12}, -1.0, 1.0, 22), ht::Dtype::float32),
               xo = ladder::converted(ladder::sample({9, 4}, -1.0, 1.0, 23), ht::Dtype::float32),
               yo = ladder::converted(ladder::sample({9}, -1.0, 1.0, 24), ht::Dtype::float32);
  Case narrow = known.problem;
  narrow.h = {{"lambda", Tensor::scalar(0.3, ht::Dtype::float32)}};
  narrow.problem.init = [](const NamedTensors&) {
    return NamedTensors{{"w", Tensor::zeros({4}, ht::Dtype::float32)}};
  };
  narrow.problem.full_loss = [=](const NamedTensors& w, const NamedTensors& h) {
    return (0.5 / 12.0) * ht::sum(ht::square(ht::matmul(x, w["w"]) - y)) +
           0.5 * h["lambda"] * ht::sum(ht::square(w["w"]));
  };
  narrow.problem.loss = [f = narrow.problem.full_loss](const NamedTensors& w, const NamedTensors& h,
                                                       const ht::bilevel::StepContext&) { return f(w, h); };
  narrow.outer = [=](const NamedTensors& w, const NamedTensors&) {
    return (0.5 / 9.0) * ht::sum(ht::square(ht::matmul(xo, w["w"]) - yo));
  };
  for (const Estimator& method : {Estimator(ImplicitCg{.tolerance = 1e-6, .inner_tolerance = 1e-5}),
                                  Estimator(ImplicitNormalCg{.tolerance = 1e-6, .inner_tolerance = 1e-5}),
                                  Estimator(ImplicitDense{.inner_tolerance = 1e-5})}) {
    const Hypergradient result = narrow.by(method);
    CAPTURE(method.name());
    CHECK(result.status == ResultStatus::converged);
    CHECK(static_cast<double>(result.gradients["lambda"].to_vector<float>()[0]) ==
          doctest::Approx(wide.gradients["lambda"].item()).epsilon(1e-4));
  }
}
