// Implicit methods where the Hessian is ill-conditioned or the losses' scales are far apart.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "hypertape/autodiff/derivatives.h"
#include "hypertape/autodiff/ops.h"
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

}  // namespace

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
