// Bad input to the derivatives, the networks and what makes tensors.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/named_tensors.h>
#include <hypertape/core/random.h>
#include <hypertape/nn/layers.h>
#include "ladder.h"
#include "thrown.h"

namespace ht = hypertape;
using ht::Dtype;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;

namespace {

template <class Call>
void expect_error(Call&& call, const std::vector<std::string>& parts) {
  const std::string text = thrown(call);
  CHECK_MESSAGE(text.rfind(parts.front(), 0) == 0, "expected " << parts.front() << " before: " << text);
  for (const std::string& part : parts) expect_text(text, part);
}

const auto energy = [](const Tensor& x) { return ht::sum(ht::exp(x) * x); };
const auto square_list = [](const TensorList& x) { return TensorList{ht::square(x[0])}; };

}  // namespace

TEST_CASE("bad input to derivatives of scalars: outputs and inputs that have none") {
  const Tensor x = Tensor::from({0.5, 0.25, 2.0}), no;
  const auto with = [&](const auto& f) { return [&x, f] { ht::grad(f, x); }; };
  expect_error(with([](const Tensor& z) { return ht::exp(z); }), {"[value_and_grad]", "one element", "(3)"});
  expect_error(with([](const Tensor&) { return Tensor::zeros({0}); }), {"[value_and_grad]", "(0)"});
  expect_error(with([](const Tensor&) { return Tensor(); }), {"[value_and_grad]", "absent"});
  expect_error(with([](const Tensor& z) { return ht::count(ht::greater(z, 0.0)); }),
               {"[value_and_grad]", "int64", "()"});
  expect_error([&] { ht::grad(energy, no); }, {"[exp]", "absent"});
  expect_error([&] { ht::value_and_grad(energy, Tensor::zeros({3}, Dtype::int64)); },
               {"[exp]", "int64", "(3)"});
  expect_error([&] { ht::hvp([](const Tensor& z) { return ht::exp(z); }, x, x); },
               {"[hvp]", "one element", "(3)"});
  // An integer input has no derivative, nor has one that is not used.
  CHECK_FALSE(
      ht::grad([&](const Tensor& at) { return ht::sum(ht::take(x, at)); }, Tensor::from<std::int64_t>({1}))
          .defined());
  CHECK_FALSE(ht::grad([&](const Tensor&) { return ht::sum(x); }, x).defined());
  // An input without elements has a gradient without elements.
  CHECK(ht::grad(energy, Tensor::zeros({0})).shape() == Shape{0});
  CHECK(std::isnan(ladder::elements(ht::grad(energy, Tensor::from({0.5, double(NAN)})))[1]));
}

