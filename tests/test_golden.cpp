// Values and derivatives against PyTorch's, computed once (scripts/make_golden.py).
#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/nn/layers.h>
#include "ladder.h"

namespace {

namespace ht = hypertape;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using nlohmann::json;
using Function = std::function<Tensor(const TensorList&)>;

const json& golden() {
  static const json document = json::parse(std::ifstream(HYPERTAPE_GOLDEN_FILE));
  return document;
}

Tensor tensor_of(const json& node) {
  const auto extents = node.at("shape").get<std::vector<std::int64_t>>();
  return Tensor::from(node.at("values").get<std::vector<double>>(), Shape(std::span(extents)));
}
TensorList tensors_of(const json& nodes) {
  TensorList list;
  for (const json& node : nodes) list.push_back(node.is_null() ? Tensor() : tensor_of(node));
  return list;
}
Tensor constant(const char* name) { return tensor_of(golden().at("constants").at(name)); }

const Tensor labels = Tensor::from<std::int64_t>({2, 0, 1, 2});
const Tensor net_labels = Tensor::from<std::int64_t>({0, 2, 1, 1, 0, 2});

const std::map<std::string, Function>& operations() {
  static const std::map<std::string, Function> table = {
      {"divide", [](const TensorList& x) { return x[0] / x[1]; }},
      {"exp", [](const TensorList& x) { return ht::exp(x[0]); }},
      {"expm1", [](const TensorList& x) { return ht::expm1(x[0]); }},
      {"log", [](const TensorList& x) { return ht::log(x[0]); }},
      {"log1p", [](const TensorList& x) { return ht::log1p(x[0]); }},
      {"sqrt", [](const TensorList& x) { return ht::sqrt(x[0]); }},
      {"rsqrt", [](const TensorList& x) { return ht::rsqrt(x[0]); }},
      {"pow", [](const TensorList& x) { return ht::pow(x[0], x[1]); }},
      {"atan2", [](const TensorList& x) { return ht::atan2(x[0], x[1]); }},
      {"sin", [](const TensorList& x) { return ht::sin(x[0]); }},
      {"cos", [](const TensorList& x) { return ht::cos(x[0]); }},
      {"erf", [](const TensorList& x) { return ht::erf(x[0]); }},
      {"tanh", [](const TensorList& x) { return ht::tanh(x[0]); }},
      {"sigmoid", [](const TensorList& x) { return ht::sigmoid(x[0]); }},
      {"softplus", [](const TensorList& x) { return ht::softplus(x[0]); }},
      {"silu", [](const TensorList& x) { return ht::silu(x[0]); }},
      {"gelu", [](const TensorList& x) { return ht::gelu(x[0]); }},
      {"gelu_tanh", [](const TensorList& x) { return ht::gelu_tanh(x[0]); }},
      {"leaky_relu", [](const TensorList& x) { return ht::leaky_relu(x[0], 0.2); }},
      {"maximum", [](const TensorList& x) { return ht::maximum(x[0], x[1]); }},
      {"where",
       [](const TensorList& x) { return ht::where(ht::greater(x[0], 0.1), x[0] * x[0], ht::exp(x[1])); }},
      {"variance", [](const TensorList& x) { return ht::variance(x[0], {1}, false, 1); }},
      {"logsumexp", [](const TensorList& x) { return ht::logsumexp(x[0], {0}); }},
      {"norm", [](const TensorList& x) { return ht::norm(x[0], {1}); }},
      {"prod", [](const TensorList& x) { return ht::prod(x[0], {1}); }},
      {"max", [](const TensorList& x) { return ht::max(x[0], {1}); }},
      {"cumulative_sum", [](const TensorList& x) { return ht::cumulative_sum(x[0], 1); }},
      {"matmul", [](const TensorList& x) { return ht::matmul(x[0], x[1]); }},
      {"einsum", [](const TensorList& x) { return ht::einsum("bij,bkj,k->bik", x); }},
      {"concatenate",
       [](const TensorList& x) {
         return ht::concatenate({x[0], x[1], x[0]}, 1);
       }},
      {"gather",
       [](const TensorList& x) {
         return ht::gather(x[0], 0, Tensor::from<std::int64_t>({0, 2, 1, 0, 1, 1, 2, 2}, {2, 4}));
       }},
      {"index_select",
       [](const TensorList& x) {
         return ht::index_select(x[0], 1, Tensor::from<std::int64_t>({2, 0, 2}));
       }},
      {"roll", [](const TensorList& x) { return ht::roll(x[0], 2, 1); }},
      {"tril", [](const TensorList& x) { return ht::tril(x[0], 1); }},
      {"log_softmax", [](const TensorList& x) { return ht::log_softmax(x[0]); }},
      {"cross_entropy", [](const TensorList& x) { return ht::softmax_cross_entropy(x[0], labels); }},
      {"soft_cross_entropy",
       [](const TensorList& x) { return ht::softmax_cross_entropy(x[0], ht::softmax(x[1])); }},
      {"mean_squared_error", [](const TensorList& x) { return ht::mean_squared_error(x[0], x[1]); }},
      {"binary_cross_entropy",
       [](const TensorList& x) { return ht::binary_cross_entropy_with_logits(x[0], ht::sigmoid(x[1])); }},
  };
  return table;
}

Function mlp(const std::function<Tensor(const Tensor&)>& activation,
             const std::function<Tensor(const Tensor&)>& loss) {
  return [=, x = constant("x")](const TensorList& w) {
    const Tensor hidden = activation(ht::nn::linear(x, w[0], w[1]));
    return loss(ht::nn::linear(activation(ht::nn::linear(hidden, w[2], w[3])), w[4], w[5]));
  };
}

Tensor causal_attention(const TensorList& w) {
  const Tensor x = constant("sequence");
  const Tensor scores = ht::matmul(ht::matmul(x, w[0]), ht::matmul(x, w[1]), false, true) / 2.0;
  const Tensor mask = ht::triu(Tensor::full({4, 4}, -30.0), 1);
  const Tensor mixed = ht::matmul(ht::softmax(scores + mask), ht::matmul(x, w[2]));
  return ht::mean(ht::square(ht::matmul(mixed, w[3])));
}

Tensor layer_norm(const TensorList& w) {
  Tensor hidden = ht::matmul(constant("x"), w[0]);
  hidden = (hidden - ht::mean(hidden, {1}, true)) * ht::rsqrt(ht::variance(hidden, {1}, true) + 1e-5);
  return ht::mean_squared_error(ht::matmul(ht::gelu(hidden * w[1] + w[2]), w[3]), constant("target"));
}

const std::map<std::string, Function>& nets() {
  const auto plain = [](auto f) { return [f](const Tensor& x) { return f(x); }; };
  static const std::map<std::string, Function> table = {
      {"tanh classifier", mlp(plain([](const Tensor& x) { return ht::tanh(x); }),
                              [](const Tensor& z) { return ht::softmax_cross_entropy(z, net_labels); })},
      {"relu regression", mlp(plain([](const Tensor& x) { return ht::relu(x); }),
                              [](const Tensor& z) { return ht::mean_squared_error(z, constant("target")); })},
      {"silu logistic", mlp(plain([](const Tensor& x) { return ht::silu(x); }),
                            [](const Tensor& z) {
                              return ht::binary_cross_entropy_with_logits(z, ht::sigmoid(constant("target")));
                            })},
      {"causal attention", causal_attention},
      {"layer norm gelu", layer_norm},
  };
  return table;
}

// In units of the largest element of what is expected, at least 1.
void expect_close(const Tensor& value, const Tensor& expected, double tolerance) {
  REQUIRE(value.defined());
  REQUIRE(value.shape() == expected.shape());
  const std::vector<double> a = ladder::elements(value), b = ladder::elements(expected);
  double error = 0.0, scale = 1.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error = std::max(error, std::abs(a[i] - b[i]));
    scale = std::max(scale, std::abs(b[i]));
  }
  CHECK(error <= tolerance * scale);
}

