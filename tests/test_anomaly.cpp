// Where infinite and NaN elements come from: operation, rule, shapes and step; and errors that carry the
// step.
#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <hypertape/autodiff/anomaly.h>
#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/estimators.h>
#include "bilevel_problems.h"
#include "implicit_problems.h"
#include "ladder.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using namespace bilevel_problems;
using namespace ht::bilevel;
using Kind = ht::Anomaly::Kind;

std::vector<Estimator> all_methods() {
  std::vector<Estimator> methods = reverse_methods();
  methods.push_back(Forward{});
  methods.push_back(Truncated{2});
  return methods;
}

// sqrt(|w - w|) at step 3, whose value is 0 and whose slope is infinite.
Case with_infinite_slope() {
  Case problem = Quadratic(6, Rule::momentum).problem();
  problem.problem.loss = [loss = problem.problem.loss](const NamedTensors& w, const NamedTensors& h,
                                                       const StepContext& context) {
    const Tensor value = loss(w, h, context);
    if (context.step != 3) return value;
    return value + ht::sum(ht::sqrt(w["second"] - w["second"]));
  };
  return problem;
}

}  // namespace

TEST_CASE("anomaly: the operation whose value is the first that is not finite") {
  const Tensor x = Tensor::from({1.0, 0.0, -1.0});
  const ht::AnomalyScope watch;
  CHECK_FALSE(watch.first().has_value());
  const Tensor y = ht::exp(x), bad = ht::log(x) + y, later = ht::sum(bad);
  REQUIRE(watch.first().has_value());
  CHECK(watch.first()->operation == "log");
  CHECK(watch.first()->kind == Kind::value);
  CHECK(watch.first()->text() == "the value of log, shape (3), from finite operands (3)");
  CHECK_FALSE(watch.origin_of(y).has_value());
  REQUIRE(watch.origin_of(later).has_value());
  CHECK(watch.origin_of(later)->operation == "log");
}

TEST_CASE("anomaly: of several, the one that a result goes back to") {
  const Tensor x = Tensor::from({0.0, 4.0});
  const ht::AnomalyScope watch;
  const Tensor meant = ht::log(x), other = ht::matmul(ht::reshape(x, {1, 2}), Tensor::full({2, 1}, 1e308)),
               mixed = ht::square(other);
  CHECK(watch.first()->operation == "log");
  CHECK(watch.origin_of(mixed)->operation == "matmul");
  CHECK(watch.origin_of(ht::exp(meant)) == std::nullopt);  // exp(-inf) is 0
}

TEST_CASE("anomaly: reverse gradients and tangents, by the rule's own operation") {
  const Tensor x = Tensor::from({0.0, 4.0});
  const auto root = [](const Tensor& y) { return ht::sum(ht::sqrt(y)); };
  {
    const ht::AnomalyScope watch;
    const Tensor gradient = ht::grad(root, x);
    REQUIRE(watch.origin_of(gradient).has_value());
    CHECK(watch.first()->kind == Kind::gradient);
    CHECK(watch.first()->operation == "sqrt");
    expect_text(watch.first()->text(), "the reverse gradient of sqrt");
    expect_text(watch.first()->text(), "shape (2)");
  }
  {
    const ht::AnomalyScope watch;
    ht::jvp(root, x, Tensor::ones({2}));
    REQUIRE(watch.first().has_value());
    CHECK(watch.first()->kind == Kind::tangent);
    CHECK(watch.first()->operation == "sqrt");
  }
  {
    const ht::AnomalyScope watch;
    const auto norm_of = [](const Tensor& y) { return ht::minimum(Tensor::scalar(1.0), 1.0 / ht::norm(y)); };
    ht::grad(norm_of, Tensor::zeros({2}));
    expect_text(watch.first()->operation, "divide");
    CHECK(watch.first()->kind == Kind::value);
  }
}

TEST_CASE("anomaly: results are what they are without it, and nothing is noted afterwards") {
  const Case problem = digits({.sizes = {64, 4, 10}, .steps = 4, .batch = 6});
  for (const Estimator& method : all_methods()) {
    if (method.name() == "forward") continue;  // one run for each of 300 weights
    CAPTURE(method.name());
    const Hypergradient plain = problem.by(method);
    const ht::AnomalyScope watch;
    const Hypergradient watched = problem.by(method);
    CHECK(ladder::same_bits(watched.gradients.tensors(), plain.gradients.tensors()));
    CHECK(watched.value == plain.value);
    CHECK_FALSE(watch.first().has_value());
  }
  { const ht::AnomalyScope watch; }
  CHECK(std::isinf(ht::log(Tensor::scalar(0.0)).item()));
}

TEST_CASE("anomaly: of nested scopes the innermost watches, and operands that were bad before are named") {
  const ht::AnomalyScope outer;
  {
    const ht::AnomalyScope inner;
    ht::log(Tensor::scalar(0.0));
    CHECK(inner.first().has_value());
  }
  CHECK_FALSE(outer.first().has_value());
  ht::exp(Tensor::scalar(std::nan("")));
  REQUIRE(outer.first().has_value());
  CHECK(outer.first()->kind == Kind::operand);
  CHECK(outer.first()->text() == "an operand of exp, shapes (), that was not finite before");
}

