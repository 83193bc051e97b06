// Reversible training: it comes back bit for bit, differentiates the map that it executes, and says so when a
// step does not replay.
#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <string>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include "bilevel_problems.h"
#include "integer_run.h"
#include "ladder.h"
#include "mutation_gate.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using namespace bilevel_problems;
using ht::bilevel::Hypergradient;
using ht::bilevel::ResultStatus;
using ht::bilevel::Reversible;
using ht::bilevel::StepContext;
using ht::bilevel::Unrolled;
using ladder::same_bits;

// Multiplies the loss of `step` by 1 + 1e-9, once, when it is evaluated for the `replay`-th time (0: first).
Case with_corrupted_step(const Case& problem, std::int64_t step, int replay) {
  Case corrupted = problem;
  corrupted.problem.loss = [=, calls = std::make_shared<int>(0), loss = problem.problem.loss](
                               const NamedTensors& w, const NamedTensors& h, const StepContext& context) {
    const Tensor value = loss(w, h, context);
    return context.step == step && (*calls)++ == replay ? value * (1.0 + 1e-9) : value;
  };
  return corrupted;
}

}  // namespace

TEST_CASE("reversible: 500 steps on the digits return bit for bit on 1 and 2 threads, all digits used up") {
  const Case problem = digits({.sizes = {64, 300, 10}, .steps = 500, .batch = 10});
  std::vector<std::int64_t> end;
  for (const int threads : {1, 2}) {
    const ladder::Threads scope(threads);
    integer_run::Stepwise run(problem);
    const std::vector<std::int64_t> w = run.w, v = run.v;
    for (int t = 0; t < 500; ++t) run.forward();
    CHECK(run.w != w);
    CHECK(run.digits.schedule().planes() > 2);
    CHECK_FALSE(run.digits.empty());
    if (end.empty()) end = run.w;
    CHECK(run.w == end);
    for (int t = 0; t < 500; ++t) run.backward();
    CHECK(run.w == w);
    CHECK(run.v == v);
    CHECK(run.digits.empty());
  }
}

TEST_CASE("reversible: is the derivative of the executed integer trajectory, and ends where it ends") {
  for (const Rule rule : {Rule::momentum, Rule::dampened})
    for (const std::int64_t steps : {3, 100, 300}) {
      const Case problem = digits({.sizes = {64, 5, 10}, .steps = steps, .batch = 20, .rule = rule});
      CAPTURE(problem.name);
      CAPTURE(steps);
      const Case oracle = integer_run::taped_integers(problem, rule == Rule::dampened);
      const Hypergradient expected = oracle.by(Unrolled{});
      const Hypergradient result =
          mutation_gate::expect_gated(problem, Reversible{}, [&](const Hypergradient& candidate) {
            return relative_error(candidate.gradients, expected.gradients) < 1e-12;
          });
      CHECK(same_bits(result.parameters.tensors(), expected.parameters.tensors()));
      CHECK(result.value == expected.value);
    }
}

TEST_CASE("reversible: follows floating-point training while the adjoint grows less than 100 times") {
  for (const std::int64_t steps : {100, 1000}) {
    const Case problem = digits({.sizes = {64, 8, 10}, .steps = steps});
    const Hypergradient expected = integer_run::with_rounded_momenta(problem).by(Unrolled{});
    CAPTURE(steps);
    CHECK(expected.adjoint_growth < 100.0);
    mutation_gate::expect_gated(problem, Reversible{}, [&](const Hypergradient& candidate) {
      return relative_error(candidate.gradients, expected.gradients) < 1e-5;
    });
  }
}

