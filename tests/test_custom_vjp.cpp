// Functions that bring their own pullback: right once, refused twice; and pullbacks that throw.
#include <doctest/doctest.h>

#include <functional>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include <hypertape/core/memory.h>
#include "ladder.h"
#include "thrown.h"

namespace ht = hypertape;
using ht::CustomVjp;
using ht::grad;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ht::vjp;
using ladder::elements;
using ladder::sample;

namespace {

// z^2 with its derivative, but three times too large, so that it shows who was asked.
TensorList tripled_square(const TensorList& inputs) {
  return ht::custom_vjp("tripled_square", inputs, [](const TensorList& z) {
    return CustomVjp{{z[0] * z[0]}, [z](const TensorList& u) { return TensorList{6.0 * z[0] * u[0]}; }};
  });
}

Tensor tripled(const Tensor& x) { return ht::sum(tripled_square({x})[0]); }

}  // namespace

TEST_CASE("custom_vjp: the forward's values, the pullback's gradients") {
  const Tensor x = sample({3}, -1, 1, 1);
  CHECK(ladder::same_bits(tripled_square({x})[0], x * x));
  CHECK(ladder::same_bits(grad(tripled, x), 6.0 * x));
  CHECK(ladder::same_bits(grad(tripled, x), 6.0 * x));
  const auto pullback = vjp([](const TensorList& z) { return tripled_square(z); }, TensorList{x}).second;
  CHECK(ladder::same_bits(pullback({x}), pullback({x})));
  // Before and after recorded operations.
  const Tensor chained =
      grad([](const Tensor& z) { return ht::sum(ht::exp(tripled_square({2.0 * z})[0])); }, x);
  CHECK(ladder::difference({chained}, {ht::exp(4.0 * x * x) * 6.0 * (2.0 * x) * 2.0}) <= 1e-13);
}

TEST_CASE("custom_vjp with several inputs and outputs, some absent, some integers") {
  const auto f = [](const TensorList& inputs) {
    return ht::custom_vjp("pick", inputs, [](const TensorList& z) {
      CHECK_FALSE(z[1].defined());
      CHECK(z[2].dtype() == ht::Dtype::int64);
      return CustomVjp{{z[0] * 2.0, z[0] * 3.0}, [](const TensorList& u) {
                         CHECK_FALSE(u[1].defined());
                         return TensorList{u[0] * 2.0, Tensor(), Tensor()};
                       }};
    });
  };
  const TensorList x{Tensor::ones({2}), Tensor(), Tensor::from<std::int64_t>({1})};
  const TensorList g = vjp(f, x).second({Tensor::ones({2}), Tensor()});
  CHECK(elements(g[0]) == std::vector<double>{2, 2});
  CHECK_FALSE(g[1].defined());
  CHECK_FALSE(g[2].defined());
  // Returning an input is allowed.
  const auto identity = [](const TensorList& inputs) {
    return ht::custom_vjp("identity", inputs, [](const TensorList& z) {
      return CustomVjp{z, [](const TensorList& u) { return u; }};
    });
  };
  CHECK(elements(vjp(identity, TensorList{Tensor::ones({2})}).second({Tensor::ones({2})})[0]) ==
        std::vector<double>{1, 1});
}

TEST_CASE("a custom forward that uses a differentiated variable without being given it is refused") {
  const Tensor x = sample({3}, -1, 1, 1);
  const auto with = [](const std::function<Tensor(const Tensor&)>& link) {
    return [link](const Tensor& outer) {
      return ht::sum(ht::custom_vjp("closure", {outer}, [&](const TensorList& z) {
        return CustomVjp{{link(outer) * z[0]}, [](const TensorList& u) { return TensorList{u[0] * 5.0}; }};
      })[0]);
    };
  };
  // Its derivative would be lost in silence.
  const auto linked = with([](const Tensor& t) { return t; });
  expect_text(thrown([&] { grad(linked, x); }), "[closure]");
  expect_text(thrown([&] { grad(linked, x); }), "not passed in");
  expect_text(thrown([&] { ht::jvp(linked, x, x); }), "[closure]");
  const auto stopped = with([](const Tensor& t) { return ht::stop_gradient(t); });
  CHECK(elements(grad(stopped, x)) == std::vector<double>{5, 5, 5});
}

