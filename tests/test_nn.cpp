// Networks against naive loops.
#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include <hypertape/nn/layers.h>
#include "ladder.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using ht::NamedTensors;
using ht::Tensor;
using ht::TensorList;
using ht::nn::Activation;
using ht::nn::Mlp;

std::vector<double> numbers(const Tensor& x) { return ladder::elements(x); }

}  // namespace

TEST_CASE("nn: the parameters of a perceptron have the documented names, shapes and count") {
  const Mlp net({4, 7, 3}, Activation::tanh);
  CHECK(net.layers() == 2);
  CHECK(net.parameter_count() == 4 * 7 + 7 + 7 * 3 + 3);
  CHECK(net.layer_of_parameters() == std::vector<std::int64_t>{0, 0, 1, 1});
  for (const NamedTensors& w : {net.init({1}), net.standard_normal({1})}) {
    CHECK(w.names() == std::vector<std::string>{"weight_1", "bias_1", "weight_2", "bias_2"});
    CHECK(w.shapes() == std::vector<ht::Shape>{{4, 7}, {7}, {7, 3}, {3}});
  }
  CHECK(net(net.init({1}), Tensor::ones({5, 4})).shape() == ht::Shape{5, 3});
  CHECK(net(net.init({1}), Tensor::ones({0, 4})).shape() == ht::Shape{0, 3});
  const NamedTensors single = net.init({1}, ht::Dtype::float32);
  CHECK(net(single, Tensor::ones({5, 4}, ht::Dtype::float32)).dtype() == ht::Dtype::float32);
}

TEST_CASE("nn: initial weights are normal with variance 1 over inputs, biases zero, layers independent") {
  const Mlp net({250, 200, 200}, Activation::tanh);
  const NamedTensors draws = net.standard_normal({7}), w = net.init({7});
  for (const std::string name : {"weight_1", "weight_2"}) {
    const std::vector<double> x = numbers(draws[name]), scaled = numbers(w[name]);
    const double inputs = name == "weight_1" ? 250.0 : 200.0, count = static_cast<double>(x.size());
    double mean = 0.0, square = 0.0, fourth = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      mean += x[i] / count;
      square += x[i] * x[i] / count;
      fourth += x[i] * x[i] * x[i] * x[i] / count;
      REQUIRE(scaled[i] == doctest::Approx(x[i] / std::sqrt(inputs)).epsilon(1e-15));
    }
    // Five standard deviations of each estimate.
    CHECK(std::abs(mean) < 5.0 / std::sqrt(count));
    CHECK(std::abs(square - 1.0) < 5.0 * std::sqrt(2.0 / count));
    CHECK(std::abs(fourth - 3.0) < 5.0 * std::sqrt(96.0 / count));
  }
  for (const std::string name : {"bias_1", "bias_2"})
    for (const double b : numbers(w[name])) CHECK(b == 0.0);
  const std::vector<double> first = numbers(draws["weight_1"]), second = numbers(draws["weight_2"]);
  double correlation = 0.0;
  for (std::size_t i = 0; i < second.size(); ++i) correlation += first[i] * second[i];
  CHECK(std::abs(correlation) < 5.0 * std::sqrt(static_cast<double>(second.size())));
  CHECK(ladder::same_bits(net.init({7}).tensors(), w.tensors()));
  CHECK_FALSE(ladder::same_bits(net.init({8})["weight_1"], w["weight_1"]));
}

TEST_CASE("nn: the network's values are those of naive loops") {
  for (const Activation activation : {Activation::tanh, Activation::relu}) {
    const std::vector<std::int64_t> sizes = {6, 9, 5, 4};
    const Mlp net(sizes, activation);
    NamedTensors w = net.init({3});
    for (std::size_t l = 0; l < 3; ++l)
      w = w.with("bias_" + std::to_string(l + 1), ladder::sample({sizes[l + 1]}, -1.0, 1.0, l));
    const Tensor x = ladder::sample({8, 6}, -1.0, 1.0, 9);
    std::vector<double> values = numbers(x);
    for (std::size_t l = 0; l < 3; ++l) {
      const auto in = static_cast<std::size_t>(sizes[l]), out = static_cast<std::size_t>(sizes[l + 1]);
      const std::vector<double> weight = numbers(w.tensors()[2 * l]), bias = numbers(w.tensors()[2 * l + 1]);
      std::vector<double> next(8 * out);
      for (std::size_t n = 0; n < 8; ++n)
        for (std::size_t j = 0; j < out; ++j) {
          long double total = bias[j];
          for (std::size_t i = 0; i < in; ++i)
            total += static_cast<long double>(values[n * in + i]) * weight[i * out + j];
          const auto y = static_cast<double>(total);
          next[n * out + j] = l == 2 ? y : activation == Activation::tanh ? std::tanh(y) : std::max(y, 0.0);
        }
      values = next;
    }
    const std::vector<double> result = numbers(net(w, x));
    REQUIRE(result.size() == values.size());
    for (std::size_t i = 0; i < values.size(); ++i)
      CHECK(std::abs(result[i] - values[i]) < 1e-14 * (1.0 + std::abs(values[i])));
  }
}

