// A zero that is one by selection does not meet an infinite slope, in any mode; any other zero does.
// ctest labels: levels
#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include <hypertape/bilevel/estimators.h>
#include <hypertape/bilevel/hypergradient.h>
#include <hypertape/optim/step.h>
#include "support_cases.h"

namespace ht = hypertape;
namespace bl = ht::bilevel;
using namespace supports;

TEST_CASE("What a selection left out has no influence, whatever its slope") {
  const std::vector<Case> cases = {
      // where
      {"sqrt below",
       [](const Tensor& x) { return ht::where(ht::greater(x, 0.0), ht::sqrt(x), x); },
       {-1, -4, 4},
       {1, 1, 0.25},
       {0, 0, -1.0 / 32}},
      {"log at 0",
       [](const Tensor& x) { return ht::where(ht::greater(x, 2.0), ht::log(x), 2.0 * x); },
       {0, 2, 4},
       {2, 2, 0.25},
       {0, 0, -1.0 / 16}},
      {"exp beyond the range",
       [](const Tensor& x) { return ht::where(ht::less(x, 1.0), ht::exp(x), Tensor::ones({2})); },
       {0, 1e10},
       {1, 0},
       {1, 0}},
      {"reciprocal",
       [](const Tensor& x) { return ht::where(ht::equal(x, 0.0), Tensor::zeros({2}), 1.0 / x); },
       {0, 2},
       {0, -0.25},
       {0, 0.25}},
      {"NaN in",
       [](const Tensor& x) { return ht::where(ht::less(x, 5.0), x * x, 0.0); },
       {1, no_number},
       {2, 0},
       {2, 0}},
      {"infinite in",
       [](const Tensor& x) { return ht::where(ht::less(x, 5.0), ht::square(x), 0.0); },
       {1, inf},
       {2, 0},
       {2, 0}},
      // operations between
      {"two between",
       [](const Tensor& x) { return ht::where(ht::greater(x, 0.0), -(ht::log(x) + 1.0), 0.0); },
       {0, 2},
       {0, -0.5},
       {0, 0.25}},
      {"slopes between",
       [](const Tensor& x) {
         return ht::where(ht::greater(x, 0.0), ht::tanh(2.0 * ht::square(ht::sqrt(x))), 0.0);
       },
       {0, 0.5},
       {0, 2 / std::pow(std::cosh(1.0), 2)},
       {0, -8 * std::tanh(1.0) / std::pow(std::cosh(1.0), 2)}},
      {"power",
       [](const Tensor& x) { return ht::where(ht::greater(x, 0.0), ht::pow(x, 0.5) / 2.0, x); },
       {-1, 0, 4},
       {1, 1, 0.125},
       {0, 0, -1.0 / 64}},
      {"two operands",
       [](const Tensor& x) {
         return ht::where(ht::greater(x, 0.0), ht::log(x) * ht::sqrt(x), Tensor::zeros(x.shape()));
       },
       {0, 1},
       {0, 1},
       {0, 0}},
      // sums of cotangents
      {"union",
       [](const Tensor& x) {
         const Tensor y = ht::log(x);
         return ht::where(ht::greater(x, 1.0), y, 0.0) + ht::where(ht::greater(x, 3.0), y, 0.0);
       },
       {0, 2, 4},
       {0, 0.5, 0.5},
       {0, -0.25, -0.125}},
      // broadcasting
      {"a row's branch",
       [](const Tensor& x) {
         const Tensor mask = column(Tensor::from({true, false}, Shape{2}));
         return ht::where(ht::logical_and(mask, ht::greater(x, 0.0)), ht::log(x) * column(vec({3, inf})),
                          0.0);
       },
       {0, 2},
       {0, 1.5},
       {0, -0.75}},
      {"a branch taken by no row",
       [](const Tensor& x) {
         const Tensor mask =
             ht::logical_and(column(Tensor::from({true, true}, Shape{2})), ht::greater(x, 0.0));
         return ht::where(mask, column(vec({1, 1})) + ht::sqrt(x), 0.0);
       },
       {0, 4},
       {0, 0.5},
       {0, -1.0 / 16}},
      {"one number for all",
       [](const Tensor& x) {
         return ht::where(Tensor::from({false, false}, Shape{2}), ht::log(x) * vec({1, 2}), vec({1, 1}));
       },
       {0},
       {0},
       {0}},
      // relu, clamp, maximum, minimum, leaky_relu, abs
      {"relu", [](const Tensor& x) { return ht::relu(ht::log(x)); }, {0, 2}, {0, 0.5}, {0, -0.25}},
      {"clamp",
       [](const Tensor& x) { return ht::clamp(ht::log(x), -1.0, 1.0); },
       {0, 2, inf},
       {0, 0.5, 0},
       {0, -0.25, 0}},
      {"clamp to a bound that is a function",
       [](const Tensor& x) {
         return ht::clamp(vec({-2, 5}), ht::log(x), vec({3, 3}));
       },
       {0, 2},
       {0, 0},
       {0, 0}},
      {"maximum",
       [](const Tensor& x) { return ht::maximum(ht::sqrt(x), 1.0 + 0.0 * ht::stop_gradient(x)); },
       {0, 4},
       {0, 0.25},
       {0, -1.0 / 32}},
      {"minimum",
       [](const Tensor& x) {
         return ht::minimum(1.0 / x, vec({3, 3}));
       },
       {0, 2},
       {0, -0.25},
       {0, 0.25}},
      {"masked",
       [](const Tensor& x) {
         return ht::masked(ht::log(x), vec({-1, 1}));
       },
       {0, 2},
       {0, 0.5},
       {0, -0.25}},
      {"leaky_relu hands on",
       [](const Tensor& x) { return ht::where(ht::greater(x, 0.0), ht::leaky_relu(ht::log(x), 0.5), 0.0); },
       {0, 2},
       {0, 0.5},
       {0, -0.25}},
      {"relu of a broadcast maximum",
       [](const Tensor& x) {
         return ht::relu(ht::maximum(column(vec({-1, -2})), ht::log(x)));
       },
       {0, 2},
       {0, 1},
       {0, -0.5}},
      // parts
      {"slice",
       [](const Tensor& x) { return ht::slice(ht::log(x), 0, 1, 3); },
       {0, 2, 4},
       {0, 0.5, 0.25},
       {0, -0.25, -1.0 / 16}},
      {"gather",
       [](const Tensor& x) {
         return ht::gather(ht::log(x), 0, indices({1, 1}));
       },
       {0, 2},
       {0, 1},
       {0, -0.5}},
      {"take",
       [](const Tensor& x) { return ht::take(ht::sqrt(x), indices({1})); },
       {0, 4},
       {0, 0.25},
       {0, -1.0 / 32}},
      {"the largest", [](const Tensor& x) { return ht::max(ht::log(x)); }, {0, 2}, {0, 0.5}, {0, -0.25}},
      {"labels' elements",
       [](const Tensor& x) {
         return ht::gather_labels(ht::log(ht::reshape(x, {1, 2})), indices({1}));
       },
       {0, 2},
       {0, 0.5},
       {0, -0.25}},
      {"a row of many",
       [](const Tensor& x) { return ht::unstack(ht::log(x))[1]; },
       {0, 2},
       {0, 0.5},
       {0, -0.25}},
      {"one row as it is, another in part",
       [](const Tensor& x) {
         const TensorList rows = ht::unstack(ht::log(ht::reshape(x, {2, 2})));
         return ht::where(Tensor::from({false, true}, Shape{2}), rows[1], 0.0) + rows[0];
       },
       {2, 4, 0, 1},
       {0.5, 0.25, 0, 1},
       {-0.25, -1.0 / 16, 0, -1}},
      {"a piece",
       [](const Tensor& x) {
         return ht::split(ht::log(x), {1, 1})[1];
       },
       {0, 2},
       {0, 0.5},
       {0, -0.25}},
      {"a piece of a vector",
       [](const Tensor& x) {
         return ht::unflatten(ht::log(x), {Shape{1}, Shape{1}})[1];
       },
       {0, 2},
       {0, 0.5},
       {0, -0.25}},
      {"a diagonal",
       [](const Tensor& x) {
         return ht::diagonal(ht::log(ht::reshape(x, {2, 2})));
       },
       {2, 0, 0, 4},
       {0.5, 0, 0, 0.25},
       {-0.25, 0, 0, -1.0 / 16}},
      {"a triangle",
       [](const Tensor& x) {
         return ht::tril(ht::log(ht::reshape(x, {2, 2})));
       },
       {2, 0, 1, 4},
       {0.5, 0, 1, 0.25},
       {-0.25, 0, -1, -1.0 / 16}},
      // what moves elements moves what is known of them
      {"moved",
       [](const Tensor& x) {
         const Tensor y = ht::transpose(ht::reshape(ht::log(x), {2, 2}));
         const Tensor both = ht::roll(ht::flip(ht::concatenate({y, y}, 0), {1}), 1, 0);
         return ht::where(ht::greater(both, 0.0), both, 0.0);
       },
       {0, 2, 0.5, 4},
       {0, 1, 0, 0.5},
       {0, -0.5, 0, -1.0 / 8}},
      {"padded",
       [](const Tensor& x) {
         return ht::slice(ht::pad(ht::log(x), {{1, 1}}), 0, 2, 4);
       },
       {0, 2},
       {0, 0.5},
       {0, -0.25}},
      {"a sum not taken",
       [](const Tensor& x) {
         const Tensor y = ht::sum(ht::log(ht::reshape(x, {2, 2})), {1});
         return ht::where(Tensor::from({false, true}, Shape{2}), y, 0.0);
       },
       {0, 1, 2, 4},
       {0, 0, 0.5, 0.25},
       {0, 0, -0.25, -1.0 / 16}},
      {"as float64 again",
       [](const Tensor& x) {
         return ht::relu(ht::astype(ht::astype(ht::log(x), ht::Dtype::float32), ht::Dtype::float64));
       },
       {0, 2},
       {0, 0.5},
       {0, -0.25}},
  };
  for (const Case& each : cases) expect_case(each);
}

