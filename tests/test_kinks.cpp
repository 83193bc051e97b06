// Weights of exactly 0; operations that are smooth where norm and standard deviation have kinks, and the
// watch that names the kinks; checkpoints inside each other. ctest labels: levels
#include <doctest/doctest.h>
#include <pthread.h>

#include <cmath>
#include <limits>
#include <string>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/estimators.h>
#include <hypertape/bilevel/hypergradient.h>
#include <hypertape/core/error.h>
#include "ladder.h"

namespace ht = hypertape;
namespace bl = ht::bilevel;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using Values = std::vector<double>;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double no_number = std::numeric_limits<double>::quiet_NaN();

Tensor vec(const Values& x) { return Tensor::from(x, Shape{static_cast<std::int64_t>(x.size())}); }
Tensor row(const Values& x) { return Tensor::from(x, Shape{1, static_cast<std::int64_t>(x.size())}); }

using Function = std::function<Tensor(const Tensor&)>;

// Gradient and H ones, in reverse, forward and both.
void expect_at(const std::string& name, const Function& f, const Tensor& x, const Values& gradient,
               const Values& second) {
  CAPTURE(name);
  const Tensor ones = Tensor::ones(x.shape());
  const auto near = [](const Tensor& got, const Values& want) {
    const Values values = got.defined() ? ladder::elements(got) : Values(want.size(), 0.0);
    for (std::size_t i = 0; i < want.size(); ++i)
      if (!(std::abs(values[i] - want[i]) <= 1e-12)) return false;
    return values.size() == want.size();
  };
  const Tensor g = ht::grad(f, x);
  CHECK_MESSAGE(near(g, gradient), g);
  double along = 0;
  for (const double each : gradient) along += each;
  CHECK(std::abs(ht::jvp(f, x, ones).second.item() - along) <= 1e-12);
  CHECK(std::abs(ht::linearize(f, x).second(ones).item() - along) <= 1e-12);
  const auto gradient_along = [&](const Tensor& y) { return ht::dot(ht::grad(f, y), ones); };
  const auto tangent_along = [&](const Tensor& y) { return ht::jvp(f, y, ones).second; };
  const Tensor hvp = ht::hvp(f, x, ones), twice = ht::grad(gradient_along, x),
               over = ht::grad(tangent_along, x);
  CHECK_MESSAGE(near(hvp, second), hvp);
  CHECK_MESSAGE(near(twice, second), twice);
  CHECK_MESSAGE(near(over, second), over);
}

}  // namespace

TEST_CASE("0 log 0 is 0 in cross entropies") {
  const Tensor labels = row({0, 1, 0});
  const auto loss = [&](const Tensor& z) { return ht::softmax_cross_entropy(z, labels); };
  const Tensor z = row({-inf, 0, 0});
  CHECK(std::abs(loss(z).item() - std::log(2.0)) < 1e-15);
  // p = (0, 1/2, 1/2), gradient p - q; H ones = 0.
  expect_at("distribution labels", loss, z, {0, -0.5, 0.5}, {0, 0, 0});
  const auto along = [&](const Tensor& at) { return ht::hvp(loss, at, row({0, 1, -1})); };
  CHECK(ladder::difference({along(z)}, {row({0, 0.5, -0.5})}) < 1e-15);
  const auto by_class = [&](const Tensor& at) {
    return ht::softmax_cross_entropy(at, labels, {.classes = vec({5, 2, 3})});
  };
  expect_at("class weights", by_class, z, {0, -0.5, 0.5}, {0, 0, 0});
  // A logit of infinite size with the label that goes with it.
  for (const double size : {inf, -inf}) {
    const Tensor q = vec({size > 0 ? 1.0 : 0.0, 0.5});
    const auto binary = [&](const Tensor& at) { return ht::binary_cross_entropy_with_logits(at, q); };
    CHECK(std::abs(binary(vec({size, 0})).item() - std::log(2.0) / 2) < 1e-15);
    expect_at("binary", binary, vec({size, 0}), {0, 0}, {0, 0.125});
  }
}

