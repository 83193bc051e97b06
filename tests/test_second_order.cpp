// ctest labels: threads levels
// Second order without what nobody reads: hvp against the tangent of a whole gradient bit for bit, and the
// multiply-adds that each product takes.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/linear.h>
#include <hypertape/nn/layers.h>
#include "core/cpu/products/product.h"
#include "ladder.h"
#include "thrown.h"

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

namespace {

/// The j-th of each stack.
TensorList row_of(const TensorList& stacks, std::int64_t j) {
  TensorList rows;
  for (const Tensor& each : stacks)
    rows.push_back(each.defined() ? ht::unstack(each, 0)[static_cast<std::size_t>(j)] : Tensor());
  return rows;
}

TensorList stacks_like(const TensorList& x, std::int64_t count, std::uint32_t stream) {
  std::vector<TensorList> each;
  for (std::int64_t j = 0; j < count; ++j)
    each.push_back(directions(x, stream + 100 * static_cast<std::uint32_t>(j)));
  TensorList stacks;
  for (std::size_t i = 0; i < x.size(); ++i) {
    TensorList rows;
    for (const TensorList& one : each)
      if (one[i].defined()) rows.push_back(one[i]);
    stacks.push_back(rows.empty() ? Tensor() : ht::stack(rows, 0));
  }
  return stacks;
}

}  // namespace

TEST_CASE("a linearised gradient has the bits of hvp, and gives a block of vectors the bits of each alone") {
  for (const Case& each : cases()) {
    CAPTURE(each.name);
    const auto linear =
        ht::linearize([&](const TensorList& x) { return ht::grad(each.f, x); }, each.x).second;
    for (const std::int64_t count : {1, 3}) {
      TensorList block = stacks_like(each.x, count, 200);
      for (const bool some : {false, true}) {
        if (some) block.front() = Tensor();
        const TensorList products = linear.block(block);
        for (std::int64_t j = 0; j < count; ++j) {
          CHECK(same_bits(row_of(products, j), linear(row_of(block, j))));
          CHECK(same_bits(row_of(products, j), ht::hvp(each.f, each.x, row_of(block, j))));
        }
      }
    }
  }
}

TEST_CASE("a block through every elementwise operation that broadcasts, and through reductions") {
  const auto f = [](const TensorList& x) {
    const Tensor wide = ht::multiply_add(x[0], x[1], x[2]) - x[3] * x[0];
    return TensorList{ht::tanh(wide) / (2.0 + ht::square(x[2])),
                      ht::sum(wide, {0}),
                      ht::sum(ht::exp(wide)),
                      ht::softmax(wide),
                      ht::permute(ht::expand(x[2], {4, 2, 3}), {2, 0, 1}),
                      x[1] + x[0],
                      ht::norm(wide, {1}),
                      ht::concatenate({wide, x[0]}, 0)};
  };
  const TensorList x = {sample({2, 3}, -1, 1, 21), sample({1}, -1, 1, 22), sample({3}, -1, 1, 23),
                        sample({2, 1}, -1, 1, 24)};
  const auto linear = ht::linearize(f, x).second;
  const TensorList block = stacks_like(x, 4, 300), products = linear.block(block);
  for (std::int64_t j = 0; j < 4; ++j)
    CHECK(same_bits(row_of(products, j), ht::jvp(f, x, row_of(block, j)).second));
  // Differentiated itself, through stacked public operations.
  const auto total = [&](const TensorList& v) {
    Tensor sum = Tensor::scalar(0.0);
    for (const Tensor& each : linear.block(v)) sum = sum + ht::sum(ht::square(each));
    return sum;
  };
  const auto one_by_one = [&](const TensorList& v) {
    Tensor sum = Tensor::scalar(0.0);
    for (std::int64_t j = 0; j < 4; ++j)
      for (const Tensor& each : linear(row_of(v, j))) sum = sum + ht::sum(ht::square(each));
    return sum;
  };
  CHECK(ladder::difference(ht::grad(total, block), ht::grad(one_by_one, block)) < 1e-13);
}

