// What a method costs: evaluations of the training loss, counted exactly, and bytes.
#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <string>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/memory.h>
#include "bilevel_problems.h"
#include "core/backend/digit_buffer.h"
#include "ladder.h"

namespace {

namespace ht = hypertape;
using namespace bilevel_problems;
using namespace ht::bilevel;

struct Counted {
  Cost cost;
  std::int64_t losses = 0;  ///< evaluations that really happened
};

Counted count(Case problem, const Estimator& method) {
  const auto calls = std::make_shared<std::int64_t>(0);
  problem.problem.loss = [calls, loss = problem.problem.loss](const NamedTensors& w, const NamedTensors& h,
                                                              const StepContext& context) {
    ++*calls;
    return loss(w, h, context);
  };
  const Cost cost = problem.by(method).cost;
  return {cost, *calls};
}

double peak(const DigitsOptions& options, const Estimator& method) {
  return static_cast<double>(digits(options).by(method).cost.peak_bytes);
}

DigitsOptions net(std::int64_t steps) {
  return {.sizes = {64, 40, 10}, .steps = steps, .batch = 20, .rate = 0.05, .momentum = 0.9};
}

std::int64_t parameters(const DigitsOptions& options) {
  return ht::nn::Mlp(options.sizes, ht::nn::Activation::tanh).parameter_count();
}

}  // namespace

TEST_CASE("cost: gradients and Hessian-vector products are counted, and are the evaluations that happen") {
  constexpr std::int64_t T = 9, scalars = 3 + 2 * T + T + 5;
  for (const Rule rule : {Rule::momentum, Rule::tanh_momentum}) {
    const Case problem = Quadratic(T, rule).problem();
    const auto expect = [&](const Estimator& method, std::int64_t gradients, std::int64_t products) {
      CAPTURE(method.name());
      const Counted counted = count(problem, method);
      CHECK(counted.cost.gradients == gradients);
      CHECK(counted.losses == gradients);
      CHECK(counted.cost.hessian_vector_products == products);
    };
    expect(Unrolled{}, T, T);
    for (const std::int64_t budget : {0, 1, 2, 9, 20}) expect(Checkpointed{budget}, 2 * T, T);
    // Without gradient_cotangent the dual step must first know the gradient.
    expect(Trajectory{}, rule == Rule::momentum ? 2 * T : 3 * T, T);
    expect(Forward{}, (scalars + 1) * T, (scalars + 1) * T);  // one for the growth
    if (rule == Rule::momentum) expect(Reversible{}, 2 * T, T);
    const auto tangent =
        directional_derivative(problem.problem, problem.outer, problem.h, random_direction(problem.h, 1));
    CHECK(tangent.cost.gradients == 2 * T);
    CHECK(tangent.cost.hessian_vector_products == 2 * T);
    const auto unmeasured = directional_derivative(problem.problem, problem.outer, problem.h,
                                                   random_direction(problem.h, 1), {.measure_growth = false});
    CHECK(unmeasured.cost.gradients == T);
    CHECK(unmeasured.cost.hessian_vector_products == T);
  }
}

TEST_CASE("cost: bytes of trajectory and unrolled grow linearly in the steps, per-step rows included") {
  for (const Estimator& method : {Estimator(Trajectory{}), Estimator(Unrolled{})}) {
    CAPTURE(method.name());
    const double a = peak(net(100), method), b = peak(net(200), method), c = peak(net(400), method);
    CHECK(b > a);
    CHECK((c - b) / 200.0 == doctest::Approx((b - a) / 100.0).epsilon(0.03));
    // One state of w and v in float64 per step, at least.
    CHECK((c - b) / 200.0 > 16.0 * static_cast<double>(parameters(net(1))));
  }
  // No tape in trajectory: no more than the states and the rows' headers.
  const double per_step = (peak(net(400), Trajectory{}) - peak(net(200), Trajectory{})) / 200.0;
  CHECK(per_step < 1.15 * 16.0 * static_cast<double>(parameters(net(1))) + 4096.0);
}