TEST_CASE("custom_vjp differentiated twice, or given a tangent, names itself") {
  const Tensor x = sample({3}, -1, 1, 1);
  const auto twice = [&] { grad([](const Tensor& z) { return ht::sum(grad(tripled, z)); }, x); };
  expect_text(thrown(twice), "[tripled_square]");
  expect_text(thrown(twice), "differentiable once");
  expect_text(thrown([&] { ht::jvp([](const Tensor& z) { return tripled(z); }, x, x); }), "[tripled_square]");
  expect_text(thrown([&] { ht::hvp(tripled, x, x); }), "[tripled_square]");
  const auto linear = ht::linearize([](const Tensor& z) { return tripled(z); }, x).second;
  expect_text(thrown([&] { linear(x); }), "[tripled_square]");
  // Recorded cotangents are a second derivative too.
  const auto pullback = vjp([](const TensorList& z) { return tripled_square(z); }, TensorList{x}).second;
  expect_text(thrown([&] { grad([&](const Tensor& u) { return ht::sum(pullback({u})[0]); }, x); }),
              "[tripled_square]");
  // The library is as good as new afterwards.
  CHECK(ladder::same_bits(grad(tripled, x), 6.0 * x));
}

TEST_CASE("custom_vjp whose pullback returns what does not fit is refused by name") {
  const auto with = [](const std::function<TensorList(const TensorList&)>& pullback) {
    return [pullback](const Tensor& x) {
      return ht::sum(ht::custom_vjp("odd", {x}, [&](const TensorList& z) {
        return CustomVjp{{z[0] * 1.0}, pullback};
      })[0]);
    };
  };
  const Tensor x = Tensor::ones({3});
  expect_text(thrown([&] { grad(with([](const TensorList&) { return TensorList{}; }), x); }), "[odd]");
  expect_text(thrown([&] { grad(with([](const TensorList&) { return TensorList{Tensor::ones({2})}; }), x); }),
              "(2)");
  expect_text(
      thrown([&] {
        grad(with([](const TensorList&) { return TensorList{Tensor::ones({3}, ht::Dtype::float32)}; }), x);
      }),
      "[odd]");
  CHECK_FALSE(grad(with([](const TensorList&) { return TensorList{Tensor()}; }), x).defined());
}

TEST_CASE("a rule that throws in a consuming backward: graph released, no tensor changed") {
  const Tensor x = sample({100}, 0.5, 1, 1), y = sample({100}, 0.5, 1, 2);
  const Tensor x_before = ladder::converted(x, ht::Dtype::float64),
               y_before = ladder::converted(y, ht::Dtype::float64);
  const auto failing = [](const TensorList& z) {
    Tensor a = ht::exp(z[0]) * z[1];
    a = ht::custom_vjp("failing", {a}, [](const TensorList& in) {
      return CustomVjp{{in[0] * 2.0},
                       [](const TensorList&) -> TensorList { throw std::runtime_error("on purpose"); }};
    })[0];
    return ht::sum(ht::tanh(a) * z[0]);
  };
  expect_text(thrown([&] { grad(failing, TensorList{x, y}); }), "on purpose");  // fills the caches
  const ht::MemoryStatistics before = ht::memory_statistics();
  for (int i = 0; i < 20; ++i) {
    expect_text(thrown([&] { grad(failing, TensorList{x, y}); }), "on purpose");
    // Caught inside an outer derivative, which goes on.
    const Tensor g = grad(
        [&](const Tensor& z) {
          expect_text(thrown([&] { grad(failing, TensorList{z, y}); }), "differentiable once");
          return ht::sum(z * z);
        },
        x);
    CHECK(ladder::same_bits(g, 2.0 * x));
  }
  const ht::MemoryStatistics after = ht::memory_statistics();
  CHECK(after.live_bytes == before.live_bytes);
  CHECK(after.live_blocks == before.live_blocks);
  CHECK(ladder::same_bits(x, x_before));
  CHECK(ladder::same_bits(y, y_before));
  // The pullback is marked consumed; a kept one may be tried again.
  auto pullback = vjp([&](const TensorList& z) { return failing(z); }, TensorList{x, y}).second;
  expect_text(thrown([&] { pullback(Tensor::scalar(1)); }), "on purpose");
  expect_text(thrown([&] { pullback.consume(Tensor::scalar(1)); }), "on purpose");
  expect_text(thrown([&] { pullback(Tensor::scalar(1)); }), "consumed");
}

TEST_CASE("a function that throws while it is recorded leaves nothing behind") {
  const Tensor x = sample({100}, 0.5, 1, 1);
  const auto failing = [](const Tensor& z) -> Tensor {
    const Tensor a = ht::exp(z) * z;
    return ht::matmul(a, Tensor::ones({3, 3}));
  };
  expect_text(thrown([&] { grad(failing, x); }), "[matmul]");
  const ht::MemoryStatistics before = ht::memory_statistics();
  for (int i = 0; i < 10; ++i) {
    expect_text(thrown([&] { grad(failing, x); }), "[matmul]");
    expect_text(thrown([&] { ht::hvp(failing, x, x); }), "[matmul]");
  }
  CHECK(ht::memory_statistics().live_blocks == before.live_blocks);
  CHECK(ht::memory_statistics().live_bytes == before.live_bytes);
  CHECK(ladder::same_bits(grad([](const Tensor& z) { return ht::sum(z * z); }, x), 2.0 * x));
}