TEST_CASE("what a linearised gradient adds in place has the bits of hvp, and nothing handed in is changed") {
  for (const Dtype dtype : {Dtype::float32, Dtype::float64}) {
    // Above the size from which a sum is looked up; several chunks.
    const TensorList w = {ht::random({90, 200}, ht::Distribution::normal, {1}, dtype),
                          ht::random({200}, ht::Distribution::normal, {2}, dtype)};
    const TensorList l2 = {ht::random({90, 200}, ht::Distribution::uniform, {3}, dtype),
                           ht::random({200}, ht::Distribution::uniform, {4}, dtype)};
    const Tensor x = ht::random({7, 90}, ht::Distribution::normal, {5}, dtype);
    const auto fit = [&](const TensorList& y) {
      return ht::mean(ht::square(ht::linear(x, y[0], y[1], ht::Activation::tanh)));
    };
    const auto penalty = [&](const TensorList& y) {
      return ht::sum(ht::weighted_square(l2[0], y[0])) + ht::sum(ht::weighted_square(l2[1], y[1]));
    };
    const std::function<Tensor(const TensorList&)> losses[] = {
        [&](const TensorList& y) {
          const Tensor first = fit(y);
          return first + penalty(y);
        },
        [&](const TensorList& y) {
          const Tensor first = penalty(y);
          return first + fit(y);
        },
        // Two tangents in one formula, which are added up before they are added to the penalty's part.
        [&](const TensorList& y) {
          const Tensor first = ht::sum(ht::square(ht::tanh(y[0])));
          return first + penalty(y);
        },
        [&](const TensorList& y) { return ht::sum(y[0] * y[0] * y[0]) + penalty(y); }};
    const TensorList v = {ht::random({90, 200}, ht::Distribution::normal, {6}, dtype),
                          ht::random({200}, ht::Distribution::normal, {7}, dtype)};
    const TensorList before = {ht::contiguous(v[0] * 1.0), ht::contiguous(v[1] * 1.0)};
    for (const auto& loss : losses) {
      const auto hessian = ht::bilevel::hessian_operator(loss, w);
      for (const TensorList& along : {v, TensorList{v[0], Tensor()}, TensorList{Tensor(), v[1]}}) {
        const TensorList expected = ht::hvp(loss, w, along);
        for (int again = 0; again < 2; ++again) {
          const TensorList product = hessian(along);
          for (std::size_t i = 0; i < w.size(); ++i)
            if (product[i].defined() && expected[i].defined()) CHECK(same_bits(product[i], expected[i]));
        }
      }
      CHECK(same_bits(v, before));
      // Directions that are being differentiated: nothing is added in place, the bits are the same.
      TensorList recorded;
      ht::vjp(
          [&](const TensorList& along) {
            recorded = hessian(along);
            return recorded;
          },
          v);
      CHECK(same_bits(recorded[0], hessian(v)[0]));
      TensorList block;
      for (const Tensor& each : v) block.push_back(ht::stack({each, each * 2.0}, 0));
      const TensorList products = hessian.block(block);
      for (std::size_t i = 0; i < w.size(); ++i)
        if (products[i].defined()) CHECK(same_bits(ht::unstack(products[i], 0)[0], hessian(v)[i]));
    }
  }
}

TEST_CASE("a block that does not match is an Error") {
  const auto linear = ht::linearize([](const TensorList& x) { return x[0] * x[1]; },
                                    TensorList{sample({3}, -1, 1, 1), sample({3}, -1, 1, 2)})
                          .second;
  const Tensor two = sample({2, 3}, -1, 1, 3);
  expect_text(thrown([&] { linear.block({two, sample({4, 3}, -1, 1, 4)}); }), "(4, 3)");
  expect_text(thrown([&] { linear.block({sample({3}, -1, 1, 4), two}); }), "[linearize]");
  expect_text(thrown([&] { linear.block({Tensor::zeros({0, 3}), {}}); }), "at least 1");
  expect_text(thrown([&] { linear.block({Tensor::scalar(1.0), {}}); }), "first axis");
  expect_text(thrown([&] { linear.block({ht::astype(two, Dtype::float32), {}}); }), "float32");
  CHECK_FALSE(linear.block({Tensor(), Tensor()}).defined());

  // Between matrices, something with as many axes as there may be.
  const auto deep = ht::linearize(
                        [](const TensorList& x) {
                          return ht::sum(ht::sin(ht::reshape(ht::sin(x[0]), {1, 1, 1, 1, 1, 1, 1, 3})));
                        },
                        TensorList{sample({3}, -1, 1, 1)})
                        .second;
  expect_text(thrown([&] { deep.block({two}); }), "[linearize] a block of tangents needs an axis more");
}

