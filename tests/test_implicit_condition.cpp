// Implicit methods where the Hessian is ill-conditioned or the losses' scales are far apart.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "dense.h"
#include "implicit_problems.h"
#include "ladder.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using namespace implicit_problems;
using ht::Dtype;
using ht::NamedTensors;
using ht::Tensor;
using ht::TensorList;
using ht::bilevel::Estimator;
using ht::bilevel::Hypergradient;
using ht::bilevel::ImplicitCg;
using ht::bilevel::ImplicitDense;
using ht::bilevel::ImplicitNeumann;
using ht::bilevel::ImplicitNormalCg;
using ht::bilevel::ResultStatus;

// f = ((a - 1)^2 + curvature (b - h)^2) / 2 at a = 1, b = h - off, with h = 1, and an outer loss of (a, b).
Case two(double curvature, double off, Dtype dtype, ht::bilevel::OuterLoss outer) {
  Case problem;
  problem.h = {{"h", Tensor::full({}, 1.0, dtype)}};
  problem.problem.init = [=](const NamedTensors&) {
    return NamedTensors{{"a", Tensor::full({}, 0.0, dtype)}, {"b", Tensor::full({}, 0.0, dtype)}};
  };
  problem.problem.full_loss = [=](const NamedTensors& w, const NamedTensors& h) {
    return 0.5 * ht::square(w["a"] - 1.0) + (0.5 * curvature) * ht::square(w["b"] - h["h"]);
  };
  problem.problem.solver = [=](const NamedTensors& w, const NamedTensors& h) {
    return w.with({Tensor::full({}, 1.0, dtype), h["h"] - off});
  };
  problem.outer = std::move(outer);
  return problem;
}

const std::vector<Estimator> methods = {ImplicitCg{}, ImplicitNormalCg{}, ImplicitDense{},
                                        ImplicitNeumann{.terms = 40, .rate = 0.5}};

// Ridge regression whose third feature no training row has, but the outer loss's rows.
struct Unseen {
  Case problem;
  Tensor minimum;
  explicit Unseen(double penalty, Dtype dtype) {
    const auto to = [=](const Tensor& x) { return ladder::converted(x, dtype); };
    const Tensor x = to(ladder::sample({50, 3}, -1.7, 1.7, 1) * Tensor::from({1.0, 1.0, 0.0})),
                 y = to(ladder::sample({50}, -1.0, 1.0, 2)),
                 other = to(ladder::sample({50, 3}, -1.7, 1.7, 3)),
                 z = ht::matmul(other, to(Tensor::from({1.0, 2.0, 0.0})));
    problem.h = {{"log_penalty", Tensor::full({3}, std::log(penalty), dtype)}};
    problem.problem.init = [=](const NamedTensors&) {
      return NamedTensors{{"w", Tensor::full({3}, 0.5, dtype)}};
    };
    problem.problem.full_loss = [=](const NamedTensors& w, const NamedTensors& h) {
      return ht::mean(ht::square(ht::matmul(x, w["w"]) - y)) +
             ht::sum(ht::exp(h["log_penalty"]) * ht::square(w["w"]));
    };
    problem.problem.loss = [f = problem.problem.full_loss](const NamedTensors& w, const NamedTensors& h,
                                                           const ht::bilevel::StepContext&) {
      return f(w, h);
    };
    problem.problem.step = ht::optim::sgd({.rate = 0.2});
    problem.problem.steps = 500;
    problem.outer = [=](const NamedTensors& w, const NamedTensors&) {
      return ht::mean(ht::square(ht::matmul(other, w["w"]) - z));
    };
    dense::Matrix data = dense::matrix(ladder::elements(x), 50, 3);
    dense::Matrix hessian = dense::gram(data, dense::Vector(50, 0.02L));
    for (std::size_t i = 0; i < 3; ++i) hessian(i, i) += penalty;
    dense::Vector right = dense::transposed_times(data, dense::widened(ladder::elements(y)));
    for (auto& each : right) each *= 0.02L;
    minimum = to(Tensor::from(dense::narrowed(dense::solve(hessian, right)), {3}));
  }
};

}  // namespace

