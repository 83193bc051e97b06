// SGD against numbers worked by hand and PyTorch's, its closed form of the gradient's cotangent, and
// refusals.
#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include <hypertape/optim/step.h>
#include "bilevel_problems.h"
#include "ladder.h"
#include "optimizer_runs.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using ht::NamedTensors;
using ht::Tensor;
using ht::TensorList;
using ht::optim::SgdOptions;
using ht::optim::State;
using ht::optim::Step;

std::vector<double> numbers(const Tensor& x) { return ladder::elements(x); }

}  // namespace

TEST_CASE("optim: two steps of SGD with momentum worked by hand") {
  // w = 1, v = 0, g = 4 then -2, rate 0.5, momentum 0.25:
  // v = 4, w = 1 - 2 = -1;  v = 1 - 2 = -1, w = -1 + 0.5 = -0.5.
  const Tensor first = Tensor::full({1}, 4.0), second = Tensor::full({1}, -2.0);
  const auto two_steps = [&](const Step& step, const NamedTensors& h) {
    const TensorList w = {Tensor::ones({1})};
    const State middle = step.update({w, step.initial_buffers(w)}, {first}, h);
    return step.update(middle, {second}, h);
  };
  const NamedTensors h = {{"rate", Tensor::scalar(0.5)}, {"momentum", Tensor::scalar(0.25)}};
  for (const Step& step : {ht::optim::sgd({.rate = 0.5, .momentum = 0.25}),
                           ht::optim::sgd({.rate = "rate", .momentum = "momentum"})}) {
    const State end = two_steps(step, h);
    CHECK(end.buffers[0].item() == -1.0);
    CHECK(end.parameters[0].item() == -0.5);
  }
  // Dampened by 0.75: v = 3, w = 1 - 1.5 = -0.5;  v = 0.75 - 1.5 = -0.75, w = -0.5 + 0.375 = -0.125.
  for (const Step& step : {ht::optim::sgd({.rate = 0.5, .momentum = 0.25, .dampened = true}),
                           ht::optim::sgd({.rate = "rate", .momentum = "momentum", .dampened = true})}) {
    const State end = two_steps(step, h);
    CHECK(end.buffers[0].item() == -0.75);
    CHECK(end.parameters[0].item() == -0.125);
  }
  // Without momentum: w = 1 - 2 + 1.
  CHECK(two_steps(ht::optim::sgd({.rate = 0.5}), h).parameters[0].item() == 0.0);
}

TEST_CASE("optim: Nesterov momentum, dampening and weight decay worked by hand") {
  // As above: w = 1, v = 0, g = 4 then -2, rate 0.5, momentum 0.25.
  const Tensor first = Tensor::full({1}, 4.0), second = Tensor::full({1}, -2.0);
  const NamedTensors h = {{"rate", Tensor::scalar(0.5)},
                          {"momentum", Tensor::scalar(0.25)},
                          {"dampening", Tensor::scalar(0.5)},
                          {"decay", Tensor::scalar(2.0)}};
  const auto check = [&](SgdOptions constant, SgdOptions named, double v, double w) {
    constant.rate = 0.5;
    constant.momentum = 0.25;
    named.rate = "rate";
    named.momentum = "momentum";
    named.nesterov = constant.nesterov;
    for (const SgdOptions& options : {constant, named}) {
      const Step step = ht::optim::sgd(options);
      const TensorList start = {Tensor::ones({1})};
      const State end =
          step.update(step.update({start, step.initial_buffers(start)}, {first}, h), {second}, h);
      CHECK(end.buffers[0].item() == v);
      CHECK(end.parameters[0].item() == w);
    }
  };
  // Nesterov: v = 4, w = 1 - (1 + 4) / 2 = -1.5;  v = 1 - 2 = -1, w = -1.5 - (-0.25 - 2) / 2 = -0.375.
  check({.nesterov = true}, {}, -1.0, -0.375);
  // Dampened by a half: v = 2, w = 0;  v = 0.5 - 1 = -0.5, w = 0.25.
  check({.dampening = 0.5}, {.dampening = "dampening"}, -0.5, 0.25);
  // Decay 2: v = 4 + 2 = 6, w = -2;  v = 1.5 - 2 - 4 = -4.5, w = 0.25.
  check({.weight_decay = 2.0}, {.weight_decay = "decay"}, -4.5, 0.25);
  // All: push = 3, v = 3, w = 1 - (0.75 + 3) / 2 = -0.875;  push = (-2 - 1.75) / 2 = -1.875,
  // v = 0.75 - 1.875 = -1.125, w = -0.875 - (-0.28125 - 1.875) / 2 = 0.203125.
  check({.dampening = 0.5, .weight_decay = 2.0, .nesterov = true},
        {.dampening = "dampening", .weight_decay = "decay"}, -1.125, 0.203125);
}