TEST_CASE("A zero that is the value of a product meets the infinite slope: the NaN is honest") {
  const auto checked = [](const Function& f, double x) {
    const Tensor at = vec({x});
    const Function total = [&](const Tensor& y) { return ht::sum(f(y)); };
    CHECK(std::isnan(ht::grad(total, at).item()));
    CHECK(std::isnan(ht::grad(kept_twice(total), at).item()));
    CHECK(std::isnan(ht::jvp(total, at, vec({1})).second.item()));
    CHECK(std::isnan(ht::hvp(total, at, vec({1})).item()));
  };
  checked([](const Tensor& x) { return ht::square(ht::sqrt(x)); }, 0.0);  // the slope is 1
  checked([](const Tensor& x) { return ht::where(ht::less(x, 1.0), ht::square(ht::sqrt(x)), x); }, 0.0);
  // One use of the root is selected away, the other is not.
  checked(
      [](const Tensor& x) {
        const Tensor y = ht::sqrt(x);
        return ht::where(ht::greater(x, 0.0), y, 0.0) + ht::square(y);
      },
      0.0);
  checked([](const Tensor& x) { return 0.0 * ht::sqrt(x); }, 0.0);
  checked([](const Tensor& x) { return ht::relu(ht::square(ht::sqrt(x)) + 1.0); }, 0.0);
  checked([](const Tensor& x) { return ht::sqrt(ht::square(x)); }, 0.0);
  checked([](const Tensor& x) { return ht::sqrt(0.0 * x); }, 0.0);
  checked([](const Tensor& x) { return ht::sqrt(x - x); }, 0.0);
  checked([](const Tensor& x) { return ht::sqrt(ht::where(ht::less(x, 1.0), ht::square(x), x)); }, 0.0);
  checked([](const Tensor& x) { return ht::sqrt(ht::concatenate({ht::square(x), vec({1})}, 0)); }, 0.0);
  // One term of the operand is selected away, the other is not.
  checked([](const Tensor& x) { return ht::sqrt(ht::relu(x) + ht::square(x)); }, 0.0);
  checked([](const Tensor& x) { return ht::sqrt(ht::relu(x)) * ht::sqrt(ht::square(x)); }, 0.0);
}

