// Adam against numbers worked by hand and PyTorch's, and its derivatives where the second moment is 0. Those
// of whole runs in every setting: test_bilevel_exact.cpp.
#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/hypergradient.h>
#include <hypertape/core/error.h>
#include <hypertape/optim/step.h>
#include "bilevel_problems.h"
#include "ladder.h"
#include "optimizer_runs.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using ht::Dtype;
using ht::NamedTensors;
using ht::Tensor;
using ht::TensorList;
using ht::optim::AdamOptions;
using ht::optim::State;
using ht::optim::Step;

// Weights w0, w1 with loss 1/2 (w0 - 1)^2 + 1/2 (w1 - target)^2 from w0 = 0 and w1 = start;
// F = 1/2 |w - 0.25|^2. From the target itself every gradient of w1 is 0.
constexpr double rate = 0.1, beta1 = 0.75, beta2 = 0.9, epsilon = 0.5;
bilevel_problems::Case resting(double target, double start, Dtype dtype = Dtype::float64) {
  bilevel_problems::Case result;
  result.name = "resting";
  result.h = {{"target", Tensor::scalar(target, dtype)}};
  ht::bilevel::Problem& problem = result.problem;
  problem.steps = 8;
  problem.step = ht::optim::adam({.rate = rate, .beta1 = beta1, .beta2 = beta2, .epsilon = epsilon});
  problem.init = [=](const NamedTensors&) {
    return NamedTensors{{"w0", Tensor::scalar(0.0, dtype)}, {"w1", Tensor::scalar(start, dtype)}};
  };
  problem.loss = [](const NamedTensors& w, const NamedTensors& h, const ht::bilevel::StepContext&) {
    return 0.5 * ht::square(w["w0"] - 1.0) + 0.5 * ht::square(w["w1"] - h["target"]);
  };
  result.outer = [](const NamedTensors& w, const NamedTensors&) {
    return 0.5 * ht::square(w["w0"] - 0.25) + 0.5 * ht::square(w["w1"] - 0.25);
  };
  return result;
}

// d w1 / d target at rest: the gradient's derivative goes through the first moment alone.
double resting_slope() {
  long double slope = 0.0L, moment = 0.0L, product = 1.0L;
  for (int t = 0; t < 8; ++t) {
    moment = beta1 * moment + (1.0L - beta1) * (slope - 1.0L);
    product *= beta1;
    slope -= rate * moment / (1.0L - product) / epsilon;
  }
  return static_cast<double>(slope);
}

Tensor objective(const bilevel_problems::Case& problem, const Tensor& target) {
  const NamedTensors h = {{"target", target}};
  return problem.outer(ht::bilevel::solve(problem.problem, h, ht::bilevel::Unrolled{}).parameters, h);
}

}  // namespace

TEST_CASE("adam: two steps worked by hand") {
  // w = 1, g = 4 then -3; beta1 = 0.5, beta2 = 0.75, epsilon = 1, rate 0.5.
  // m = 2, v = 4, corrected 4 and 16: w = 1 - 0.5 * 4 / 5 = 0.6.
  // m = 1 - 1.5 = -0.5, corrected / 0.75; v = 3 + 2.25 = 5.25, corrected / 0.4375 = 12.
  const NamedTensors h = {{"rate", Tensor::scalar(0.5)},
                          {"b1", Tensor::scalar(0.5)},
                          {"b2", Tensor::scalar(0.75)},
                          {"eps", Tensor::scalar(1.0)}};
  for (const AdamOptions& options :
       {AdamOptions{.rate = 0.5, .beta1 = 0.5, .beta2 = 0.75, .epsilon = 1.0},
        AdamOptions{.rate = "rate", .beta1 = "b1", .beta2 = "b2", .epsilon = "eps"}}) {
    const Step step = ht::optim::adam(options);
    const TensorList w = {Tensor::ones({1})};
    const State middle = step.update({w, step.initial_buffers(w)}, {Tensor::full({1}, 4.0)}, h);
    CHECK(middle.parameters[0].item() == doctest::Approx(0.6).epsilon(1e-15));
    const State end = step.update(middle, {Tensor::full({1}, -3.0)}, h);
    REQUIRE(end.buffers.size() == 4);
    CHECK(end.buffers[0].item() == -0.5);
    CHECK(end.buffers[1].item() == 5.25);
    CHECK(end.buffers[2].item() == 0.75);
    CHECK(end.buffers[3].item() == 0.4375);
    const double expected = 0.6 + 0.5 * (0.5 / 0.75) / (std::sqrt(12.0) + 1.0);
    CHECK(end.parameters[0].item() == doctest::Approx(expected).epsilon(1e-15));
  }
}

