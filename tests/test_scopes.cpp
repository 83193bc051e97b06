// Scopes that meet: what an outer derivative may and may not see of an inner one.
#include <doctest/doctest.h>

#include <functional>
#include <iterator>

#include <hypertape/hypertape.h>
#include "ladder.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using ht::Tensor;
using ht::TensorList;
using ladder::same_bits;

Tensor positive(std::int64_t size, std::uint64_t seed) {
  return ht::random({size}, ht::Distribution::uniform, {.seed = seed}) + 0.5;
}

// Every kind of tangent: dual kernels with one and two operands, fused pulls, broadcasts.
Tensor mixed(const Tensor& b) {
  const Tensor row = ht::reshape(b, {1, -1}), both = ht::transpose(row) * row / (row + 1.0);
  return ht::sum((b * b) / (b + 1.0) + ht::weighted_square(b, b) + ht::tanh(b) * ht::exp(b) +
                 ht::multiply_add(b, b, b) + ht::sum(both, {0}));
}

}  // namespace

TEST_CASE("an outer grad does not walk what only an inner grad recorded and has used up") {
  const Tensor w = positive(4, 1), h = positive(4, 2);
  const auto inner = [&](const Tensor& outer) {
    return ht::sum(ht::grad([&](const Tensor& x) { return ht::sum(ht::exp(ht::tanh(x) * outer)); }, w));
  };
  const Tensor t = ht::tanh(w), slope = 1.0 - t * t;
  const Tensor expected = slope * ht::exp(t * h) * (1.0 + t * h);
  CHECK(ladder::difference({ht::grad(inner, h)}, {expected}) <= 1e-14 * ladder::norm({expected}));

  const auto value = [&](const Tensor& outer) {
    return ht::value_and_grad([&](const Tensor& x) { return ht::sum(ht::tanh(x) * outer); }, w).first;
  };
  CHECK(same_bits(ht::grad(value, h), t));
}

TEST_CASE("recorded tangents of saved outputs hold no circle of memory") {
  const Tensor w = positive(4, 1), v = positive(4, 2);
  const auto live = [] { return ht::memory_statistics().live_blocks; };
  const std::function<void()> programs[] = {
      [&] {
        (void)ht::vjp(
            [&](const Tensor& a) {
              return ht::jvp([](const Tensor& x) { return ht::tanh(x); }, a, v).second;
            },
            w);
      },
      [&] {
        (void)ht::vjp(
            [&](const Tensor& a) {
              return ht::hvp([](const Tensor& x) { return ht::sum(ht::tanh(x)); }, a, v);
            },
            w);
      },
      [&] {
        (void)ht::grad(
            [&](const Tensor& a) {
              return ht::sum(ht::jvp([](const Tensor& x) { return 1.0 / x; }, a, v).first);
            },
            w);
      },
      [&] {
        try {
          (void)ht::grad(
              [&](const Tensor& a) -> Tensor {
                (void)ht::jvp([](const Tensor& x) { return ht::exp(x); }, a, v);
                throw 1;
              },
              w);
        } catch (int) {
        }
      }};
  for (const auto& program : programs) {
    program();
    const std::int64_t before = live();
    for (int i = 0; i < 5; ++i) program();
    CHECK(live() == before);
  }
}

TEST_CASE("a tangent has the same bits plain, recorded and replayed") {
  const Tensor b = positive(257, 3), v = positive(257, 4);
  const Tensor plain = ht::jvp(mixed, b, v).second;
  CHECK(same_bits(plain, ht::vjp([&](const Tensor& x) { return ht::jvp(mixed, x, v).second; }, b).first));
  CHECK(same_bits(plain, ht::linearize(mixed, b).second(v)));
  const Tensor product = ht::hvp(mixed, b, v);
  CHECK(same_bits(product, ht::vjp([&](const Tensor& x) { return ht::hvp(mixed, x, v); }, b).first));
  CHECK(same_bits(product, ht::linearize([](const Tensor& x) { return ht::grad(mixed, x); }, b).second(v)));
}

TEST_CASE("a once-differentiable operation refuses a variable that is differentiated behind its back") {
  const Tensor w = positive(4, 1);
  const auto uses = [&](const Tensor& z) {
    const auto forward = [&](const TensorList& plain) {
      return ht::CustomVjp{{plain[0] * z}, [](const TensorList& bars) { return bars; }};
    };
    return ht::sum(ht::custom_vjp("method", {w}, forward).front());
  };
  expect_text(thrown([&] { ht::grad(uses, w); }),
              "[method] its functions use a variable that is being differentiated");
  CHECK(thrown([&] { uses(w); }) == "nothing thrown");
}

TEST_CASE("a once-differentiable operation notices that an input was overwritten") {
  Tensor w = positive(4, 1);
  const auto square = [](const Tensor& x) {
    const auto forward = [](const TensorList& plain) {
      return ht::CustomVjp{{plain[0] * plain[0]},
                           [plain](const TensorList& bars) { return TensorList{2.0 * bars[0] * plain[0]}; }};
    };
    return ht::sum(ht::custom_vjp("square", {x}, forward).front());
  };
  auto [value, pullback] = ht::vjp(square, w);
  CHECK(same_bits(pullback(Tensor::scalar(1.0)), 2.0 * w));
  w.assign(Tensor::zeros({4}));
  expect_text(thrown([&, &pull = pullback] { pull(Tensor::scalar(1.0)); }),
              "[square] its input 0 of shape (4) was overwritten");
}

TEST_CASE("a tensor of an ended scope can still serve a newer one") {
  Tensor leaked;
  auto [value, pullback] = ht::vjp(
      [&](const Tensor& x) {
        leaked = ht::exp(x);
        return ht::sum(leaked);
      },
      positive(3, 5));
  const Tensor z = positive(3, 6);
  const Tensor g =
      ht::grad([&, &pull = pullback](const Tensor& u) { return ht::sum(pull(ht::sum(u * leaked))); }, z);
  REQUIRE(g.defined());
  CHECK(ladder::difference({g}, {ht::sum(ht::stop_gradient(leaked)) * ht::stop_gradient(leaked)}) <= 1e-13);
}

TEST_CASE("gradients that arrive behind inner scopes are added up as if these were not there") {
  // (1 + 1e16) - 1e16 = 0, while 1 + (1e16 - 1e16) = 1: the order shows.
  using Function = std::function<Tensor(const Tensor&)>;
  const Function two = [](const Tensor& z) {
    const Tensor first = z * -1e16;
    return first + z * 1e16;
  };
  const Function checkpointed = [two](const Tensor& z) { return ht::checkpoint(two, z); };
  const auto within = [](const Function& f) -> Function {
    return [f](const Tensor& z) { return ht::vjp(f, z).first; };
  };
  const Function functions[] = {two,          within(two),          within(within(two)),
                                checkpointed, within(checkpointed), within(within(checkpointed))};
  for (std::size_t i = 0; i < std::size(functions); ++i) {
    CAPTURE(i);
    const Tensor g = ht::grad(
        [&](const Tensor& x) {
          const Tensor first = functions[i](x);
          return ht::sum(first + x * 1.0);
        },
        positive(3, 1));
    CHECK(same_bits(g, Tensor::zeros({3})));
  }
}