TEST_CASE("reversible: a learning rate in the chaotic regime is reported as chaotic") {
  const Case calm = digits({.steps = 100}), wild = digits({.steps = 100, .rate = 8.0});
  CHECK(calm.by(Reversible{}).status == ResultStatus::exact);
  const Hypergradient result = wild.by(Reversible{});
  CHECK(result.adjoint_growth > ht::bilevel::chaotic_growth);
  CHECK(result.status == ResultStatus::chaotic);
  CHECK(contains(result.message, "grew"));
  CHECK(wild.by(Unrolled{}).status == ResultStatus::chaotic);
  // Still the exact derivative of what was executed.
  const Case short_run = digits({.sizes = {64, 8, 10}, .steps = 30, .rate = 8.0});
  CHECK(relative_error(short_run.by(Reversible{}).gradients,
                       integer_run::taped_integers(short_run, false).by(Unrolled{}).gradients) < 1e-10);
}

TEST_CASE("reversible: a step that does not replay is named") {
  const Case problem = digits({.sizes = {64, 5, 10}, .steps = 12});
  for (const std::int64_t step : {0, 7, 11}) {
    const Hypergradient result = with_corrupted_step(problem, step, 1).by(Reversible{});
    CHECK(result.status == ResultStatus::not_replayed);
    CHECK(result.failed_step == step);
    CHECK(contains(result.message, "[reversible] the training loss did not replay"));
  }
  // What the first pass saw is the run, whatever it was.
  CHECK(with_corrupted_step(problem, 7, 0).problem.loss);
  CHECK(with_corrupted_step(problem, 7, 0).by(Reversible{}).failed_step == 7);
  CHECK(with_corrupted_step(problem, 7, 5).by(Reversible{}).status == ResultStatus::exact);
  // The third evaluation is that of the training that a second pullback repeats.
  const Case third = with_corrupted_step(problem, 7, 2);
  auto [end, pullback] = ht::vjp(
      [&](const TensorList& h) {
        return ht::bilevel::solve(third.problem, third.h.with(h), Reversible{}).parameters.tensors();
      },
      third.h.tensors());
  pullback(end);
  CHECK(contains(thrown([&, &end = end, &pullback = pullback] { pullback(end); }), "did not replay"));
}

TEST_CASE("reversible: momenta out of range are refused with the step, its neighbours work") {
  Case problem = Quadratic(4, Rule::momentum).problem();
  const auto with_momentum = [&](double momentum) {
    Case other = problem;
    std::vector<double> momenta = ladder::elements(problem.h["momenta"]);
    momenta[2] = momentum;
    other.h = problem.h.with("momenta", Tensor::from(momenta, {4}));
    return other;
  };
  for (const double bad : {0.0, -0.5, 0.9 / 65536.0, 1.0 - 0.9 / 65536.0, 1.0, 2.0, std::nan("")}) {
    const std::string text = thrown([&] { with_momentum(bad).by(Reversible{}); });
    CAPTURE(text);
    CHECK(contains(text, "[reversible] momentum"));
    CHECK(contains(text, "step 2"));
  }
  for (const double good : {1.0 / 65536.0, 1.0 - 1.0 / 65536.0}) {
    const Case edge = with_momentum(good);
    CHECK(relative_error(edge.by(Reversible{}).gradients, edge.by(Unrolled{}).gradients) < 1e-11);
  }
  CHECK(contains(thrown([&] {
                   Case plain = problem;
                   plain.problem.step = ht::optim::sgd({.rate = "rates", .rate_groups = {0, 1}});
                   plain.by(Reversible{});
                 }),
                 "[reversible] momentum 0 "));
}

TEST_CASE("reversible: constants work, and are per-step hyperparameters of equal rows") {
  for (const bool dampened : {false, true}) {
    Case rows = Quadratic(40, Rule::momentum).problem();
    rows.h = rows.h.with("momenta", Tensor::full({40}, 0.9)).with("rates", Tensor::full({40, 2}, 0.05));
    rows.problem.step =
        ht::optim::sgd({.rate = "rates", .momentum = "momenta", .rate_groups = {0, 1}, .dampened = dampened});
    Case constant = rows;
    constant.problem.step = ht::optim::sgd({.rate = 0.05, .momentum = 0.9, .dampened = dampened});
    const Hypergradient a = rows.by(Reversible{}), b = constant.by(Reversible{});
    CHECK(a.value == b.value);
    CHECK(same_bits(a.parameters.tensors(), b.parameters.tensors()));
    CHECK(same_bits(a.gradients["h"], b.gradients["h"]));
    CHECK(same_bits(a.gradients["start"], b.gradients["start"]));
    CHECK(b.unused() == std::vector<std::string>{"rates", "momenta"});
    // The executed momentum is 58982/65536, not 0.9, in the adjoint too.
    Case executed = rows;
    executed.h = rows.h.with("momenta", Tensor::full({40}, 58982.0 / 65536.0));
    const Hypergradient expected = executed.by(Unrolled{});
    CHECK(relative_error(a.gradients, expected.gradients) < 1e-10);
    CHECK(relative_error(rows.by(Unrolled{}).gradients, expected.gradients) > 1e-7);
  }
}