TEST_CASE("optim: SGD's values are PyTorch's") {
  using optimizer_runs::expect_torch;
  expect_torch(ht::optim::sgd({.rate = 0.05, .momentum = 0.9, .nesterov = true}),
               {0.6593089226100797, -1.1990096311312848, 0.5549770434995442});
  expect_torch(ht::optim::sgd({.rate = 0.05, .momentum = 0.9, .weight_decay = 0.125, .nesterov = true}),
               {0.5540693674320729, -1.0535513611624614, 0.4890909888328492});
}

TEST_CASE("optim: rates go to the parameters of their groups") {
  const TensorList w = {Tensor::zeros({2}), Tensor::zeros({1}), Tensor::zeros({1})};
  const TensorList g = {Tensor::ones({2}), Tensor::ones({1}), Tensor::ones({1})};
  const NamedTensors h = {{"rates", Tensor::from({0.5, 2.0, 8.0})}};
  const auto moved = [&](const Step& step) {
    std::vector<double> result;
    for (const Tensor& p : step.update({w, step.initial_buffers(w)}, g, h).parameters)
      result.push_back(-numbers(p)[0]);
    return result;
  };
  CHECK(moved(ht::optim::sgd({.rate = "rates"})) == std::vector<double>{0.5, 2.0, 8.0});
  CHECK(moved(ht::optim::sgd({.rate = "rates", .rate_groups = {2, 0, 2}})) ==
        std::vector<double>{8.0, 0.5, 8.0});
  const Step learned = ht::optim::sgd({.rate = "rates", .momentum = 0.5, .rate_groups = {2, 0, 2}});
  std::vector<double> rates;
  for (const Tensor& rate : learned.reversible->rates(w, h)) rates.push_back(rate.item());
  CHECK(rates == std::vector<double>{8.0, 0.5, 8.0});
  CHECK(contains(thrown([&] {
                   moved(ht::optim::sgd({.rate = "rates", .rate_groups = {0, 1}}));
                 }),
                 "2 rate groups given for 3"));
  CHECK(contains(thrown([&] {
                   moved(ht::optim::sgd({.rate = "rates", .rate_groups = {0, 1, 3}}));
                 }),
                 "there are 4 groups"));
  CHECK(contains(thrown([&] {
                   moved(ht::optim::sgd({.rate = "rates", .rate_groups = {0, 1, -1}}));
                 }),
                 "group"));
}