TEST_CASE("anomaly: a hypergradient that is not finite names the operation and the step on request") {
  for (const Estimator& method : all_methods()) {
    CAPTURE(method.name());
    const Case problem = with_infinite_slope();
    const Hypergradient silent = problem.by(method);
    if (!is_failure(silent.status)) {
      // Truncated does not go back that far; its run does.
      CHECK(method.name() == "truncated");
      continue;
    }
    CHECK(silent.message.find("sqrt") == std::string::npos);
    const Hypergradient told =
        hypergradient(problem.problem, problem.outer, problem.h, method, {.anomaly = true});
    CHECK(told.status == ResultStatus::diverged);
    expect_text(told.message, "it comes from the reverse gradient of sqrt");
    expect_text(told.message, "at step 3 of 6");
    CHECK(told.cost.gradients == silent.cost.gradients);
  }
  const Case problem = with_infinite_slope();
  const DirectionalDerivative told =
      directional_derivative(problem.problem, problem.outer, problem.h, problem.h, {.anomaly = true});
  expect_text(told.message, "sqrt");
  expect_text(told.message, "at step 3 of 6");
}

TEST_CASE("anomaly: losses that are not finite, training and outer, and on_step is not called again") {
  Case problem = Quadratic(6, Rule::momentum).problem();
  int calls = 0;
  problem.problem.on_step = [&](std::int64_t, double) { ++calls; };
  Case outer = problem;
  outer.outer = [](const NamedTensors& w, const NamedTensors&) { return ht::log(ht::sum(w["first"]) * 0.0); };
  const Hypergradient at_end =
      hypergradient(outer.problem, outer.outer, outer.h, Unrolled{}, {.anomaly = true});
  expect_text(at_end.message, "the value of log");
  CHECK(calls == 6);
  problem.problem.loss = [loss = problem.problem.loss](const NamedTensors& w, const NamedTensors& h,
                                                       const StepContext& context) {
    const Tensor value = loss(w, h, context);
    return context.step == 4 ? value / (ht::sum(w["first"]) * 0.0) : value;
  };
  const Hypergradient training =
      hypergradient(problem.problem, problem.outer, problem.h, Trajectory{}, {.anomaly = true});
  CHECK(training.failed_step == 4);
  expect_text(training.message, "the value of divide");
  expect_text(training.message, "step 4 of 6");
}

TEST_CASE("errors: those of the problem's functions say where they arose and keep their type") {
  const Case plain = Quadratic(6, Rule::momentum).problem();
  const auto text_of = [](const Case& problem, const Estimator& method) {
    return thrown([&] { problem.by(method); });
  };
  for (const Estimator& method : all_methods()) {
    CAPTURE(method.name());
    Case problem = plain;
    problem.problem.loss = [loss = plain.problem.loss](const NamedTensors& w, const NamedTensors& h,
                                                       const StepContext& context) {
      return context.step == 4 ? ht::reshape(w["first"], {7}) : loss(w, h, context);
    };
    expect_text(text_of(problem, method), "[reshape] ");
    CHECK(text_of(problem, method).ends_with(" (at step 4 of 6)"));
    problem = plain;
    problem.outer = [](const NamedTensors& w, const NamedTensors&) { return w["none"]; };
    CHECK(text_of(problem, method).ends_with(" (in the outer loss)"));
    problem = plain;
    problem.problem.init = [](const NamedTensors& h) { return NamedTensors{{"first", h["none"]}}; };
    CHECK(text_of(problem, method).ends_with(" (in init)"));
    problem = plain;
    problem.problem.prepare = [](const NamedTensors& h) { return h.with("none", h["none"]); };
    CHECK(text_of(problem, method).ends_with(" (in prepare)"));
  }
  // A step, also where it runs again.
  for (const int call : {2, 7}) {
    Case problem = plain;
    problem.problem.step.update = [=, calls = std::make_shared<int>(0), update = plain.problem.step.update](
                                      const ht::optim::State& state, const TensorList& g,
                                      const NamedTensors& h) {
      return update(state, g, (*calls)++ == call ? NamedTensors{} : h);
    };
    CHECK(text_of(problem, Trajectory{}).ends_with(call == 2 ? " (at step 2 of 6)" : " (at step 4 of 6)"));
  }
  Case inner = implicit_problems::quadratic().problem;
  inner.problem.full_loss = [](const NamedTensors& w, const NamedTensors&) { return w["none"]; };
  CHECK(text_of(inner, ImplicitCg{}).ends_with(" (in full_loss)"));
  inner = implicit_problems::logistic().problem;
  inner.problem.solver = [](const NamedTensors& w, const NamedTensors&) {
    return NamedTensors{{"w", w["none"]}};
  };
  CHECK(text_of(inner, ImplicitCg{}).ends_with(" (in solver)"));
  // A run inside another says both.
  Case nested = plain;
  nested.outer = [plain](const NamedTensors& w, const NamedTensors& h) {
    Case second = plain;
    second.problem.loss = [](const NamedTensors& v, const NamedTensors&, const StepContext&) {
      return v["none"];
    };
    return ht::sum(w["first"]) + ht::sum(solve(second.problem, h, Unrolled{}).parameters["first"]);
  };
  CHECK(text_of(nested, Unrolled{}).ends_with(" (at step 0 of 6) (in the outer loss)"));
  struct Own : ht::Error {
    Own() : Error("own", "of a user") {}
  };
  Case own = plain;
  own.problem.loss = [](const NamedTensors&, const NamedTensors&, const StepContext&) -> Tensor {
    throw Own();
  };
  CHECK_THROWS_AS(own.by(Unrolled{}), Own);
  CHECK(text_of(own, Unrolled{}) == "[own] of a user (at step 0 of 6)");
}