TEST_CASE("Gauss-Newton: the dense J' H J, alone and in blocks, and F + R, then 2F + 4R multiply-adds") {
  constexpr std::int64_t batch = 6, F = batch * 7 * 5, R = batch * (5 * 4 + 4 * 3);
  const Net net({7, 5, 4, 3}, ht::nn::Activation::tanh, batch, Dtype::float64);
  const TensorList w = net.w.tensors(), v = directions(w, 1);
  const std::vector<ht::Shape> shapes = net.w.shapes();
  const auto model = [&](const TensorList& x) { return TensorList{net.logits(x)}; };
  const auto loss = [&](const TensorList& z) { return ht::softmax_cross_entropy(z[0], net.labels); };
  std::optional<ht::bilevel::CurvatureOperator> product;
  CHECK(multiply_adds([&] { product = ht::bilevel::gauss_newton_operator(model, loss, w); }) == F + R);
  for (int k = 0; k < 2; ++k) CHECK(multiply_adds([&] { (*product)(v); }) == 2 * F + 4 * R);

  // J row by row from pullbacks of unit cotangents, H from p - p p' by hand.
  const auto [z, pullback] = ht::vjp(model, w);
  const std::vector<double> logits = ladder::elements(z[0]);
  constexpr std::size_t rows = static_cast<std::size_t>(batch), classes = 3, outputs = rows * classes;
  std::vector<std::vector<double>> jacobian;
  for (std::size_t o = 0; o < outputs; ++o) {
    std::vector<double> unit(outputs);
    unit[o] = 1.0;
    jacobian.push_back(
        ladder::elements(ht::flatten(pullback({Tensor::from(unit, ht::Shape{batch, 3})}), shapes)));
  }
  const std::size_t weights = jacobian.front().size();
  const std::vector<double> direction = ladder::elements(ht::flatten(v, shapes));
  std::vector<long double> along(outputs), curved(outputs), expected(weights);
  for (std::size_t o = 0; o < outputs; ++o)
    for (std::size_t i = 0; i < weights; ++i)
      along[o] += static_cast<long double>(jacobian[o][i]) * direction[i];
  for (std::size_t n = 0; n < rows; ++n) {
    long double total = 0.0L, mean = 0.0L;
    std::vector<long double> p(classes);
    for (std::size_t c = 0; c < classes; ++c)
      total += p[c] = std::exp(static_cast<long double>(logits[n * classes + c]));
    for (std::size_t c = 0; c < classes; ++c) mean += (p[c] /= total) * along[n * classes + c];
    for (std::size_t c = 0; c < classes; ++c)
      curved[n * classes + c] = p[c] * (along[n * classes + c] - mean) / static_cast<long double>(batch);
  }
  for (std::size_t o = 0; o < outputs; ++o)
    for (std::size_t i = 0; i < weights; ++i) expected[i] += jacobian[o][i] * curved[o];
  const std::vector<double> got = ladder::elements(ht::flatten((*product)(v), shapes));
  for (std::size_t i = 0; i < weights; ++i)
    CHECK(std::abs(got[i] - static_cast<double>(expected[i])) <= 1e-12);

  const TensorList block = stacks_like(w, 3, 400), products = product->block(block);
  for (std::int64_t j = 0; j < 3; ++j) CHECK(same_bits(row_of(products, j), (*product)(row_of(block, j))));
  // Without curvature or without a path the result is absent, hence zero.
  const auto linear_loss = [](const TensorList& y) { return ht::sum(y[0]); };
  const auto flat = ht::bilevel::gauss_newton_operator(model, linear_loss, w);
  for (const Tensor& each : flat(v)) CHECK_FALSE(each.defined());
  for (const Tensor& each : flat.block(block)) CHECK_FALSE(each.defined());
  const auto nothing = [](const TensorList&) { return Tensor::scalar(1.0); };
  expect_text(thrown([&] { ht::bilevel::gauss_newton_operator(model, nothing, w); }),
              "[gauss_newton_operator]");
  expect_text(thrown([&] { ht::bilevel::gauss_newton_operator({}, loss, w); }), "no model");
  expect_text(thrown([&] { ht::bilevel::gauss_newton_operator(model, {}, w); }), "no loss");
}