TEST_CASE("adam: weight decay is added to the gradient, or decoupled, by groups") {
  const TensorList w = {Tensor::full({1}, 2.0), Tensor::full({1}, 2.0)};
  const TensorList g = {Tensor::ones({1}), Tensor::ones({1})};
  const NamedTensors h = {{"decays", Tensor::from({0.5, 4.0})}, {"rates", Tensor::from({0.125, 0.25})}};
  for (const bool decoupled : {false, true}) {
    const Step step = ht::optim::adam({.rate = "rates",
                                       .epsilon = 1.0,
                                       .weight_decay = "decays",
                                       .decoupled = decoupled,
                                       .rate_groups = {1, 0}});
    const State next = step.update({w, step.initial_buffers(w)}, g, h);
    // After one step both corrected moments are those of the gradient itself: a move of g / (g + 1).
    for (std::size_t i = 0; i < 2; ++i) {
      const double r = i == 0 ? 0.25 : 0.125, decay = i == 0 ? 4.0 : 0.5;
      const double seen = decoupled ? 1.0 : 1.0 + 2.0 * decay;
      const double expected = (decoupled ? 2.0 * (1.0 - r * decay) : 2.0) - r * seen / (seen + 1.0);
      CHECK(next.parameters[i].item() == doctest::Approx(expected).epsilon(1e-14));
    }
  }
}

TEST_CASE("adam: values are PyTorch's") {
  using optimizer_runs::expect_torch;
  expect_torch(ht::optim::adam({.rate = 0.1, .beta1 = 0.8, .beta2 = 0.95}),
               {0.7562871083636997, -1.2605979495703867, 0.6281664422554938});
  expect_torch(ht::optim::adam({.rate = 0.1, .epsilon = 1e-3, .weight_decay = 0.125}),
               {0.5149912358556834, -0.8633653470730666, 0.5414112265578583});
  expect_torch(ht::optim::adam({.rate = 0.1, .weight_decay = 0.25, .decoupled = true}),
               {0.6309009320488691, -1.0910976127511078, 0.5706408724330668});
}

TEST_CASE("adam: float32 follows float64") {
  const Step step = ht::optim::adam({.rate = 0.1});
  const std::vector<double> exact = optimizer_runs::twenty_steps(step),
                            single = optimizer_runs::twenty_steps(step, {}, Dtype::float32);
  // Each of the 20 steps rounds a few times, relative to weights of about 1, and Adam's moves stay bounded.
  for (std::size_t i = 0; i < exact.size(); ++i) CHECK(std::abs(single[i] - exact[i]) < 20 * 8 * 0x1p-24);
}