TEST_CASE("optim: weight decays go to the parameters of their groups") {
  const TensorList w = {Tensor::ones({2}), Tensor::ones({1}), Tensor::ones({1})};
  const TensorList g = {Tensor::zeros({2}), Tensor::zeros({1}), Tensor::zeros({1})};
  const NamedTensors h = {{"decays", Tensor::from({0.5, 2.0, 8.0})}};
  const auto left = [&](const Step& step) {
    std::vector<double> result;
    for (const Tensor& p : step.update({w, step.initial_buffers(w)}, g, h).parameters)
      result.push_back(numbers(p)[0]);
    return result;
  };
  CHECK(left(ht::optim::sgd({.rate = 1.0, .weight_decay = "decays"})) ==
        std::vector<double>{0.5, -1.0, -7.0});
  CHECK(left(ht::optim::sgd({.rate = 1.0, .rate_groups = {2, 0, 2}, .weight_decay = "decays"})) ==
        std::vector<double>{-7.0, 0.5, -7.0});
  const std::string text = thrown([&] {
    left(ht::optim::sgd({.rate_groups = {0, 0, 1}, .weight_decay = "decays"}));
  });
  CHECK(contains(text, "[sgd] weight decay 'decays' has 3 elements"));
  CHECK(contains(text, "there are 2 groups"));
}

TEST_CASE("optim: constants out of range are refused") {
  for (const double momentum : {-0.1, 1.0, 2.0, std::nan("")})
    CHECK(contains(thrown([=] { ht::optim::sgd({.momentum = momentum}); }), "[sgd] momentum"));
  for (const double rate : {HUGE_VAL, std::nan("")})
    CHECK(contains(thrown([=] { ht::optim::sgd({.rate = rate}); }), "[sgd] rate"));
  for (const double share : {-0.1, 1.0, std::nan("")})
    CHECK(contains(thrown([=] { ht::optim::sgd({.dampening = share}); }), "[sgd] dampening"));
  for (const double decay : {-0.1, HUGE_VAL, std::nan("")})
    CHECK(contains(thrown([=] { ht::optim::sgd({.weight_decay = decay}); }), "[sgd] weight decay"));
  CHECK(contains(thrown([] { ht::optim::sgd({.dampened = true, .dampening = 0.5}); }), "both `dampened`"));
}

TEST_CASE("optim: a hyperparameter of the wrong rank is refused with its shape") {
  const NamedTensors h = {{"pair", Tensor::ones({2})}, {"square", Tensor::ones({2, 2})}};
  const auto message = [&](const SgdOptions& options) {
    const Step step = ht::optim::sgd(options);
    const TensorList w = {Tensor::ones({1})};
    return thrown([&] { step.update({w, step.initial_buffers(w)}, w, h); });
  };
  CHECK(contains(message({.momentum = "square"}), "[sgd] momentum 'square' has shape (2, 2)"));
  CHECK(contains(message({.dampening = "pair"}), "[sgd] dampening 'pair' has shape (2)"));
  CHECK(contains(message({.rate = "square"}), "[sgd] rate 'square' has shape (2, 2)"));
  CHECK(contains(message({.weight_decay = "square"}), "[sgd] weight decay 'square' has shape (2, 2)"));
}

TEST_CASE(
    "optim: a hyperparameter of another dtype is refused with the setting, its name and the parameter") {
  const NamedTensors h = {{"wide", Tensor::scalar(0.1)},
                          {"pair", Tensor::ones({2})},
                          {"whole", Tensor::from(std::vector<std::int64_t>{1}, {})}};
  const Tensor narrow = Tensor::ones({2}, ht::Dtype::float32);
  const auto message = [&](const Step& step, const TensorList& w) {
    return thrown([&] { step.update({w, step.initial_buffers(w)}, w, h); });
  };
  const TensorList two = {narrow, narrow}, mixed = {Tensor::ones({2}), narrow};
  CHECK(contains(message(ht::optim::sgd({.rate = "wide"}), two),
                 "[sgd] rate 'wide' is float64, but parameter 0 is float32"));
  CHECK(contains(message(ht::optim::sgd({.rate = "pair"}), mixed),
                 "[sgd] rate 'pair' is float64, but parameter 1 is float32"));
  CHECK(contains(message(ht::optim::sgd({.momentum = "wide"}), two), "[sgd] momentum 'wide' is float64"));
  CHECK(contains(message(ht::optim::sgd({.momentum = "whole"}), two), "[sgd] momentum 'whole' is int64"));
  CHECK(contains(message(ht::optim::sgd({.dampening = "wide"}), two),
                 "[sgd] dampening 'wide' is float64, but the parameters are float32"));
  CHECK(contains(message(ht::optim::sgd({.weight_decay = "wide"}), two), "[sgd] weight decay 'wide'"));
  for (const auto& [what, options] : std::vector<std::pair<std::string, ht::optim::AdamOptions>>{
           {"rate", {.rate = "wide"}},
           {"beta1", {.beta1 = "wide"}},
           {"beta2", {.beta2 = "wide"}},
           {"epsilon", {.epsilon = "wide"}},
           {"weight decay", {.weight_decay = "wide"}}})
    CHECK(contains(message(ht::optim::adam(options), two), "[adam] " + what + " 'wide' is float64, but "));
}

