// Second order without what nobody reads: hvp against the tangent of a whole gradient bit for bit, and the
// multiply-adds that each product takes.
#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "hypertape/autodiff/derivatives.h"
#include "hypertape/autodiff/ops.h"
#include "hypertape/bilevel/linear.h"
#include "hypertape/nn/layers.h"
#include "ladder.h"
#include "products.h"

namespace {

namespace ht = hypertape;
using ht::Dtype;
using ht::Tensor;
using ht::TensorList;
using ladder::same_bits;
using ladder::sample;
using Loss = std::function<Tensor(const TensorList&)>;

/// The gradient with all its tangents, of which the gradient is thrown away.
TensorList whole(const Loss& f, const TensorList& x, const TensorList& v) {
  return ht::jvp([&](const TensorList& at) { return ht::grad(f, at); }, x, v).second;
}

struct Case {
  std::string name;
  Loss f;
  TensorList x;
};

Tensor labels_of(std::int64_t rows, std::int64_t classes) {
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < rows; ++i) labels.push_back(i * 7 % classes);
  return Tensor::from(labels, {rows});
}

struct Net {
  Net(std::vector<std::int64_t> sizes, ht::nn::Activation activation, std::int64_t batch, Dtype dtype)
      : mlp(std::move(sizes), activation),
        w(mlp.init({3}, dtype)),
        rows(ht::random({batch, mlp.sizes().front()}, ht::Distribution::normal, {5}, dtype)),
        labels(labels_of(batch, mlp.sizes().back())) {}
  Tensor logits(const TensorList& at) const { return mlp(w.with(at), rows); }
  Tensor loss(const TensorList& at) const { return ht::softmax_cross_entropy(logits(at), labels); }

  ht::nn::Mlp mlp;
  ht::NamedTensors w;
  Tensor rows, labels;
};

TensorList directions(const TensorList& x, std::uint32_t stream) {
  TensorList v;
  for (const Tensor& each : x) {
    v.push_back(each.defined() && ht::is_floating(each.dtype())
                    ? ht::random(each.shape(), ht::Distribution::normal, {11, stream}, each.dtype())
                    : Tensor());
    ++stream;
  }
  return v;
}

