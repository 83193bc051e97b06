// What forward methods say about chaos, and what all methods say about integers, runs of no step and no
// momentum.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include "bilevel_problems.h"
#include "ladder.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
namespace bl = ht::bilevel;
using bilevel_problems::Case;
using bl::Availability;
using bl::ResultStatus;
using ht::NamedTensors;
using ht::Tensor;
using ht::TensorList;

// f = w^4 / 4 - w^2 / 2 from 1/2, which wanders at rate 1.9; F = w. Few steps, so that runs in other
// arithmetic are still the same run.
constexpr int wandering = 12;
Case quartic(double rate) {
  Case result;
  result.h = {{"rate", Tensor::scalar(rate)}};
  result.problem.steps = wandering;
  result.problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::scalar(0.5)}}; };
  result.problem.loss = [](const NamedTensors& w, const NamedTensors&, const bl::StepContext&) {
    const Tensor square = ht::square(w["w"]);
    return 0.25 * ht::square(square) - 0.5 * square;
  };
  result.problem.step = ht::optim::sgd({.rate = "rate"});
  result.outer = [](const NamedTensors& w, const NamedTensors&) { return w["w"]; };
  return result;
}

double derivative_of_run(double rate) {
  long double w = 0.5L, product = 1.0L;
  for (int t = 0; t < wandering; ++t) {
    product *= 1.0L - rate * (3.0L * w * w - 1.0L);
    w -= rate * (w * w * w - w);
  }
  return static_cast<double>(std::abs(product));
}

// 1/2 sum k w^2 by plain descent: every element shrinks by its own factor.
Case shrinking(const std::vector<double>& k, double rate) {
  Case result;
  result.h = {{"shift", Tensor::scalar(0.25)}};
  result.problem.steps = 30;
  result.problem.seed = 5;
  result.problem.init = [](const NamedTensors&) {
    return NamedTensors{{"a", Tensor::ones({2})}, {"b", Tensor::ones({1})}};
  };
  const Tensor factors = Tensor::from(k, {3});
  result.problem.loss = [factors](const NamedTensors& w, const NamedTensors& h, const bl::StepContext&) {
    const Tensor x = ht::concatenate({w["a"], w["b"]}, 0);
    return 0.5 * ht::sum(factors * ht::square(x)) - h["shift"] * ht::sum(x);
  };
  result.problem.step = ht::optim::sgd({.rate = rate});
  result.outer = [](const NamedTensors& w, const NamedTensors&) { return ht::sum(w["a"]) + ht::sum(w["b"]); };
  return result;
}

bl::DirectionalDerivative along_ones(const Case& problem, bool measure_growth = true) {
  TensorList ones;
  for (const Tensor& each : problem.h.tensors())
    ones.push_back(ht::is_floating(each.dtype()) ? Tensor::ones(each.shape(), each.dtype()) : Tensor());
  return bl::directional_derivative(problem.problem, problem.outer, problem.h, problem.h.with(ones),
                                    {.measure_growth = measure_growth});
}

std::vector<bl::Estimator> methods_of_the_run() {
  return {bl::Unrolled{}, bl::Checkpointed{2}, bl::Trajectory{}, bl::Forward{}, bl::Truncated{100}};
}

}  // namespace

TEST_CASE("a growth beyond all numbers is chaotic") {
  // "a" stays 0, and a change of it grows 1e19 times a step: in the end it is inf - inf.
  Case unseen;
  unseen.h = {{"shift", Tensor::scalar(0.25)}};
  unseen.problem.steps = 30;
  unseen.problem.init = [](const NamedTensors&) {
    return NamedTensors{{"a", Tensor::zeros({1})}, {"b", Tensor::ones({1})}};
  };
  unseen.problem.loss = [](const NamedTensors& w, const NamedTensors& h, const bl::StepContext&) {
    return ht::sum(5e19 * ht::square(w["a"]) + 0.5 * ht::square(w["b"]) - h["shift"] * w["b"]);
  };
  unseen.problem.step = ht::optim::sgd({.rate = 0.1});
  unseen.outer = [](const NamedTensors& w, const NamedTensors&) { return ht::sum(w["b"]); };
  const auto result =
      bl::hypergradient(unseen.problem, unseen.outer, unseen.h, bl::Forward{}, {.measure_growth = true});
  CHECK(result.status == ResultStatus::chaotic);
  CHECK(result.message.find("beyond the range of its numbers") != std::string::npos);
  CHECK(std::isfinite(result.gradients["shift"].item()));
  const auto along = bl::directional_derivative(unseen.problem, unseen.outer, unseen.h,
                                                {{"shift", Tensor::scalar(1.0)}}, {.measure_growth = true});
  CHECK(along.status == ResultStatus::chaotic);
}