TEST_CASE("implicit: a feature that no training row has keeps its start, which is not the minimum") {
  struct Setting {
    double penalty;
    Dtype dtype;
  };
  for (const Setting& setting :
       {Setting{1e-6, Dtype::float64}, Setting{1e-8, Dtype::float64}, Setting{1e-9, Dtype::float64},
        Setting{1e-4, Dtype::float32}, Setting{1e-5, Dtype::float32}}) {
    const double penalty = setting.penalty;
    const Dtype dtype = setting.dtype;
    CAPTURE(penalty);
    CAPTURE(dtype);
    const Unseen unseen(penalty, dtype);
    for (const Estimator& method : methods) {
      CAPTURE(method.name());
      const Hypergradient result = unseen.problem.by(method);
      CHECK(result.status == ResultStatus::not_converged);
      expect_text(result.message, "not at its minimum");
      if (std::isnan(result.distance)) continue;  // a series does not look where the residual says it already
      const TensorList w = result.parameters.tensors();
      const double way =
          std::max(ladder::norm(w), ladder::norm({ladder::converted(w[0], Dtype::float64) - 0.5}));
      const double off = ladder::difference(w, {unseen.minimum}) / way;
      CHECK(off > 0.2);
      CHECK(result.distance == doctest::Approx(off).epsilon(0.1));
    }
    // At the minimum itself, rounding alone is no alarm.
    Case there = unseen.problem;
    there.problem.solver = [&](const NamedTensors& w, const NamedTensors&) {
      return w.with({unseen.minimum});
    };
    for (const Estimator& method : {methods[0], methods[1], methods[2]}) {
      CAPTURE(method.name());
      const Hypergradient result = there.by(method);
      CAPTURE(result.message);
      CHECK(result.status == ResultStatus::converged);
      CHECK(std::abs(ladder::elements(result.gradients["log_penalty"])[2]) < 1e-12);
      CHECK(result.condition > 0.1 / penalty);
    }
  }
}

TEST_CASE("implicit: a small residual in a flat direction is no small distance") {
  const auto outer = [](const NamedTensors& w, const NamedTensors&) { return 0.5 * ht::square(w["b"]); };
  const auto other = [](const NamedTensors& w, const NamedTensors&) { return 0.5 * ht::square(w["a"]); };
  struct Setting {
    double curvature, off;
    Dtype dtype;
  };
  for (const Setting& setting :
       {Setting{1e-10, 1.0 - 1e-8, Dtype::float64}, Setting{1e-6, 1e-2, Dtype::float64},
        Setting{1e-4, 1e-4, Dtype::float64}, Setting{1e-2, 1e-6, Dtype::float64},
        Setting{1e-4, 0.0625, Dtype::float32}}) {
    const double curvature = setting.curvature, off = setting.off;
    const Dtype dtype = setting.dtype;
    CAPTURE(curvature);
    const double way = std::hypot(1.0, 1.0 - off);
    for (const bool blind : {false, true})
      for (const Estimator& method : methods) {
        // With F of a alone, F_w has no part along b, and neither has what conjugate gradients see.
        const Case problem = two(curvature, off, dtype, blind ? other : outer);
        CAPTURE(method.name());
        CAPTURE(blind);
        const Hypergradient result = problem.by(method);
        CHECK(result.inner_residual < (dtype == Dtype::float32 ? 7.6e-6 : 1e-8));
        CHECK(result.status == ResultStatus::not_converged);
        expect_text(result.message, "a Newton step would move w by");
        CHECK(result.distance == doctest::Approx(off / way).epsilon(0.03));
        const auto pulled = [&] {
          ht::grad([&](const TensorList& h) { return outer_of(problem, method, h); }, problem.h.tensors());
        };
        expect_text(thrown(pulled), "not at its minimum (a Newton step");
        const Case near = two(curvature, 0.0, dtype, blind ? other : outer);
        CHECK(near.by(method).status == (method.name() == "implicit-neumann" && !blind
                                             ? ResultStatus::approximate
                                             : ResultStatus::converged));
        CHECK(near.by(method).distance == 0.0);
      }
  }
  // Within the tolerance: no alarm.
  for (const Estimator& method : {methods[0], methods[1], methods[2]})
    for (const auto& [curvature, off] : {std::pair(1e-3, 1e-9), std::pair(1e-8, 3e-8)})  // rounding at 1e8
      CHECK(two(curvature, off, Dtype::float64, outer).by(method).status == ResultStatus::converged);
  // Off in the steep direction: the step is told from |f_w| over the smallest eigenvalue, 5e-5.
  Case steep = two(1e-4, 0.0, Dtype::float64, [](const NamedTensors& w, const NamedTensors&) {
    return 0.5 * (ht::square(w["a"]) + ht::square(w["b"]));
  });
  steep.problem.solver = [](const NamedTensors& w, const NamedTensors& h) {
    return w.with({Tensor::scalar(1.0 - 5e-9), h["h"]});
  };
  for (const Estimator& method : {methods[0], methods[1], methods[2]}) {
    CHECK(steep.by(method).status == ResultStatus::converged);
    CHECK(steep.by(method).distance == doctest::Approx(5e-9 / std::sqrt(2.0)).epsilon(1e-3));
  }
  // Downwards along b, which F does not see.
  for (const Estimator& method : methods) {
    const Hypergradient saddle = two(-1e-3, 1e-6, Dtype::float64, other).by(method);
    const bool series = method.name() == "implicit-neumann";
    CHECK(saddle.status == (series ? ResultStatus::negative_curvature : ResultStatus::not_converged));
    if (!series) expect_text(saddle.message, "negative curvature");
  }
}