TEST_CASE("Selections in a row, and joined, need no stack") {
  const auto f = [](const Tensor& x) {
    Tensor y = ht::log(x);
    for (int i = 0; i < 20000; ++i) y = ht::relu(y);
    return ht::sum(y);
  };
  CHECK(agree(ht::grad(f, vec({0, 2})), {0, 0.5}));
  const auto many = [](const Tensor& x) {
    const Tensor y = ht::log(x);
    Tensor total = Tensor::scalar(0.0);
    for (int i = 0; i < 5000; ++i) total = total + ht::slice(y, 0, 1, 2);
    return ht::sum(total);
  };
  CHECK(agree(ht::grad(many, vec({0, 2})), {0, 2500}));
}

namespace {

// From w = (0, 2) along f = sum of h log(w) where w > 1, else (w - h)^2 / 2.
bl::Problem training(std::int64_t steps) {
  bl::Problem problem;
  problem.init = [](const ht::NamedTensors&) { return ht::NamedTensors{{"w", vec({0, 2})}}; };
  problem.loss = [](const ht::NamedTensors& w, const ht::NamedTensors& h, const bl::StepContext&) {
    const Tensor &x = w["w"], &c = h["c"];
    return ht::sum(ht::where(ht::greater(x, 1.0), c * ht::log(x), 0.5 * ht::square(x - c)));
  };
  problem.step = ht::optim::sgd({.rate = "rate"});
  problem.steps = steps;
  return problem;
}

const std::vector<std::pair<const char*, bl::Estimator>>& methods() {
  static const std::vector<std::pair<const char*, bl::Estimator>> all = {
      {"unrolled", bl::Unrolled{}}, {"checkpointed", bl::Checkpointed{}}, {"trajectory", bl::Trajectory{}}};
  return all;
}

}  // namespace