TEST_CASE("forward: a chaotic run is said to be chaotic, by the growth of a change of w_0") {
  for (const double rate : {0.1, 1.9}) {
    CAPTURE(rate);
    const Case problem = quartic(rate);
    // With one weight every change of it is that of the adjoint.
    const double growth = derivative_of_run(rate);
    const bl::Hypergradient forward = problem.by(bl::Forward{}), reverse = problem.by(bl::Unrolled{});
    const bl::DirectionalDerivative along = along_ones(problem);
    CHECK(forward.adjoint_growth == doctest::Approx(reverse.adjoint_growth).epsilon(1e-10));
    CHECK(along.growth == forward.adjoint_growth);
    CHECK(growth == doctest::Approx(forward.adjoint_growth).epsilon(1e-10));
    const ResultStatus expected = rate < 1.0 ? ResultStatus::exact : ResultStatus::chaotic;
    CHECK((growth > bl::chaotic_growth) == (expected == ResultStatus::chaotic));
    CHECK(forward.status == expected);
    CHECK(along.status == expected);
    if (expected == ResultStatus::exact) continue;
    CHECK(contains(forward.message, "a random change of the initial weights grew"));
    CHECK(contains(along.message, "a random change of the initial weights grew"));
    // The number is the same exact one.
    CHECK(along.derivative == forward.gradients["rate"].item());
    const bl::DirectionalDerivative unmeasured = along_ones(problem, false);
    CHECK(unmeasured.status == ResultStatus::exact);
    CHECK(unmeasured.growth == 0.0);
    CHECK(unmeasured.derivative == along.derivative);
    CHECK(2 * unmeasured.cost.gradients == along.cost.gradients);
  }
}

TEST_CASE("forward: the growth is that of the change that the seed draws") {
  const std::vector<double> k = {0.5, -0.1, 1.5};
  const Case problem = shrinking(k, 0.2);
  const std::vector<double> a = ladder::elements(ht::random({2}, ht::Distribution::normal, ht::Key{5, 2, 0}));
  const std::vector<double> b = ladder::elements(ht::random({1}, ht::Distribution::normal, ht::Key{5, 2, 1}));
  long double start = 0.0L, end = 0.0L;
  for (std::size_t i = 0; i < 3; ++i) {
    const long double u = i < 2 ? a[i] : b[0];
    const long double moved = u * std::pow(1.0L - 0.2L * k[i], 30.0L);
    start += u * u;
    end += moved * moved;
  }
  const double growth = static_cast<double>(std::sqrt(end / start));
  CHECK(problem.by(bl::Forward{}).adjoint_growth == doctest::Approx(growth).epsilon(1e-12));
  CHECK(along_ones(problem).growth == doctest::Approx(growth).epsilon(1e-12));
}

TEST_CASE("bilevel: integer hyperparameters are accepted by every method, and have no derivative") {
  Case problem = shrinking({0.5, 0.25, 1.5}, 0.2);
  problem.h = problem.h.with("shift", Tensor::scalar(0.25));
  problem.h.add("level", Tensor::from(std::vector<std::int64_t>{1, 3}, {2}));
  problem.problem.init = [](const NamedTensors& h) {
    const Tensor scale = ht::sum(ht::astype(h["level"], ht::Dtype::float64));
    return NamedTensors{{"a", scale * Tensor::ones({2})}, {"b", Tensor::ones({1})}};
  };
  Case momentum = problem;
  momentum.problem.step = ht::optim::sgd({.rate = 0.2, .momentum = 0.5});
  const double expected = problem.by(bl::Unrolled{}).gradients["shift"].item();
  const auto check = [](const bl::Hypergradient& found) {
    CAPTURE(found.method);
    CHECK_FALSE(found.gradients["level"].defined());
    CHECK(found.availability == std::vector<Availability>{Availability::defined, Availability::not_defined});
    CHECK(found.unused().empty());
  };
  for (const bl::Estimator& method : methods_of_the_run()) {
    const bl::Hypergradient found = problem.by(method);
    check(found);
    CHECK(found.gradients["shift"].item() == doctest::Approx(expected).epsilon(1e-12));
  }
  check(momentum.by(bl::Reversible{}));
  check(problem.by(bl::Forward{1}));  // they do not count among the scalars
  CHECK(along_ones(problem).derivative == doctest::Approx(expected).epsilon(1e-12));
  CHECK(contains(
      thrown([&] { bl::directional_derivative(problem.problem, problem.outer, problem.h, problem.h); }),
      "hyperparameter 'level' is int64"));
}