TEST_CASE("implicit: without an outer gradient the distance is looked at all the same") {
  const auto nothing = [](const NamedTensors& w, const NamedTensors&) { return 0.0 * (w["a"] + w["b"]); };
  for (const Estimator& method : methods) {
    CAPTURE(method.name());
    CHECK(two(1e-6, 1e-2, Dtype::float64, nothing).by(method).status == ResultStatus::not_converged);
  }
}

TEST_CASE("implicit: a residual that met its tolerance says little of the solution at condition 1e12") {
  constexpr std::int64_t n = 40;
  std::vector<double> eigenvalues;
  for (std::int64_t i = 0; i < n; ++i)
    eigenvalues.push_back(std::pow(1e12, -static_cast<double>(i) / (n - 1)));
  const Tensor d = Tensor::from(eigenvalues, {n}), x = ladder::sample({n}, 0.5, 1.0, 3);
  Case problem;
  problem.h = {{"h", Tensor::ones({n})}};
  problem.problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::zeros({n})}}; };
  problem.problem.full_loss = [=](const NamedTensors& w, const NamedTensors& h) {
    return 0.5 * ht::dot(d, ht::square(w["w"] - h["h"]));
  };
  problem.problem.solver = [](const NamedTensors& w, const NamedTensors& h) { return w.with({h["h"]}); };
  problem.outer = [=](const NamedTensors& w, const NamedTensors&) { return ht::dot(d * x, w["w"]); };
  const Hypergradient loose = problem.by(ImplicitCg{.tolerance = 1e-9});
  CHECK(loose.linear_residuals.back() <= 1e-9);
  CHECK(loose.status == ResultStatus::not_converged);
  CHECK(loose.linear_error > 0.01);
  CHECK(loose.condition > 1e8);
  expect_text(loose.message, "the linear system is solved, but the condition of the inner Hessian is");
  const auto pulled = [&] {
    ht::grad([&](const TensorList& h) { return outer_of(problem, ImplicitCg{.tolerance = 1e-9}, h); },
             problem.h.tensors());
  };
  expect_text(thrown(pulled), "ill-conditioned");
  const Hypergradient dense = problem.by(ImplicitDense{});
  CHECK(dense.status == ResultStatus::converged);
  CHECK(dense.linear_error < 1e-3);
  CHECK(dense.condition == doctest::Approx(1e12).epsilon(0.05));
}