TEST_CASE("A sample of weight 0 is left out, whatever its loss is") {
  const Tensor weights = vec({1, 0, 3});
  const auto mean = [&](const Tensor& x) { return ht::weighted_mean(ht::log(x), weights); };
  for (const double bad : {0.0, -1.0, no_number, inf})
    expect_at("weighted_mean", mean, vec({1, bad, 2}), {0.25, 0, 0.375}, {-0.25, 0, -0.1875});
  const auto squares = [&](const Tensor& x) { return ht::mean_squared_error(x, vec({0, 0, 0}), weights); };
  expect_at("mean_squared_error", squares, vec({1, no_number, 2}), {0.5, 0, 3}, {0.5, 0, 1.5});
  const Tensor soft = Tensor::from({0.0, 1.0, 0.0, 1.0, 1.0, 0.0}, Shape{3, 2}),
               hard = Tensor::from<std::int64_t>({1, 1, 0});
  for (const Tensor& labels : {soft, hard}) {
    const auto entropy = [&](const Tensor& x) {
      return ht::softmax_cross_entropy(ht::reshape(x, {3, 2}), labels, {.samples = weights});
    };
    expect_at("cross entropy", entropy, vec({0, 0, no_number, 1, 0, 0}), {0.125, -0.125, 0, 0, -0.375, 0.375},
              {0, 0, 0, 0, 0, 0});
  }
  // The derivative in the weight itself is the value.
  const auto in_weights = [](const Tensor& w) { return ht::sum(ht::weigh(w, vec({2, 5, -inf}))); };
  CHECK(ladder::elements(ht::grad(in_weights, vec({0, 1, 0}))) == Values{2, 5, -inf});
  CHECK(ladder::elements(ht::weigh(vec({0, -0.0, 2}), vec({inf, no_number, 3}))) == Values{0, 0, 6});
  // Not a weight of 0: honest.
  CHECK(std::isnan(ht::weighted_mean(vec({1, no_number}), vec({1, 1e-300})).item()));
  ladder::expect_derivatives("weigh", [](const TensorList& x) { return TensorList{ht::weigh(x[0], x[1])}; },
                             {ladder::sample({3, 1}, -2, 2, 1), ladder::sample({2}, -2, 2, 2)});
}

TEST_CASE("Kullback-Leibler by weigh") {
  const Tensor q = vec({0, 0.5, 0.5});
  const auto divergence = [&](const Tensor& p) { return ht::sum(ht::weigh(q, ht::log(q) - ht::log(p))); };
  CHECK(std::abs(divergence(vec({0, 0.25, 0.75})).item() - 0.5 * std::log(2.0) - 0.5 * std::log(2.0 / 3)) <
        1e-15);
  expect_at("in p", divergence, vec({0, 0.25, 0.75}), {0, -2, -2.0 / 3}, {0, 8, 8.0 / 9});
}

TEST_CASE("squared_norm and standard_deviation: values and ladder") {
  const Tensor x = ladder::sample({3, 4}, -2, 2, 1);
  for (const bool keep : {false, true}) {
    ladder::expect_derivatives(
        "squared_norm", [&](const TensorList& z) { return TensorList{ht::squared_norm(z[0], {1}, keep)}; },
        {x});
    ladder::expect_derivatives(
        "standard_deviation",
        [&](const TensorList& z) { return TensorList{ht::standard_deviation(z[0], {1}, keep, 1)}; }, {x});
  }
  CHECK(ht::squared_norm(vec({3, 4})).item() == 25);
  CHECK(std::abs(ht::standard_deviation(vec({1, 2, 4, 5})).item() - std::sqrt(2.5)) < 1e-15);
  CHECK(ht::squared_norm(Tensor::zeros({0})).item() == 0);
  // 0.1 + 0.1 + 0.1 is not 0.3: equal elements are told by themselves.
  const auto deviation = [](const Tensor& z) { return ht::standard_deviation(z); };
  expect_at("equal elements", deviation, vec({0.1, 0.1, 0.1}), {0, 0, 0}, {0, 0, 0});
  const auto exponential = [](const Tensor& z) { return ht::exp(-ht::squared_norm(z)); };
  expect_at("smooth at 0", exponential, vec({0, 0}), {0, 0}, {-2, -2});
  CHECK_THROWS_AS(ht::standard_deviation(x, {1}, false, 4), ht::Error);
  CHECK_THROWS_AS(ht::standard_deviation(x, {1}, false, -1), ht::Error);
  CHECK_THROWS_AS(ht::squared_norm(x, {2}), ht::Error);
}