TEST_CASE("adam: where the second moment is 0, the first derivative is exact and higher ones are finite") {
  using namespace ht::bilevel;
  const bilevel_problems::Case problem = resting(0.75, 0.75);
  const double slope = resting_slope();
  for (const Estimator& method :
       {Estimator(Unrolled{}), Estimator(Checkpointed{}), Estimator(Trajectory{}), Estimator(Forward{})}) {
    CAPTURE(method.name());
    const Hypergradient result = problem.by(method);
    CHECK(result.parameters["w1"].item() == 0.75);
    CHECK(result.gradients["target"].item() == doctest::Approx(0.5 * slope).epsilon(1e-13));
    CHECK(result.status == ResultStatus::exact);
  }
  // Real training agrees, up to the jump of the second derivative times the distance.
  constexpr double distance = 1e-6;
  const auto at = [&](double h) { return objective(problem, Tensor::scalar(h)).item(); };
  CHECK((at(0.75 + distance) - at(0.75 - distance)) / (2 * distance) ==
        doctest::Approx(0.5 * slope).epsilon(1e-4));
  // With the root constant, w1 is linear in the target: the second derivative is slope^2, the third 0.
  const auto f = [&](const TensorList& h) { return objective(problem, h[0]); };
  const auto first = [&](const TensorList& h) { return ht::grad(f, h)[0]; };
  const auto second = [&](const TensorList& h) { return ht::grad(first, h)[0]; };
  CHECK(second(problem.h.tensors()).item() == doctest::Approx(slope * slope).epsilon(1e-13));
  CHECK(ht::hvp(f, problem.h.tensors(), {Tensor::scalar(1.0)})[0].item() ==
        doctest::Approx(slope * slope).epsilon(1e-13));
  CHECK(std::abs(ht::grad(second, problem.h.tensors())[0].item()) < 1e-12);
}

TEST_CASE("adam: derivatives stay finite where gradients are tiny, in both dtypes") {
  for (const Dtype dtype : {Dtype::float32, Dtype::float64})
    for (int exponent = -340; exponent <= -8; exponent += 4) {
      const double gap = std::pow(10.0, exponent);
      CAPTURE(gap);
      const bilevel_problems::Case problem = resting(0.0, gap, dtype);
      const auto f = [&](const TensorList& h) { return objective(problem, h[0]); };
      const auto first = [&](const TensorList& h) { return ht::grad(f, h)[0]; };
      // dF = (w1 - 0.25) dw1; what the root, at most the gap, adds to epsilon is the error.
      const double tolerance = (dtype == Dtype::float32 ? 1e-5 : 1e-13) + 100 * gap;
      CHECK(first(problem.h.tensors()).item() == doctest::Approx(-0.25 * resting_slope()).epsilon(tolerance));
      CHECK(std::isfinite(ht::grad(first, problem.h.tensors())[0].item()));
    }
}

TEST_CASE("adam: what makes no sense is refused") {
  for (const double share : {-0.1, 1.0, std::nan("")}) {
    CHECK(contains(thrown([=] { ht::optim::adam({.beta1 = share}); }), "[adam] beta1"));
    CHECK(contains(thrown([=] { ht::optim::adam({.beta2 = share}); }), "[adam] beta2"));
  }
  for (const double bad : {0.0, -1e-8, std::nan("")})
    CHECK(contains(thrown([=] { ht::optim::adam({.epsilon = bad}); }), "[adam] epsilon"));
  CHECK(contains(thrown([] { ht::optim::adam({.rate = HUGE_VAL}); }), "[adam] rate"));
  CHECK(contains(thrown([] { ht::optim::adam({.weight_decay = -1.0}); }), "[adam] weight decay"));
  CHECK(contains(thrown([] { ht::optim::adam({.rate_groups = {0, -1}}); }), "rate group -1"));

  const NamedTensors h = {{"pair", Tensor::ones({2})}};
  const auto message = [&](const AdamOptions& options, const TensorList& w) {
    const Step step = ht::optim::adam(options);
    return thrown([&] { step.update({w, step.initial_buffers(w)}, w, h); });
  };
  const TensorList one = {Tensor::ones({1})};
  CHECK(contains(message({.beta1 = "pair"}, one), "[adam] beta1 'pair' has shape (2)"));
  CHECK(contains(message({.epsilon = "pair"}, one), "[adam] epsilon 'pair' has shape (2)"));
  CHECK(contains(message({.rate = "pair"}, one), "[adam] rate 'pair' has 2 elements"));
  CHECK(contains(message({}, {Tensor::ones({1}), Tensor::ones({1}, Dtype::float32)}),
                 "different dtypes: float64 and float32"));
  const Step step = ht::optim::adam();
  CHECK(contains(thrown([&] { step.update({one, {}}, one, h); }), "[adam] 0 buffers for 1 parameter"));
}