TEST_CASE("implicit: a Hessian of condition 1e6 is solved by all methods") {
  // f = sum d (Q w - h)^2 / 2 with an orthogonal Q, so that w* = Q'h; F = c'w, so that dF/dh = Q c.
  const Tensor q = Tensor::from({2.0, -2.0, 1.0, 1.0, 2.0, 2.0, 2.0, 1.0, -2.0}, {3, 3}) / 3.0,
               d = Tensor::from({1.0, 1e-3, 1e-6}), c = Tensor::from({1.0, -1.0, 2.0});
  Case problem;
  problem.h = {{"h", Tensor::from({1.0, 2.0, -1.0})}};
  problem.problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::zeros({3})}}; };
  problem.problem.full_loss = [=](const NamedTensors& w, const NamedTensors& h) {
    return 0.5 * ht::sum(d * ht::square(ht::matmul(q, w["w"]) - h["h"]));
  };
  problem.problem.solver = [=](const NamedTensors& w, const NamedTensors& h) {
    return w.with({ht::matmul(q, h["h"], true)});
  };
  problem.outer = [=](const NamedTensors& w, const NamedTensors&) { return ht::dot(c, w["w"]); };
  // Q c = (6, 3, -3) / 3
  const Tensor expected = Tensor::from({2.0, 1.0, -1.0});
  for (const Estimator& method :
       {Estimator(ImplicitCg{}), Estimator(ImplicitNormalCg{}), Estimator(ImplicitDense{})}) {
    CAPTURE(method.name());
    const Hypergradient result = problem.by(method);
    CHECK(result.status == ResultStatus::converged);
    CHECK(ladder::difference({result.gradients["h"]}, {expected}) < 1e-9);
    // Nor does the pullback of solve throw.
    const TensorList pulled =
        ht::grad([&](const TensorList& h) { return outer_of(problem, method, h); }, problem.h.tensors());
    CHECK(ladder::difference(pulled, {expected}) < 1e-9);
  }
}

TEST_CASE("implicit: losses whose scales are far apart, in float32") {
  // f = s d (w - h)^2 / 2 and F = r w^2 / 2: dF/dh = r h. The solution of the linear system is r h / (s d).
  const Tensor d = ladder::converted(Tensor::from({1.0, 0.5, 2.0}), Dtype::float32),
               h = ladder::converted(Tensor::from({0.5, -1.5, 2.0}), Dtype::float32);
  for (const double inner : {1e30, 1e-30})
    for (const double outer : {1e30, 1.0, 1e-30}) {
      CAPTURE(inner);
      CAPTURE(outer);
      Case problem;
      problem.h = {{"h", h}};
      problem.problem.init = [](const NamedTensors&) {
        return NamedTensors{{"w", Tensor::zeros({3}, Dtype::float32)}};
      };
      problem.problem.full_loss = [=](const NamedTensors& w, const NamedTensors& all) {
        return inner * (0.5 * ht::dot(d, ht::square(w["w"] - all["h"])));
      };
      problem.problem.solver = [](const NamedTensors& w, const NamedTensors& all) {
        return w.with({all["h"]});
      };
      problem.outer = [=](const NamedTensors& w, const NamedTensors&) {
        return outer * (0.5 * ht::sum(ht::square(w["w"])));
      };
      const TensorList expected = {ladder::converted(h, Dtype::float64)};
      const auto unscaled = [&](const Tensor& x) {
        return TensorList{ladder::converted(x, Dtype::float64) / outer};
      };
      for (const Solver& solver : solvers(3)) {
        CAPTURE(solver.method.name());
        const Hypergradient result = problem.by(solver.method);
        CHECK(result.status == ResultStatus::converged);
        CHECK(ladder::difference(unscaled(result.gradients["h"]), expected) < 1e-5);
      }
      // Forwards: along ones, the derivative is r sum h = r.
      const Tensor ones = Tensor::ones({3}, Dtype::float32);
      const auto along = [&](const TensorList& x) { return outer_of(problem, ImplicitCg{}, x); };
      const Tensor pushed = ht::jvp(along, TensorList{h}, TensorList{ones}).second;
      CHECK(std::abs(ladder::elements(unscaled(pushed)[0])[0] - 1.0) < 1e-5);
    }
}