TEST_CASE("bad input to vjp, jvp and linearize: cotangents and tangents that do not match") {
  const Tensor x = Tensor::from({0.5, 0.25, 2.0}), single = ht::astype(x, Dtype::float32);
  const Tensor integers = Tensor::zeros({3}, Dtype::int64), other = Tensor::ones({4});
  const auto f = [](const Tensor& z) { return ht::exp(z); };

  const auto pullback = ht::vjp(f, x).second;
  expect_error([&] { pullback(other); }, {"[pullback]", "(4)", "(3)"});
  expect_error([&] { pullback(single); }, {"[pullback]", "float32", "float64"});
  expect_error([&] { pullback(integers); }, {"[pullback]", "int64", "float64"});
  CHECK_FALSE(pullback(Tensor()).defined());
  CHECK(ladder::same_bits(pullback(Tensor::ones({3})), ht::exp(x)));  // a refused call uses nothing up
  auto lists = ht::vjp(square_list, TensorList{x}).second;
  expect_error([&] { lists({}); }, {"[pullback]", "0 cotangents", "1 outputs"});
  expect_error([&] { lists.consume({x}, {x, x}); }, {"[pullback]", "2 sums", "1 inputs"});
  expect_error([&] { lists.consume({x}, {other}); }, {"[pullback]", "(4)", "(3)"});
  expect_error([&] { lists.consume({x}, {single}); }, {"[pullback]", "(3)"});
  CHECK(ladder::same_bits(lists.consume({x})[0], x * (x + x)));
  expect_error([&] { lists.consume({x}); }, {"[pullback]", "consumed"});

  expect_error([&] { ht::jvp(f, x, other); }, {"[jvp]", "(4)", "(3)"});
  expect_error([&] { ht::jvp(f, x, single); }, {"[jvp]", "float32", "float64"});
  expect_error([&] { ht::jvp(f, x, integers); }, {"[jvp]", "int64"});
  expect_error([&] { ht::jvp(f, integers, x); }, {"[jvp]", "int64"});
  expect_error([&] { ht::jvp(f, Tensor(), x); }, {"[jvp]", "absent"});
  expect_error([&] { ht::jvp(square_list, TensorList{x}, TensorList{}); },
               {"[jvp]", "0 tangents", "1 inputs"});
  expect_error([&] { ht::hvp(energy, x, other); }, {"[hvp]", "(4)", "(3)"});
  CHECK_FALSE(ht::jvp(f, x, Tensor()).second.defined());

  const auto linear = ht::linearize(f, x).second;
  expect_error([&] { linear(other); }, {"[linearize]", "(4)", "(3)"});
  expect_error([&] { linear(single); }, {"[linearize]", "float32", "float64"});
  expect_error([&] { linear(integers); }, {"[linearize]", "int64"});
  CHECK_FALSE(linear(Tensor()).defined());
  const auto linear_list = ht::linearize(square_list, TensorList{x}).second;
  expect_error([&] { linear_list({}); }, {"[linearize]", "0 tangents", "1 inputs"});
  CHECK(ladder::same_bits(linear(Tensor::ones({3})), ht::exp(x)));
  CHECK(ladder::same_bits(x, Tensor::from({0.5, 0.25, 2.0})));
}

TEST_CASE("bad input to checkpoint and custom_vjp") {
  const Tensor x = Tensor::from({0.5, 0.25, 2.0});
  // What the function refuses is refused with its operation's name, recorded or not.
  const auto wrong = [](const Tensor& z) { return z + Tensor::ones({4}); };
  expect_error([&] { ht::checkpoint(wrong, x); }, {"[add]", "(3)", "(4)"});
  expect_error([&] { ht::grad([&](const Tensor& z) { return ht::sum(ht::checkpoint(wrong, z)); }, x); },
               {"[add]", "(3)", "(4)"});
  expect_error([&] { ht::checkpoint(energy, Tensor()); }, {"[exp]", "absent"});
  expect_error(
      [&] {
        ht::grad(
            [&](const Tensor& z) {
              return ht::sum(ht::checkpoint([z](const Tensor& a) { return a * z; }, z));
            },
            x);
      },
      {"[checkpoint]", "pass it in"});

  const auto custom = [&](const ht::CustomVjp& result) {
    return ht::grad(
        [&](const Tensor& z) {
          return ht::sum(ht::custom_vjp("mine", {z}, [&](const TensorList&) { return result; })[0]);
        },
        x);
  };
  expect_error([&] { custom({{Tensor()}, {}}); }, {"[mine]", "absent"});
  expect_error(
      [&] {
        custom({{x}, [](const TensorList&) { return TensorList{}; }});
      },
      {"[mine]", "0 gradients", "1 inputs"});
  expect_error(
      [&] {
        custom({{x}, [](const TensorList&) { return TensorList{Tensor::ones({4})}; }});
      },
      {"[mine]", "(4)", "(3)"});
  CHECK_FALSE(custom({{x}, [](const TensorList&) { return TensorList{Tensor()}; }}).defined());
}