TEST_CASE("In a training loss all methods leave out what was not selected") {
  constexpr double rate = 0.125, c = 0.25;
  constexpr int steps = 6;
  // Both elements' recursions, differentiated by hand.
  double w[2] = {0, 2}, by_c[2] = {}, by_rate[2] = {};
  for (int t = 0; t < steps; ++t) {
    by_rate[1] = by_rate[1] * (1 + rate * c / (w[1] * w[1])) - c / w[1];
    by_c[1] = by_c[1] * (1 + rate * c / (w[1] * w[1])) - rate / w[1];
    w[1] -= rate * c / w[1];
    by_rate[0] = by_rate[0] * (1 - rate) - (w[0] - c);
    by_c[0] = by_c[0] * (1 - rate) + rate;
    w[0] -= rate * (w[0] - c);
  }
  const ht::NamedTensors h{{"rate", Tensor::scalar(rate)}, {"c", Tensor::scalar(c)}};
  const bl::OuterLoss outer = [](const ht::NamedTensors& x, const ht::NamedTensors&) {
    return ht::dot(x["w"], vec({1, 3}));
  };
  auto all = methods();
  all.emplace_back("forward", bl::Forward{});
  for (const auto& [name, method] : all) {
    const char* const shown = name;
    INFO(std::string(shown));
    const bl::Hypergradient result = bl::hypergradient(training(steps), outer, h, method);
    CHECK(result.status == bl::ResultStatus::exact);
    REQUIRE(result.gradients["c"].defined());
    CHECK(std::abs(result.gradients["c"].item() - (by_c[0] + 3 * by_c[1])) < 1e-12);
    CHECK(std::abs(result.gradients["rate"].item() - (by_rate[0] + 3 * by_rate[1])) < 1e-12);
  }
}

TEST_CASE("Where a training step's gradient ends, so does what is known of its cotangent, in every method") {
  // The gradient of sqrt at 0 is infinite, and the update does not take it. Methods that differentiate the
  // update and the gradient apart cannot know that, so no method of reverse mode does: all say that the
  // hypergradient is not finite.
  bl::Problem problem = training(2);
  problem.init = [](const ht::NamedTensors& h) { return ht::NamedTensors{{"w", h["start"]}}; };
  problem.loss = [](const ht::NamedTensors& w, const ht::NamedTensors&, const bl::StepContext&) {
    return ht::sum(ht::sqrt(w["w"]));
  };
  problem.step =
      ht::optim::Step{.name = "masked",
                      .initial_buffers = [](const TensorList&) { return TensorList{}; },
                      .update =
                          [](ht::optim::State state, TensorList g, const ht::NamedTensors& h) {
                            const Tensor taken = ht::where(Tensor::from({true, false}, Shape{2}), g[0], 0.0);
                            return ht::optim::State{{state.parameters[0] - h["rate"] * taken}, {}};
                          },
                      .gradient_cotangent = {},
                      .reversible = {}};
  const ht::NamedTensors h{{"rate", Tensor::scalar(0.5)}, {"start", vec({4, 0})}};
  const bl::OuterLoss outer = [](const ht::NamedTensors& x, const ht::NamedTensors&) {
    return ht::sum(x["w"]);
  };
  for (const auto& [name, method] : methods()) {
    const char* const shown = name;
    INFO(std::string(shown));
    const bl::Hypergradient result = bl::hypergradient(problem, outer, h, method);
    CHECK(result.status == bl::ResultStatus::diverged);
  }
}