TEST_CASE("cost: the tape of an unrolled run holds what theory says, and gives it up step by step") {
  // Of a step (docs/bilevel.md): new weights and velocities; of each hidden layer its output, the output's
  // cotangent and the product's; logits and their cotangent.
  const DigitsOptions few = {.sizes = {64, 200, 150, 10}, .steps = 4, .batch = 200, .momentum = 0.9};
  DigitsOptions many = few;
  many.steps = 12;
  const auto bytes = [](std::int64_t count) {
    return static_cast<double>(ht::accounted_bytes(64 + 8 * static_cast<std::size_t>(count)));
  };
  double theory = 0.0;
  for (std::size_t l = 0; l + 1 < few.sizes.size(); ++l) {
    const std::int64_t in = few.sizes[l], out = few.sizes[l + 1];
    theory += 2.0 * (bytes(in * out) + bytes(out));
    theory += (out == 10 ? 2.0 : 3.0) * bytes(few.batch * out);
  }
  const double measured = (peak(many, Unrolled{}) - peak(few, Unrolled{})) / 8.0;
  CAPTURE(measured / theory);
  CHECK(measured > theory);
  CHECK(measured < 1.03 * theory);

  // Live bytes at the end of the run, and when the backward pass has come back to the initial weights.
  Case problem = digits(many);
  const auto live = [] { return static_cast<double>(ht::memory_statistics().live_bytes); };
  const double before = live();
  double at_end = 0.0, at_start = 0.0;
  problem.outer = [&, outer = problem.outer](const NamedTensors& w, const NamedTensors& h) {
    at_end = live() - before;
    return outer(w, h);
  };
  problem.problem.init = [&, init = problem.problem.init](const NamedTensors& h) {
    const NamedTensors w = init(h);
    return w.with(ht::custom_vjp("probe", w.tensors(), [&](const TensorList& plain) {
      return ht::CustomVjp{plain, [&](const TensorList& cotangents) {
                             at_start = live() - before;
                             return cotangents;
                           }};
    }));
  };
  const double highest = static_cast<double>(problem.by(Unrolled{}).cost.peak_bytes);
  CHECK(at_end > 12.0 * theory);
  CHECK(highest < 1.06 * at_end);
  CHECK(at_start < 0.15 * at_end);
}

TEST_CASE("cost: bytes of checkpointed grow like the square root of the steps") {
  const double a = peak(net(100), Checkpointed{}), b = peak(net(1600), Checkpointed{});
  const double rows = 1500.0 * 1024.0;  // what the per-step hyperparameters themselves need
  CHECK(b - rows < 4.0 * a);
  CHECK(b > 2.0 * a);
  // Fewer checkpoints: fewer states, longer tapes; all budgets stay below the whole tape.
  const double whole = peak(net(400), Unrolled{});
  for (const std::int64_t budget : {5, 20, 100}) CHECK(peak(net(400), Checkpointed{budget}) < 0.6 * whole);
}

TEST_CASE("cost: bytes of reversible do not grow but for digit planes and per-step hyperparameters") {
  const DigitsOptions few = net(100), many = net(2000);
  // Planes of the same momenta.
  const Case problem = digits(many);
  const std::vector<double> momenta = ladder::elements(problem.problem.prepare(problem.h)["momentum"]);
  ht::detail::DigitSchedule schedule;
  for (const double each : momenta) {
    if (schedule.must_flush()) schedule.flush();
    schedule.advance(ht::detail::momentum_numerator(each));
  }
  CHECK(schedule.planes() > 5);
  const double planes =
      static_cast<double>(schedule.planes() * sizeof(std::uint32_t)) * static_cast<double>(parameters(many));
  // 3 numbers per step (2 rates, 1 momentum): prepared, as rows with a header each, and their gradients.
  const double per_step = 2000.0 * 1024.0;
  const double a = peak(few, Reversible{}), b = peak(many, Reversible{});
  CAPTURE(a);
  CAPTURE(planes);
  CHECK(b <= 1.2 * a + 1.125 * planes + per_step);
  // The states alone would need more than that.
  CHECK(peak(many, Trajectory{}) > 5.0 * b);
}

TEST_CASE("cost: peak bytes count what lies above the level before, and every method gives all of it back") {
  const Case problem = digits(net(30));
  const auto ballast = Tensor::zeros({1 << 18});
  std::vector<Estimator> methods = reverse_methods();
  for (const Estimator& method : methods) {
    CAPTURE(method.name());
    problem.by(method);
    const ht::MemoryStatistics before = ht::memory_statistics();
    std::int64_t first = 0;
    for (int repeat = 0; repeat < 3; ++repeat) {
      const Cost cost = problem.by(method).cost;
      CHECK(cost.peak_bytes > 0);
      CHECK(cost.peak_bytes < 30 * (1 << 20));
      if (repeat == 0) first = cost.peak_bytes;
      CHECK(std::abs(cost.peak_bytes - first) <= 2 * ht::peak_granularity);
    }
    const ht::MemoryStatistics after = ht::memory_statistics();
    CHECK(after.live_blocks == before.live_blocks);
    CHECK(after.live_bytes == before.live_bytes);
  }
  const ht::MemoryStatistics before = ht::memory_statistics();
  Quadratic(4, Rule::momentum).problem().by(Forward{});
  directional_derivative(problem.problem, problem.outer, problem.h, problem.h);
  {
    auto [end, pullback] = ht::vjp(
        [&](const TensorList& h) {
          return solve(problem.problem, problem.h.with(h), Reversible{}).parameters.tensors();
        },
        problem.h.tensors());
    pullback(end);
    pullback(end);
  }
  CHECK(ht::memory_statistics().live_blocks == before.live_blocks);
}