TEST_CASE("reversible: float32 parameters") {
  const DigitsOptions options{.sizes = {64, 8, 10}, .steps = 60};
  DigitsOptions single = options;
  single.dtype = ht::Dtype::float32;
  const Hypergradient expected = integer_run::with_rounded_momenta(digits(options)).by(Unrolled{});
  const Hypergradient result = digits(single).by(Reversible{});
  CHECK(result.gradients["log_l2"].dtype() == ht::Dtype::float32);
  CHECK(result.parameters.tensors()[0].dtype() == ht::Dtype::float32);
  CHECK(relative_error(result.gradients, expected.gradients) < 1e-4);
  CHECK(relative_error(result.gradients, expected.gradients) > 1e-9);
}

TEST_CASE("reversible: what has no exact inverse is refused by name") {
  for (const Rule rule : {Rule::tanh_momentum, Rule::slow_weights}) {
    const std::string text = thrown([&] { Quadratic(3, rule).problem().by(Reversible{}); });
    CHECK(contains(text, "[reversible]"));
    CHECK(contains(text, name_of(rule)));
    CHECK(contains(text, "reversible_step"));
  }
  Case mixed = Quadratic(3, Rule::momentum).problem();
  mixed.problem.step.initial_buffers = [](const TensorList& w) { return TensorList{w[0]}; };
  CHECK(contains(thrown([&] { mixed.by(Reversible{}); }), "1 buffers for 2 parameters"));
  mixed.problem.initial_buffers = [](const NamedTensors& w, const NamedTensors&) {
    return TensorList{w.tensors()[0], Tensor::zeros({7})};
  };
  CHECK(contains(thrown([&] { mixed.by(Reversible{}); }), "' is float64 (7), but the parameter is float64 "));
  mixed.problem.initial_buffers = [](const NamedTensors& w, const NamedTensors&) {
    return TensorList{w.tensors()[0], Tensor()};
  };
  CHECK(contains(thrown([&] { mixed.by(Reversible{}); }),
                 "[hypergradient] one of the initial buffers is absent"));
}

TEST_CASE("reversible: a state that leaves the fixed-point range stops with the step") {
  Case problem = Quadratic(60, Rule::momentum).problem();
  problem.h = problem.h.with("rates", Tensor::full({60, 2}, 20.0));
  const Hypergradient result = problem.by(Reversible{});
  CHECK(result.status == ResultStatus::diverged);
  CHECK(result.failed_step >= 0);
  CHECK(result.failed_step < 10);
  CHECK(contains(result.message, "fixed point ends at 2^40"));
  CHECK(contains(result.message, "'"));
  CHECK(contains(result.message, "a lower rate or momentum"));
  CHECK(result.unused().empty());
}