void expect_golden(const json& expected, const Function& f) {
  CAPTURE(expected.at("name").get<std::string>());
  const TensorList x = tensors_of(expected.at("inputs")), v = tensors_of(expected.at("directions"));
  const Tensor u = tensor_of(expected.at("cotangent"));
  expect_close(f(x), tensor_of(expected.at("output")), 1e-14);
  const auto weighted = [&](const TensorList& y) { return ht::dot(u, f(y)); };
  const TensorList gradients = ht::grad(weighted, x), hessian_vector = ht::hvp(weighted, x, v);
  const TensorList first = tensors_of(expected.at("gradients")), second = tensors_of(expected.at("second"));
  for (std::size_t i = 0; i < x.size(); ++i) {
    CAPTURE(i);
    expect_close(gradients[i], first[i], 1e-13);
    // PyTorch has zeros in some places where there is no path.
    const Tensor zeros = Tensor::zeros(x[i].shape());
    expect_close(hessian_vector[i].defined() ? hessian_vector[i] : zeros,
                 second[i].defined() ? second[i] : zeros, 1e-12);
  }
}

void expect_all(const char* kind, const std::map<std::string, Function>& table, std::size_t least) {
  std::set<std::string> seen;
  for (const json& each : golden().at(kind)) {
    const auto name = each.at("name").get<std::string>();
    const auto found = table.find(name);
    CHECK_MESSAGE(found != table.end(), "no function for " << name);
    if (found == table.end()) continue;
    expect_golden(each, found->second);
    seen.insert(name);
  }
  CHECK(seen.size() == table.size());
  CHECK(seen.size() >= least);
}

}  // namespace

TEST_CASE("golden: operations have PyTorch's values, gradients and second derivatives") {
  expect_all("operations", operations(), 30);
}

TEST_CASE("golden: nets have PyTorch's losses, gradients and Hessian-vector products") {
  expect_all("nets", nets(), 5);
}