TEST_CASE("a Hessian operator takes blocks; of a quadratic form it is the matrix") {
  const Tensor a = sample({4, 4}, -1, 1, 31), matrix = a + ht::transpose(a);
  const auto form = [&](const TensorList& w) { return 0.5 * ht::dot(w[0], ht::matmul(matrix, w[0])); };
  const auto hessian = ht::bilevel::hessian_operator(form, {sample({4}, -1, 1, 32)});
  const Tensor unit = ht::diag(Tensor::ones({4}));
  CHECK(ladder::difference(hessian.block({unit}), {matrix}) < 1e-15);
}

TEST_CASE("a Neumann series has the same bits plain and while it is being differentiated") {
  for (const Dtype dtype : {Dtype::float32, Dtype::float64})
    for (const double momentum : {0.0, 0.7}) {
      const Tensor scale = ht::random({70000}, ht::Distribution::uniform, {5}, dtype);
      const TensorList b = {ht::random({70000}, ht::Distribution::normal, {6}, dtype),
                            ht::random({3, 5}, ht::Distribution::normal, {7}, dtype)};
      const ht::bilevel::LinearMap a = [&](const TensorList& x) { return TensorList{scale * x[0], x[1]}; };
      const ht::bilevel::NeumannOptions options{.rate = 0.3, .terms = 5, .momentum = momentum};
      const ht::bilevel::LinearSolution plain = ht::bilevel::neumann_series(a, b, options);
      ht::bilevel::LinearSolution recorded;
      ht::vjp(
          [&](const TensorList& right) {
            recorded = ht::bilevel::neumann_series(a, right, options);
            return recorded.x;
          },
          b);
      CHECK(same_bits(plain.x, recorded.x));
      CHECK(plain.residuals == recorded.residuals);
      {
        const ladder::Threads two(2);
        const ht::bilevel::LinearSolution parallel = ht::bilevel::neumann_series(a, b, options);
        CHECK(same_bits(plain.x, parallel.x));
        CHECK(plain.residuals == parallel.residuals);
      }
      // The residual of the iterate before the last, from its definition.
      const TensorList before =
          ht::bilevel::neumann_series(a, b, {.rate = 0.3, .terms = 4, .momentum = momentum}).x;
      const TensorList product = a(before);
      double error = 0.0, size = 0.0;
      for (std::size_t i = 0; i < b.size(); ++i) {
        const std::vector<double> r = ladder::elements(ht::astype(b[i] - product[i], Dtype::float64)),
                                  right = ladder::elements(ht::astype(b[i], Dtype::float64));
        for (const double each : r) error += each * each;
        for (const double each : right) size += each * each;
      }
      const double expected = std::sqrt(error / size);
      CHECK(std::abs(plain.residuals.back() - expected) <=
            (dtype == Dtype::float32 ? 1e-5 : 1e-13) * expected);
      // Numbers whose squares leave the dtype's range.
      const double tiny = dtype == Dtype::float32 ? 1e-30 : 1e-200;
      const ht::bilevel::LinearSolution small =
          ht::bilevel::neumann_series(a, {b[0] * tiny, b[1] * tiny}, options);
      CHECK(std::abs(small.residuals.back() - expected) <=
            (dtype == Dtype::float32 ? 1e-5 : 1e-13) * expected);
    }
}