TEST_CASE("optim: what cannot be undone exactly is refused by reversible training by name") {
  using namespace bilevel_problems;
  const auto refusal = [](const Step& step) {
    Case problem = Quadratic(3, Rule::momentum).problem();
    problem.problem.step = step;
    return thrown([&] { problem.by(ht::bilevel::Reversible{}); });
  };
  const SgdOptions plain{.rate = 0.1, .momentum = 0.5};
  SgdOptions nesterov = plain, dampened = plain, decayed = plain;
  nesterov.nesterov = true;
  dampened.dampening = 0.5;
  decayed.weight_decay = "momenta";
  CHECK(contains(refusal(ht::optim::sgd(nesterov)), "'sgd with Nesterov momentum' has no exact inverse"));
  CHECK(contains(refusal(ht::optim::sgd(dampened)), "'sgd with dampening' has no exact inverse"));
  CHECK(contains(refusal(ht::optim::sgd(decayed)), "'sgd with weight decay' has no exact inverse"));
  CHECK(contains(refusal(ht::optim::adam()), "'adam' has no exact inverse"));
  CHECK(contains(refusal(ht::optim::adam({.decoupled = true})), "'adamw' has no exact inverse"));
}

TEST_CASE("optim: gradient_cotangent is the update's pullback to the gradient") {
  const TensorList w = {ladder::sample({3}, -1, 1, 1), ladder::sample({2, 2}, -1, 1, 2)};
  const TensorList v = {ladder::sample({3}, -1, 1, 3), ladder::sample({2, 2}, -1, 1, 4)};
  const TensorList g = {ladder::sample({3}, -1, 1, 5), ladder::sample({2, 2}, -1, 1, 6)};
  const TensorList bars = {ladder::sample({3}, -1, 1, 7), ladder::sample({2, 2}, -1, 1, 8),
                           ladder::sample({3}, -1, 1, 9), ladder::sample({2, 2}, -1, 1, 10)};
  const NamedTensors h = {{"rates", Tensor::from({0.3, 0.7})},
                          {"momentum", Tensor::scalar(0.6)},
                          {"dampening", Tensor::scalar(0.2)}};
  std::vector<SgdOptions> all;
  for (const bool constant : {false, true})
    for (const bool nesterov : {false, true})
      for (const double decay : {0.0, 0.4})
        for (const int dampening : {0, 1, 2}) {
          SgdOptions& options = all.emplace_back();
          options.rate = constant ? ht::optim::Setting(0.3) : "rates";
          options.momentum = constant ? ht::optim::Setting(0.6) : "momentum";
          options.nesterov = nesterov;
          options.weight_decay = decay;
          options.dampened = dampening == 1;
          if (dampening == 2) options.dampening = constant ? ht::optim::Setting(0.2) : "dampening";
        }
  for (const SgdOptions& options : all) {
    const Step step = ht::optim::sgd(options);
    CAPTURE(step.name);
    // Absent cotangents count as zero, and leave absent what they alone would reach.
    for (int mask = 0; mask < 16; ++mask) {
      TensorList some(4);
      for (std::size_t i = 0; i < 4; ++i)
        if (mask >> i & 1) some[i] = bars[i];
      auto [next, pullback] = ht::vjp(
          [&](const TensorList& gradient) {
            const State state = step.update({w, v}, gradient, h);
            TensorList both = state.parameters;
            both.insert(both.end(), state.buffers.begin(), state.buffers.end());
            return both;
          },
          g);
      const TensorList expected = pullback(some);
      const TensorList result = step.gradient_cotangent({{some[0], some[1]}, {some[2], some[3]}}, h);
      REQUIRE(result.size() == 2);
      for (std::size_t i = 0; i < 2; ++i) CHECK(result[i].defined() == expected[i].defined());
      CHECK(ladder::difference(result, expected) < 1e-15);
    }
  }
}