TEST_CASE("bilevel: momentum 0 is a momentum to every method but reversible, which names it") {
  Case constant = shrinking({0.5, 0.25, 1.5}, 0.2), learned = constant;
  learned.h.add("momentum", Tensor::scalar(0.0));
  learned.problem.step = ht::optim::sgd({.rate = 0.2, .momentum = "momentum"});
  // dF/dm by the recurrence, in long double.
  long double slope = 0.0L;
  for (const long double k : {0.5L, 0.25L, 1.5L}) {
    long double x = 1.0L, v = 0.0L, x_m = 0.0L, v_m = 0.0L;
    for (int t = 0; t < 30; ++t) {
      v_m = v + k * x_m;
      v = k * x - 0.25L;
      x_m -= 0.2L * v_m;
      x -= 0.2L * v;
    }
    slope += x_m;
  }
  for (const bl::Estimator& method : methods_of_the_run()) {
    CAPTURE(method.name());
    const bl::Hypergradient a = constant.by(method), b = learned.by(method);
    CHECK(ladder::same_bits(a.parameters.tensors(), b.parameters.tensors()));
    CHECK(b.gradients["momentum"].item() == doctest::Approx(static_cast<double>(slope)).epsilon(1e-12));
  }
  for (const Case& each : {constant, learned})
    CHECK(contains(thrown([&] { each.by(bl::Reversible{}); }),
                   "[reversible] momentum 0 cannot be reversed: it must be from 2^-16"));
}

TEST_CASE("bilevel: a run of no step is refused by every method with the same words") {
  Case problem = shrinking({0.5, 0.25, 1.5}, 0.2);
  problem.problem.steps = 0;
  std::vector<bl::Estimator> methods = methods_of_the_run();
  methods.push_back(bl::Reversible{});
  for (const bl::Estimator& method : methods)
    CHECK(contains(thrown([&] { problem.by(method); }), "[hypergradient] steps is 0; at least 1 is needed"));
}

TEST_CASE("bilevel: an initial velocity that is none is refused by every method") {
  Case problem = shrinking({0.5, 0.25, 1.5}, 0.2);
  std::vector<bl::Estimator> methods = methods_of_the_run();
  methods.push_back(bl::Reversible{});
  problem.problem.step = ht::optim::sgd({.rate = 0.2, .momentum = 0.5});
  for (const bl::Estimator& method : methods) {
    CAPTURE(method.name());
    const auto refuses = [&](const TensorList& velocity, const std::string& what) {
      problem.problem.initial_buffers = [&](const NamedTensors&, const NamedTensors&) { return velocity; };
      const std::string text = thrown([&] { problem.by(method); });
      CAPTURE(text);
      CHECK(contains(text, what));
    };
    const Tensor a = Tensor::zeros({2});
    const bool undoes = method.name() == "reversible";
    refuses({a, Tensor::zeros({7})},
            undoes
                ? "[reversible] the initial velocity of 'b' is float64 (7), but the parameter is float64 (1)"
                : "[sgd] buffer 1 is float64 (7), but parameter 1 is float64 (1)");
    refuses({a, Tensor::zeros({1}, ht::Dtype::float32)}, "is float32 (1), but ");
    refuses({a}, undoes ? "[reversible] needs one velocity per parameter tensor, but there are 1"
                        : "[sgd] 1 buffers for 2 parameter tensors");
    refuses({a, a, a}, undoes ? "but there are 3 buffers for 2" : "[sgd] 3 buffers for 2 parameter tensors");
    refuses({}, undoes ? "but there are 0 buffers for 2" : "[sgd] 0 buffers for 2 parameter tensors");
    refuses({a, Tensor()}, "[hypergradient] one of the initial buffers is absent");
    problem.problem.initial_buffers = [](const NamedTensors&, const NamedTensors&) -> TensorList {
      ht::fail("draw", "no velocity");
    };
    CHECK(thrown([&] { problem.by(method); }) == "[draw] no velocity (in initial_buffers)");
  }
}