TEST_CASE("reversible: every way in which a point fails is a result, or says that it is of this point") {
  const Case problem = Quadratic(4, Rule::momentum).problem();
  const auto failed = [&](const char* name, const Tensor& value, const char* what, std::int64_t step) {
    Case bad = problem;
    bad.h = problem.h.with(name, value);
    const Hypergradient result = bad.by(Reversible{});
    CHECK(result.status == ResultStatus::diverged);
    CHECK(result.failed_step == step);
    CAPTURE(result.message);
    CHECK(contains(result.message, what));
  };
  std::vector<double> start = ladder::elements(problem.h["start"]);
  for (const double bad : {std::nan(""), HUGE_VAL, -0x1p40}) {
    start[0] = bad;
    failed("start", Tensor::from(start, {5}), "an initial weight of '", 0);
  }
  std::vector<double> rates = ladder::elements(problem.h["rates"]);
  rates[5] = HUGE_VAL;
  failed("rates", Tensor::from(rates, {4, 2}), "the learning rate of '", 2);
  Case momentum = problem;
  momentum.h = problem.h.with("momenta", Tensor::from({0.5, 0.5, 0.5, 1.0}, {4}));
  std::int64_t step = -1;
  try {
    momentum.by(Reversible{});
  } catch (const ht::bilevel::OutOfRange& error) {
    step = error.step();
  }
  CHECK(step == 3);
  // The largest number below the end still trains.
  start[0] = 0x1p39;
  Case large = problem;
  large.h = problem.h.with("start", Tensor::from(start, {5}));
  const Hypergradient result = large.by(Reversible{});
  CHECK(result.status == ResultStatus::exact);
  CHECK(relative_error(result.gradients, large.by(Unrolled{}).gradients) < 1e-10);
}

TEST_CASE("reversible: an initial velocity of 1,024 and more has its room from the start") {
  Case problem = Quadratic(4, Rule::momentum).problem();
  const auto with_velocity = [&](double first) {
    problem.problem.initial_buffers = [=](const NamedTensors& w, const NamedTensors&) {
      TensorList velocities;
      for (const Tensor& each : w.tensors()) velocities.push_back(Tensor::full(each.shape(), first));
      return velocities;
    };
    return problem.by(Reversible{});
  };
  const Hypergradient large = with_velocity(5000.0);
  CHECK(large.status == ResultStatus::exact);
  CHECK(large.cost.gradients == 2 * 4);  // no step had to find it out
  CHECK(relative_error(large.gradients, problem.by(Unrolled{}).gradients) < 1e-8);
  const Hypergradient beyond = with_velocity(-0x1p40);
  CHECK(beyond.status == ResultStatus::diverged);
  CHECK(beyond.failed_step == 0);
  CHECK(contains(beyond.message, "an initial velocity of '"));
}

TEST_CASE("reversible: a gradient that is not finite is named, with its parameter") {
  Case problem = Quadratic(4, Rule::momentum).problem();
  const std::string name = problem.by(Reversible{}).parameters.names()[1];
  problem.problem.loss = [loss = problem.problem.loss, name](const NamedTensors& w, const NamedTensors& h,
                                                             const ht::bilevel::StepContext& context) {
    const Tensor plain = loss(w, h, context);
    // 0 with an infinite slope.
    return context.step < 2 ? plain : plain + ht::sum(ht::sqrt(w[name] - ht::stop_gradient(w[name])));
  };
  const Hypergradient result = problem.by(Reversible{});
  CHECK(result.status == ResultStatus::diverged);
  CHECK(result.failed_step == 2);
  CHECK(contains(result.message, "the gradient of '" + name + "' is infinite or NaN"));
}

TEST_CASE("reversible: a step that leaves the range when it runs again did not replay") {
  Case problem = Quadratic(4, Rule::momentum).problem();
  const auto slope = std::make_shared<double>(0.0);
  problem.problem.loss = [loss = problem.problem.loss, slope](const NamedTensors& w, const NamedTensors& h,
                                                              const ht::bilevel::StepContext& context) {
    const Tensor x = w.tensors()[0];
    // The value is that of before, the gradient is not.
    return loss(w, h, context) + *slope * ht::sum(x - ht::stop_gradient(x));
  };
  const auto recorded = ht::vjp(
      [&](const TensorList& h) {
        return ht::bilevel::solve(problem.problem, problem.h.with(h), Reversible{}).parameters.tensors();
      },
      problem.h.tensors());
  recorded.second(recorded.first);
  *slope = 1e7;
  CHECK(contains(thrown([&] { recorded.second(recorded.first); }), "did not replay"));
}
