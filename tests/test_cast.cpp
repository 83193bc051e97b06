// ctest labels: kernels
//
// astype: values of every pair of dtypes, and derivatives that are converted back.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "ladder.h"
#include "thrown.h"

namespace ht = hypertape;
using ht::astype;
using ht::Dtype;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ladder::elements;
using ladder::sample;

namespace {

std::vector<bool> booleans(const Tensor& x) {
  bool values[16] = {};
  x.copy_to(std::span<bool>(values, static_cast<std::size_t>(x.size())));
  return std::vector<bool>(values, values + x.size());
}

}  // namespace

TEST_CASE("astype converts the elements") {
  const Tensor x = Tensor::from({0.0, -0.0, 1.5, -2.75, 0.1, 1e300}, {2, 3});
  const Tensor single = astype(x, Dtype::float32);
  CHECK(single.dtype() == Dtype::float32);
  CHECK(single.shape() == Shape{2, 3});
  CHECK(single.to_vector<float>() ==
        std::vector<float>{0.0f, -0.0f, 1.5f, -2.75f, 0.1f, std::numeric_limits<float>::infinity()});
  CHECK(elements(astype(single, Dtype::float64))[4] == static_cast<double>(0.1f));
  CHECK(astype(ht::slice(x, 1, 0, 2), Dtype::float32).to_vector<float>() ==
        std::vector<float>{0.0f, -0.0f, -2.75f, 0.1f});
  // Toward zero; the borders of int64 are exact.
  const Tensor wide = Tensor::from({1.9, -1.9, -0x1p63, 0x1.fffffffffffffp62, -0.0});
  CHECK(astype(wide, Dtype::int64).to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{1, -1, std::numeric_limits<std::int64_t>::min(), 0x7ffffffffffffc00, 0});
  CHECK(astype(ht::flip(Tensor::from({1.0, 2.0, 3.0}), {0}), Dtype::int64).to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{3, 2, 1});
  const Tensor integers = Tensor::from<std::int64_t>({0, -3, 7});
  CHECK(astype(integers, Dtype::float64).to_vector<double>() == std::vector<double>{0, -3, 7});
  CHECK(booleans(astype(integers, Dtype::boolean)) == std::vector<bool>{false, true, true});
  CHECK(booleans(astype(Tensor::from({0.0, -0.0, 0.5, std::nan("")}), Dtype::boolean)) ==
        std::vector<bool>{false, false, true, true});
  const Tensor mask = Tensor::from<bool>({true, false});
  CHECK(astype(mask, Dtype::int64).to_vector<std::int64_t>() == std::vector<std::int64_t>{1, 0});
  CHECK(astype(mask, Dtype::float32).to_vector<float>() == std::vector<float>{1, 0});
  CHECK(astype(x, Dtype::float64).shares_storage_with(x));
  CHECK(astype(Tensor::zeros({0, 2}), Dtype::int64).shape() == Shape{0, 2});
  CHECK(astype(Tensor::scalar(2.5), Dtype::int64).item() == 2);
}

TEST_CASE("numbers that int64 cannot hold are named") {
  for (const double bad : {0x1p63, -0x1.0000000000001p63, 1e30, std::numeric_limits<double>::infinity()})
    expect_text(thrown([&] { astype(Tensor::from({1.0, bad}), Dtype::int64); }), "[astype] the element ");
  expect_text(thrown([&] { astype(Tensor::from({std::nan("")}), Dtype::int64); }), "nan");
  expect_text(thrown([&] { astype(Tensor::from({1e19f}), Dtype::int64); }), "1e+19");
  // The first of them, though a second thread would find the other at once.
  std::vector<double> many(300000, 0.0);
  many[65000] = 2e19;
  many[131072] = many[196608] = 3e19;
  const Tensor x = Tensor::from(many, {300000});
  for (int i = 0; i < 20; ++i) expect_text(thrown([&] { astype(x, Dtype::int64); }), "2e+19");
  expect_text(thrown([&] { astype(Tensor(), Dtype::int64); }), "[astype]");
}

TEST_CASE("a float32 variable in a float64 computation: derivatives of every order, rounded once") {
  const Tensor x = astype(sample({3, 2}, 0.5, 2, 1), Dtype::float32),
               v = astype(sample({3, 2}, -1, 1, 2), Dtype::float32);
  const Tensor wide_x = astype(x, Dtype::float64), wide_v = astype(v, Dtype::float64);
  const auto exact = [](const Tensor& z) { return ht::sum(ht::exp(z) * ht::tanh(z * z)); };
  const auto f = [&](const Tensor& z) { return exact(astype(z, Dtype::float64)); };
  const auto rounded = [](const Tensor& z) { return astype(z, Dtype::float32); };
  CHECK(ladder::same_bits(f(x), exact(wide_x)));
  CHECK(ladder::same_bits(ht::grad(f, x), rounded(ht::grad(exact, wide_x))));
  CHECK(ladder::same_bits(ht::jvp(f, x, v).second, ht::jvp(exact, wide_x, wide_v).second));
  CHECK(ladder::same_bits(ht::linearize(f, x).second(v), ht::linearize(exact, wide_x).second(wide_v)));
  CHECK(ladder::same_bits(ht::hvp(f, x, v), rounded(ht::hvp(exact, wide_x, wide_v))));
  // Reverse over reverse, and one order more over that.
  const auto along = [](const auto& g, const Tensor& direction) {
    return [&g, direction](const Tensor& z) {
      return ht::sum(astype(ht::grad(g, z), Dtype::float64) * astype(direction, Dtype::float64));
    };
  };
  const auto second = along(f, v);
  const auto second_exact = along(exact, wide_v);
  CHECK(ladder::difference({ht::grad(second, x)}, {rounded(ht::grad(second_exact, wide_x))}) <= 1e-5);
  const auto third = along(second, v);
  const auto third_exact = along(second_exact, wide_v);
  const Tensor expected = ht::grad(third_exact, wide_x);
  CHECK(ladder::difference({astype(ht::grad(third, x), Dtype::float64)}, {expected}) <=
        1e-5 * ladder::norm({expected}));
}

TEST_CASE("a float64 variable in a float32 computation") {
  const Tensor x = sample({4}, 0.5, 2, 1), v = sample({4}, -1, 1, 2);
  const auto f = [](const Tensor& z) { return ht::sum(ht::exp(astype(z, Dtype::float32))); };
  const Tensor g = ht::grad(f, x);
  CHECK(g.dtype() == Dtype::float64);
  CHECK(ladder::same_bits(g, astype(ht::exp(astype(x, Dtype::float32)), Dtype::float64)));
  CHECK(ladder::same_bits(
      ht::hvp(f, x, v),
      astype(ht::exp(astype(x, Dtype::float32)) * astype(v, Dtype::float32), Dtype::float64)));
  // There and back is the identity for numbers that float32 holds.
  const Tensor exact = astype(astype(x, Dtype::float32), Dtype::float64);
  ladder::expect_consistent("there and back with a linear function of such numbers",
                            [](const TensorList& z) {
                              return TensorList{astype(astype(z[0], Dtype::float64), Dtype::float64) * 2.0};
                            },
                            {exact});
}

TEST_CASE("integers and booleans cut the derivative") {
  const Tensor x = sample({4}, 0.5, 2, 1);
  CHECK_FALSE(
      ht::grad([](const Tensor& z) { return ht::sum(astype(astype(z, Dtype::int64), Dtype::float64)); }, x)
          .defined());
  CHECK_FALSE(ht::jvp([](const Tensor& z) { return astype(astype(z, Dtype::boolean), Dtype::float64); }, x, x)
                  .second.defined());
}