TEST_CASE("optim: a state or gradients of another form are refused by every step, and named") {
  const TensorList w = {Tensor::ones({2}), Tensor::ones({3})},
                   narrow = {w[0], Tensor::ones({3}, ht::Dtype::float32)};
  const NamedTensors h;
  SgdOptions nesterov;
  nesterov.nesterov = true;
  for (const Step& step : {ht::optim::sgd(), ht::optim::sgd(nesterov), ht::optim::adam()}) {
    CAPTURE(step.name);
    const TensorList buffers = step.initial_buffers(w);
    const auto refuses = [&](const TensorList& with, const TensorList& gradients, const std::string& what) {
      const std::string text = thrown([&] { step.update({w, with}, gradients, h); });
      CAPTURE(text);
      CHECK(text.starts_with('[' + step.name.substr(0, step.name.find(' ')) + "] " + what));
    };
    const auto changed = [&](std::size_t i, const Tensor& x) {
      TensorList list = buffers;
      list[i] = x;
      return list;
    };
    CHECK(thrown([&] { step.update({w, buffers}, w, h); }) == "nothing thrown");
    TensorList fewer = buffers, more = buffers;
    fewer.pop_back();
    more.push_back(Tensor::scalar(0.0));
    const std::string needed =
        " buffers for 2 parameter tensors; there must be " + std::to_string(buffers.size());
    refuses({}, w, "0" + needed);
    refuses(fewer, w, std::to_string(fewer.size()) + needed);
    refuses(more, w, std::to_string(more.size()) + needed);
    refuses(changed(0, Tensor()), w, "buffer 0 is absent");
    refuses(changed(0, Tensor::zeros({1})), w, "buffer 0 is float64 (1), but parameter 0 is float64 (2)");
    refuses(changed(1, Tensor::zeros({3}, ht::Dtype::float32)), w,
            "buffer 1 is float32 (3), but parameter 1 is float64 (3)");
    refuses(buffers, {w[0]}, "1 gradients for 2 parameter tensors");
    refuses(buffers, {w[0], w[1], w[1]}, "3 gradients for 2 parameter tensors");
    refuses(buffers, {w[0], Tensor()}, "gradient 1 is absent");
    refuses(buffers, {w[0], w[0]}, "gradient 1 is float64 (2), but parameter 1 is float64 (3)");
    refuses(buffers, {w[0], Tensor::ones({1, 3})},
            "gradient 1 is float64 (1, 3), but parameter 1 is float64 (3)");
    refuses(buffers, narrow, "gradient 1 is float32 (3), but parameter 1 is float64 (3)");
    if (step.name == "adam") refuses(changed(4, Tensor::zeros({2})), w, "buffer 4 must be a scalar");
    CHECK(contains(thrown([&] { step.update({{w[0], Tensor()}, buffers}, w, h); }), "parameter 1 is absent"));
    if (step.gradient_cotangent)
      CHECK(contains(thrown([&] {
                       step.gradient_cotangent({w, {w[0]}}, h);
                     }),
                     "[sgd] 1 buffers for 2 param"));
  }
}