/// Each way in which a weight may reach the loss: used once and several times, first or second, transposed,
/// as a view, as a row, as a piece of a vector, under a checkpoint.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Dtype dtype : {Dtype::float32, Dtype::float64})
    for (const auto activation : {ht::nn::Activation::tanh, ht::nn::Activation::relu}) {
      const Net net({13, 9, 7, 5}, activation, 11, dtype);
      all.push_back({"net", [net](const TensorList& w) { return net.loss(w); }, net.w.tensors()});
    }
  const Net net({6, 5, 4}, ht::nn::Activation::tanh, 7, Dtype::float64);
  const TensorList w = net.w.tensors();
  std::vector<ht::Shape> shapes = net.w.shapes();
  all.push_back({"one vector of weights",
                 [net, shapes](const TensorList& x) { return net.loss(ht::unflatten(x[0], shapes)); },
                 {ht::flatten(w, shapes)}});
  all.push_back({"penalty",
                 [net](const TensorList& x) {
                   Tensor total = net.loss(x);
                   for (const Tensor& each : x) total = total + 0.1 * ht::sum(ht::square(each));
                   return total;
                 },
                 w});
  all.push_back({"the same weight in two layers, once transposed",
                 [](const TensorList& x) {
                   const Tensor a = ht::tanh(ht::matmul(x[0], x[1]));
                   const Tensor b = ht::tanh(ht::matmul(a, x[1], false, true));
                   return ht::sum(ht::square(ht::matmul(b, x[1], true, false)));
                 },
                 {sample({5, 5}, -1, 1, 1), sample({5, 5}, -1, 1, 2)}});
  all.push_back({"both operands of one product",
                 [](const TensorList& x) {
                   return ht::sum(ht::exp(ht::matmul(x[0], x[0], false, true))) +
                          ht::sum(ht::tanh(ht::matmul(x[0], x[0], true, false)));
                 },
                 {sample({4, 3}, -1, 1, 3)}});
  all.push_back({"every transposition",
                 [](const TensorList& x) {
                   Tensor total = ht::sum(ht::tanh(ht::matmul(x[0], x[1])));
                   total = total + ht::sum(ht::tanh(ht::matmul(x[0], x[1], true, true)));
                   total = total + ht::sum(ht::tanh(ht::matmul(x[0], x[2], true, false)));
                   return total + ht::sum(ht::tanh(ht::matmul_add(x[3], x[1], x[0], true, true)));
                 },
                 {sample({3, 3}, -1, 1, 4), sample({3, 3}, -1, 1, 5), sample({3, 2}, -1, 1, 6),
                  sample({3, 3}, -1, 1, 7)}});
  all.push_back({"views of a leaf",
                 [](const TensorList& x) {
                   const Tensor turned = ht::transpose(ht::reshape(x[0], {3, 4}));
                   const TensorList rows = ht::unstack(x[1], 0);
                   const TensorList halves = ht::split(x[1], {1, 2}, 0);
                   return ht::sum(ht::tanh(ht::matmul(turned, x[1]))) +
                          ht::dot(ht::exp(rows[0]), ht::square(rows[2])) +
                          ht::sum(ht::exp(ht::matmul(halves[0], halves[1], false, true))) +
                          ht::sum(ht::square(ht::expand(x[2], {4, 3}) * ht::expand(x[2], {4, 3})));
                 },
                 {sample({12}, -1, 1, 8), sample({3, 3}, -1, 1, 9), sample({3}, -1, 1, 10)}});
  all.push_back({"batches of products",
                 [](const TensorList& x) {
                   return ht::sum(ht::tanh(ht::matmul(x[0], x[1]))) +
                          ht::sum(ht::tanh(ht::matmul(x[0], x[2]))) +
                          ht::sum(ht::tanh(ht::matmul_add(x[1], x[1], x[0], true, true)));
                 },
                 {sample({2, 3, 3}, -1, 1, 11), sample({2, 3, 3}, -1, 1, 12), sample({3, 3}, -1, 1, 13)}});
  all.push_back({"checkpoint",
                 [net](const TensorList& x) {
                   const Tensor first = net.loss(x);
                   const Tensor again = ht::checkpoint(
                       [net](const TensorList& at) { return ht::tanh(ht::matmul(net.rows, at[0])); },
                       TensorList{x[0]});
                   return first + ht::sum(ht::square(again)) + ht::sum(ht::matmul(net.rows, x[0]) * again);
                 },
                 w});
  all.push_back({"some inputs without a path, a direction or a derivative",
                 [net](const TensorList& x) {
                   return net.loss({x[0], x[1], x[2], x[3]}) + ht::sum(ht::gather_labels(x[5], x[6]));
                 },
                 {w[0], w[1], w[2], w[3], sample({3}, -1, 1, 14), sample({7, 4}, -1, 1, 15), net.labels}});
  all.push_back({"linear: no path to a second derivative",
                 [](const TensorList& x) { return ht::sum(x[0]) + ht::sum(ht::square(x[1])); },
                 {sample({3}, -1, 1, 16), sample({3}, -1, 1, 17)}});
  all.push_back({"a leaf as the value", [](const TensorList& x) { return x[0]; }, {sample({1}, -1, 1, 18)}});
  all.push_back({"a derivative inside",
                 [](const TensorList& x) {
                   const Tensor inner = ht::grad(
                       [&](const Tensor& z) { return ht::sum(ht::tanh(ht::matmul(x[0], z))); }, x[1]);
                   return ht::sum(ht::exp(ht::matmul(inner, x[0])));
                 },
                 {sample({3, 3}, -1, 1, 19), sample({3, 3}, -1, 1, 20)}});
  return all;
}

}  // namespace

TEST_CASE("hvp has the bits of the tangent of the whole gradient") {
  for (const Case& each : cases()) {
    CAPTURE(each.name);
    TensorList v = directions(each.x, 40);
    CHECK(same_bits(ht::hvp(each.f, each.x, v), whole(each.f, each.x, v)));
    // Absent directions are zeros that nothing is computed for.
    v.front() = Tensor();
    CHECK(same_bits(ht::hvp(each.f, each.x, v), whole(each.f, each.x, v)));
  }
}