TEST_CASE("A kink that a second derivative meets is named; nothing else is") {
  const auto names = [](const Function& f, const Tensor& x, int order) {
    const Tensor ones = Tensor::ones(x.shape());
    std::vector<std::vector<std::string>> all;
    const auto watched = [&](auto&& run) {
      const ht::KinkWatch watch;
      run();
      all.push_back(watch.operations());
    };
    if (order == 1) {
      watched([&] { ht::grad(f, x); });
      watched([&] { ht::jvp(f, x, ones); });
      watched([&] { ht::linearize(f, x).second(ones); });
    } else {
      watched([&] { ht::hvp(f, x, ones); });
      watched([&] { ht::grad([&](const Tensor& y) { return ht::dot(ht::grad(f, y), ones); }, x); });
      watched([&] { ht::grad([&](const Tensor& y) { return ht::jvp(f, y, ones).second; }, x); });
      watched([&] { ht::jvp([&](const Tensor& y) { return ht::jvp(f, y, ones).second; }, x, ones); });
    }
    for (const auto& each : all) CHECK(each == all.front());
    return all.front();
  };
  const auto through_norm = [](const Tensor& x) { return ht::square(ht::norm(x)); };
  const auto through_abs = [](const Tensor& x) { return ht::sum(ht::square(ht::abs(x))); };
  const auto through_deviation = [](const Tensor& x) { return ht::square(ht::standard_deviation(x)); };
  const auto smooth = [](const Tensor& x) {
    return ht::squared_norm(x) + ht::variance(x) + ht::sum(ht::relu(x));
  };
  using Names = std::vector<std::string>;
  CHECK(names(through_norm, vec({0, 0}), 2) == Names{"norm"});
  CHECK(names(through_abs, vec({1, 0}), 2) == Names{"abs"});
  CHECK(names(through_deviation, vec({0.1, 0.1, 0.1}), 2) == Names{"standard_deviation"});
  CHECK(names(through_norm, vec({0, 1}), 2).empty());
  CHECK(names(through_abs, vec({1, 2}), 2).empty());
  CHECK(names(smooth, vec({0, 0}), 2).empty());
  CHECK(names(through_norm, vec({0, 0}), 1).empty());
  CHECK(names(through_abs, vec({0, 0}), 1).empty());
  // Watches nest.
  const ht::KinkWatch outer;
  {
    const ht::KinkWatch inner;
    ht::hvp(through_abs, vec({0}), vec({1}));
    CHECK(inner.operations().size() == 1);
  }
  ht::hvp(through_norm, vec({0}), vec({1}));
  CHECK(outer.operations() == Names{"abs", "norm"});
}

TEST_CASE("A hypergradient names the kinks on its way") {
  // One step of rate 1/4 down h |w|^2 from 0.
  for (const bool kink : {true, false}) {
    bl::Problem problem;
    problem.init = [](const ht::NamedTensors& h) { return ht::NamedTensors{{"w", h["start"]}}; };
    problem.loss = [kink](const ht::NamedTensors& w, const ht::NamedTensors&, const bl::StepContext&) {
      return kink ? ht::square(ht::norm(w["w"])) : ht::squared_norm(w["w"]);
    };
    problem.step = ht::optim::sgd({.rate = 0.25});
    problem.steps = 1;
    const bl::OuterLoss outer = [](const ht::NamedTensors& w, const ht::NamedTensors&) {
      return ht::sum(w["w"]);
    };
    const ht::NamedTensors h{{"start", vec({0, 0})}};
    for (const bl::Estimator& method :
         {bl::Estimator(bl::Unrolled{}), bl::Estimator(bl::Trajectory{}), bl::Estimator(bl::Forward{})}) {
      const bl::Hypergradient result = bl::hypergradient(problem, outer, h, method);
      CHECK((result.kinks == std::vector<std::string>{"norm"}) == kink);
      CHECK((result.message.find("norm") != std::string::npos) == kink);
      if (!kink) CHECK(ladder::elements(result.gradients["start"]) == Values{0.5, 0.5});
    }
    const ht::NamedTensors direction = h.with(TensorList{Tensor::ones(h["start"].shape())});
    const bl::DirectionalDerivative along = bl::directional_derivative(problem, outer, h, direction);
    CHECK((along.kinks == std::vector<std::string>{"norm"}) == kink);
    CHECK((along.message.find("norm") != std::string::npos) == kink);
    if (!kink) CHECK(along.derivative == 1.0);
  }
}

namespace {

// x checkpointed `depth` functions deep.
Tensor nested(const Tensor& x, int depth) {
  return depth == 0 ? ht::sin(x)
                    : ht::checkpoint([depth](const Tensor& y) { return nested(y, depth - 1); }, x);
}

void* run_nested(void* seen) {
  auto& results = *static_cast<std::vector<std::string>*>(seen);
  for (const int depth : {3, 20000}) try {
      results.push_back(std::to_string(
          ht::grad([&](const Tensor& x) { return nested(x, depth); }, Tensor::scalar(0.0)).item()));
    } catch (const ht::Error& error) {
      results.push_back(error.operation());
    }
  return nullptr;
}

}  // namespace

TEST_CASE("Checkpoints nested deeper than the stack are refused") {
#if defined(__SANITIZE_ADDRESS__) || defined(__clang__)  // which is built with sanitizers only
  constexpr std::size_t smallest = 512;                  // their frames are several times as large
#else
  constexpr std::size_t smallest = 128;
#endif
  for (const std::size_t kilobytes : {smallest, std::size_t{1024}, std::size_t{8192}}) {
    CAPTURE(kilobytes);
    std::vector<std::string> seen;
    pthread_attr_t attributes;
    REQUIRE(pthread_attr_init(&attributes) == 0);
    REQUIRE(pthread_attr_setstacksize(&attributes, kilobytes << 10) == 0);
    pthread_t thread{};
    REQUIRE(pthread_create(&thread, &attributes, run_nested, &seen) == 0);
    pthread_join(thread, nullptr);
    pthread_attr_destroy(&attributes);
    CHECK(seen == std::vector<std::string>{"1.000000", "checkpoint"});
  }
}