TEST_CASE("bad input to networks") {
  const Tensor x = Tensor::ones({4, 2}), weight = Tensor::ones({2, 3}), bias = Tensor::ones({3}), no;
  expect_error([&] { ht::nn::linear(no, weight, bias); }, {"[linear]", "absent"});
  expect_error([&] { ht::nn::linear(x, no, bias); }, {"[linear]", "absent"});
  expect_error([&] { ht::nn::linear(x, weight, no); }, {"[linear]", "absent"});
  expect_error([&] { ht::nn::linear(x, bias, bias); }, {"[linear]", "(4, 2)", "(3)"});
  expect_error([&] { ht::nn::linear(weight, weight, bias); }, {"[linear]", "(2, 3)"});
  expect_error([&] { ht::nn::linear(x, weight, Tensor::ones({2})); }, {"[linear]", "(2)"});
  expect_error([&] { ht::nn::linear(x, ht::astype(weight, Dtype::float32), bias); },
               {"[linear]", "float32", "float64"});
  expect_error([&] { ht::nn::linear(ht::astype(x, Dtype::int64), weight, bias); }, {"[linear]", "int64"});
  CHECK(ht::nn::linear(Tensor::zeros({0, 2}), weight, bias).shape() == Shape{0, 3});
  expect_error([&] { ht::nn::Mlp({2}, ht::nn::Activation::tanh); }, {"[mlp]"});
  expect_error([&] { ht::nn::Mlp({2, 0, 1}, ht::nn::Activation::tanh); }, {"[mlp]", "0"});
  expect_error([&] { ht::nn::Mlp({2, -5}, ht::nn::Activation::tanh); }, {"[mlp]", "-5"});
  const ht::nn::Mlp net({2, 3, 1}, ht::nn::Activation::relu);
  const ht::NamedTensors parameters = net.init({1});
  expect_error([&] { net({}, x); }, {"[mlp]", "0 parameter", "2 layers"});
  expect_error([&] { net(parameters, Tensor::ones({4, 3})); }, {"[linear]", "(4, 3)", "(2, 3)"});
  expect_error([&] { net(parameters, no); }, {"[linear]", "absent"});
  expect_error([&] { net.init({1}, Dtype::int64); }, {"[random]", "int64"});
  expect_error([&] { ht::nn::activation_from("swish"); }, {"[activation]", "swish", "tanh"});
}

TEST_CASE("bad input to what makes tensors") {
  const std::int64_t huge = std::int64_t{1} << 60;
  expect_error([] { Tensor::from({1.0, 2.0}, Shape{3}); }, {"[tensor]", "2 values", "(3)"});
  expect_error([] { Tensor::from(std::vector<float>{}, Shape{}); }, {"[tensor]", "0 values", "()"});
  expect_error([] { Tensor::full({2}, 0.5, Dtype::int64); }, {"[full]", "0.5", "int64"});
  expect_error([] { Tensor::full({2}, NAN, Dtype::int64); }, {"[full]", "nan"});
  expect_error([] { Tensor::full({2}, 0x1p63, Dtype::int64); }, {"[full]", "9.22"});
  expect_error([&] { Tensor::zeros({huge, 4}); }, {"[tensor]", "float64"});
  expect_error([&] { Tensor::zeros({huge, 8}); }, {"[shape]", "64 bits"});
  const std::vector<double> memory(3);
  expect_error([&] { Tensor::wrap(std::span<const double>(memory), Shape{2}, nullptr); },
               {"[wrap]", "3", "(2)"});
  expect_error([&] { ht::random({2}, ht::Distribution::normal, {1}, Dtype::int64); }, {"[random]", "int64"});
  expect_error([] { ht::random_permutation(-1, {1}); }, {"[random_permutation]", "-1"});
  CHECK(ht::random_permutation(0, {1}).shape() == Shape{0});
  CHECK(ht::random({0, 3}, ht::Distribution::uniform, {1}).shape() == Shape{0, 3});
  const ht::NamedTensors named{{"w", Tensor::ones({2})}};
  CHECK(contains(thrown([&] { named["v"]; }), "w"));
  Tensor x = Tensor::ones({2, 3});
  expect_error([&] { x.item(); }, {"[item]", "(2, 3)"});
  expect_error([&] { x.extent(2); }, {"[extent]", "axis 2", "(2, 3)"});
  expect_error([&] { x.assign(Tensor::zeros({3, 2})); }, {"[assign]", "(2, 3)", "(3, 2)"});
  expect_error([&] { x.assign(Tensor::zeros({2, 3}, Dtype::float32)); }, {"[assign]", "float32", "float64"});
  expect_error([&] { x.assign(Tensor()); }, {"[assign]", "absent"});
  CHECK(ladder::same_bits(x, Tensor::ones({2, 3})));
}