TEST_CASE("hvp is differentiated like the whole gradient's tangent, in every way") {
  for (const Case& each : cases()) {
    if (each.x.front().dtype() != Dtype::float64) continue;
    CAPTURE(each.name);
    const TensorList v = directions(each.x, 60), u = directions(each.x, 80);
    const auto paired = [&](const auto& product, const TensorList& x, const TensorList& along) {
      const TensorList h = product(each.f, x, along);
      Tensor total = Tensor::scalar(0.0);
      for (std::size_t i = 0; i < h.size(); ++i)
        if (h[i].defined() && u[i].defined()) total = total + ht::dot(h[i], u[i]);
      return total;
    };
    const auto shorter = [](const Loss& f, const TensorList& x, const TensorList& along) {
      return ht::hvp(f, x, along);
    };
    // In x: backwards, forwards, and forwards over backwards; in the direction; and with x closed over.
    const auto by_x = [&](const auto& product) {
      return ht::grad([&](const TensorList& x) { return paired(product, x, v); }, each.x);
    };
    CHECK(same_bits(by_x(shorter), by_x(whole)));
    const auto along_u = [&](const auto& product) {
      return ht::jvp([&](const TensorList& x) { return product(each.f, x, v); }, each.x, u).second;
    };
    CHECK(same_bits(along_u(shorter), along_u(whole)));
    const auto third = [&](const auto& product) {
      return ht::jvp(
                 [&](const TensorList& y) {
                   return ht::grad([&](const TensorList& x) { return paired(product, x, v); }, y);
                 },
                 each.x, u)
          .second;
    };
    CHECK(same_bits(third(shorter), third(whole)));
    const auto by_v = [&](const auto& product) {
      return ht::grad([&](const TensorList& along) { return paired(product, each.x, along); }, v);
    };
    CHECK(same_bits(by_v(shorter), by_v(whole)));
    const auto closed = [&](const auto& product) {
      return ht::grad(
          [&](const Tensor& scale) {
            const Loss scaled = [&](const TensorList& x) { return each.f(x) * scale * scale; };
            const TensorList h = product(scaled, each.x, v);
            Tensor total = scale;
            for (const Tensor& one : h)
              if (one.defined()) total = total + ht::sum(ht::square(one));
            return total;
          },
          Tensor::scalar(0.75));
    };
    CHECK(same_bits(closed(shorter), closed(whole)));
  }
}

TEST_CASE("hvp of a pair takes the value; of what is no scalar it says so") {
  const Tensor x = sample({3}, -1, 1, 1), v = sample({3}, -1, 1, 2);
  const auto pair = [](const Tensor& z) { return std::pair(ht::sum(ht::exp(z)), z); };
  CHECK(same_bits(ht::hvp(pair, x, v), ht::exp(x) * v));
}

namespace {

std::int64_t multiply_adds(const std::function<void()>& work) {
  const std::int64_t before = ht::detail::multiply_adds();
  work();
  return ht::detail::multiply_adds() - before;
}

}  // namespace

TEST_CASE("multiply-adds: first layer F, the rest R: gradient 2F + 3R, hvp 3F + 8R, linearised 2F + 6R") {
  constexpr std::int64_t batch = 8, F = batch * 12 * 6, R = batch * (6 * 5 + 5 * 3);
  for (const auto activation : {ht::nn::Activation::tanh, ht::nn::Activation::relu}) {
    const Net net({12, 6, 5, 3}, activation, batch, Dtype::float32);
    const TensorList w = net.w.tensors(), v = directions(w, 1);
    const Loss loss = [&](const TensorList& x) { return net.loss(x); };
    CHECK(multiply_adds([&] { ht::grad(loss, w); }) == 2 * F + 3 * R);
    CHECK(multiply_adds([&] { whole(loss, w, v); }) == 4 * F + 9 * R);
    CHECK(multiply_adds([&] { ht::hvp(loss, w, v); }) == 3 * F + 8 * R);
    // All weights in one vector.
    const std::vector<ht::Shape> shapes = net.w.shapes();
    const auto flat = [&](const Tensor& x) { return net.loss(ht::unflatten(x, shapes)); };
    const Tensor one = ht::flatten(w, shapes), along = ht::flatten(v, shapes);
    CHECK(multiply_adds([&] { ht::hvp(flat, one, along); }) == 3 * F + 8 * R);
    // The primal is paid once.
    ht::bilevel::LinearMap hessian;
    CHECK(multiply_adds([&] { hessian = ht::bilevel::hessian_operator(loss, w); }) == 2 * F + 3 * R);
    for (int k = 0; k < 2; ++k) CHECK(multiply_adds([&] { hessian(v); }) == 2 * F + 6 * R);
    // Tangents that are zero cost nothing: of the last layer's weights alone, only that layer's products and
    // those on the way back are moved.
    TensorList last(w.size());
    last[4] = v[4];
    constexpr std::int64_t L = batch * 5 * 3, M = batch * 6 * 5;
    CHECK(multiply_adds([&] { hessian(last); }) == 4 * L + 2 * M + F);
  }
}