TEST_CASE("nn: derivatives of a small network pass the ladder") {
  const Mlp net({3, 4, 2}, Activation::tanh);
  const NamedTensors w = net.init({3});
  const Tensor x = ladder::sample({5, 3}, -1.0, 1.0, 2), labels = Tensor::from<std::int64_t>({0, 1, 1, 0, 1});
  ladder::Options options;
  options.float32 = false;
  ladder::expect_derivatives(
      "mlp",
      [&](const TensorList& p) { return TensorList{ht::softmax_cross_entropy(net(w.with(p), x), labels)}; },
      w.tensors(), options);
}

TEST_CASE("nn: accuracy refuses absent tensors, other dtypes and labels of no class") {
  const Tensor logits = Tensor::ones({2, 3}), good = Tensor::from<std::int64_t>({0, 2});
  const auto text = [](const Tensor& a, const Tensor& b) { return thrown([&] { ht::nn::accuracy(a, b); }); };
  expect_text(text(Tensor(), good), "[accuracy] logits or labels are absent");
  expect_text(text(logits, Tensor()), "[accuracy] logits or labels are absent");
  expect_text(text(Tensor::zeros({2, 3}, ht::Dtype::int64), good), "[accuracy] logits of dtype int64");
  expect_text(text(logits, Tensor::ones({2})), "labels of dtype float64");
  expect_text(text(logits, Tensor::from<std::int64_t>({0, 3})),
              "[accuracy] label 3 of row 1 is outside 0..2");
  expect_text(text(logits, Tensor::from<std::int64_t>({-1, 0})), "[accuracy] label -1 of row 0");
}

TEST_CASE("nn: accuracy counts the rows whose first largest entry is at the label") {
  const Tensor logits =
      Tensor::from({1.0, 2.0, 0.0, /**/ 5.0, 1.0, 5.0, /**/ -3.0, -2.0, -1.0, /**/ 0.0, 0.0, 0.0}, {4, 3});
  const auto labels = [](std::initializer_list<std::int64_t> list) { return Tensor::from(list); };
  CHECK(ht::nn::accuracy(logits, labels({1, 0, 2, 0})) == 1.0);
  CHECK(ht::nn::accuracy(logits, labels({1, 2, 2, 1})) == 0.5);
  CHECK(ht::nn::accuracy(logits, labels({0, 1, 0, 1})) == 0.0);
  CHECK(ht::nn::accuracy(ladder::converted(logits, ht::Dtype::float32), labels({1, 0, 0, 0})) == 0.75);
}

TEST_CASE("nn: what does not fit is refused with the shapes") {
  CHECK(contains(thrown([] { Mlp({4}, Activation::tanh); }), "[mlp]"));
  CHECK(contains(thrown([] { Mlp({4, 0, 2}, Activation::tanh); }), "layer size 0"));
  const Mlp net({4, 3}, Activation::tanh);
  CHECK(contains(thrown([&] { net(net.init({1}), Tensor::ones({2, 5})); }), "(2, 5)"));
  CHECK(contains(thrown([&] {
                   net(NamedTensors{{"w", Tensor::ones({4, 3})}}, Tensor::ones({2, 4}));
                 }),
                 "1 parameter tensors"));
  CHECK(contains(thrown([] { ht::nn::activation_from("gelu"); }), "choose tanh or relu"));
  CHECK(ht::nn::activation_from(ht::nn::name_of(Activation::relu)) == Activation::relu);
  CHECK(contains(thrown([] {
                   ht::nn::accuracy(Tensor::ones({2, 3}), Tensor::from<std::int64_t>({1}));
                 }),
                 "[accuracy]"));
}
