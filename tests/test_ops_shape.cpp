// Views: reshape, transpose, slice and pad, values by index arithmetic and the ladder; and polynomials, whose
// derivatives end.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "ladder.h"

namespace ht = hypertape;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ladder::elements;
using ladder::expect_derivatives;
using ladder::sample;

namespace {

using Axes = std::vector<std::int64_t>;

// 0, 1, 2, ... row-major: elements name their own index.
Tensor counting(const Shape& shape) {
  std::vector<double> values(static_cast<std::size_t>(shape.size()));
  std::iota(values.begin(), values.end(), 0.0);
  return Tensor::from(values, shape);
}

Tensor uniform(const Shape& shape, std::uint64_t seed = 1) { return sample(shape, -2, 2, seed); }

}  // namespace

TEST_CASE("reshape keeps row-major order, of views too") {
  const Tensor x = counting({2, 3, 4});
  CHECK(elements(ht::reshape(x, {4, 6})) == elements(x));
  CHECK(ht::reshape(x, {4, 6}).shares_storage_with(x));
  CHECK(ht::reshape(x, {-1}).shape() == Shape{24});
  CHECK(ht::reshape(x, {2, -1}).shape() == Shape{2, 12});
  CHECK(ht::reshape(Tensor::zeros({0, 3}), {3, 0}).shape() == Shape{3, 0});
  CHECK(ht::reshape(Tensor::scalar(2.0), {1, 1}).shape() == Shape{1, 1});
  CHECK(elements(ht::reshape(ht::transpose(counting({2, 3})), {6})) == std::vector<double>{0, 3, 1, 4, 2, 5});
  const std::pair<Shape, Shape> shapes[] = {{{6}, {2, 3}}, {{2, 3}, {6}},    {{2, 3}, {3, 2}}, {{}, {1, 1}},
                                            {{1}, {}},     {{0, 3}, {3, 0}}, {{2, 3}, {2, 3}}};
  for (const auto& [from, to] : shapes)
    expect_derivatives(
        "reshape", [&, target = to](const TensorList& at) { return TensorList{ht::reshape(at[0], target)}; },
        {uniform(from)});
  expect_derivatives("reshape of a transpose",
                     [](const TensorList& at) { return TensorList{ht::reshape(ht::transpose(at[0]), {6})}; },
                     {uniform({2, 3})});
  expect_derivatives("reshape of an expanded row",
                     [](const TensorList& at) {
                       return TensorList{ht::reshape(ht::expand(at[0], {2, 3}), {3, 2})};
                     },
                     {uniform({3})});
  expect_derivatives("reshape of a transposed leaf",
                     [](const TensorList& at) { return TensorList{ht::reshape(at[0], {6})}; },
                     {ht::transpose(uniform({2, 3}))});
}

TEST_CASE("transpose moves axis axes[k] to place k, without copying") {
  const Tensor x = counting({2, 3, 4});
  Axes axes{0, 1, 2};
  do {
    const Tensor y = ht::transpose(x, axes);
    CHECK(y.shares_storage_with(x));
    const std::vector<double> got = elements(y);
    std::size_t n = 0;
    std::int64_t index[3], strides[] = {12, 4, 1};
    for (index[0] = 0; index[0] < y.extent(0); ++index[0])
      for (index[1] = 0; index[1] < y.extent(1); ++index[1])
        for (index[2] = 0; index[2] < y.extent(2); ++index[2]) {
          std::int64_t expected = 0;
          for (std::size_t k = 0; k < 3; ++k) expected += index[k] * strides[axes[k]];
          CHECK(got[n++] == static_cast<double>(expected));
        }
    expect_derivatives("transpose",
                       [&](const TensorList& at) { return TensorList{ht::transpose(at[0], axes)}; },
                       {uniform({2, 3, 4})});
  } while (std::next_permutation(axes.begin(), axes.end()));
  CHECK(ht::transpose(x).shape() == Shape{4, 3, 2});
  CHECK(ht::transpose(x, {-1, 0, 1}).shape() == Shape{4, 2, 3});
  expect_derivatives("transpose of all axes",
                     [](const TensorList& at) { return TensorList{ht::transpose(at[0])}; },
                     {uniform({2, 3, 4})});
  for (const Shape& shape : {Shape{}, Shape{4}, Shape{0, 3}, Shape{1, 2, 1, 3}})
    expect_derivatives("transpose", [](const TensorList& at) { return TensorList{ht::transpose(at[0])}; },
                       {uniform(shape)});
}

TEST_CASE("slice cuts and pad puts back: adjoints of each other") {
  const Tensor x = counting({2, 5, 3});
  CHECK(elements(ht::slice(ht::slice(x, 1, 1, 4), 1, 1, 2)) == std::vector<double>{6, 7, 8, 21, 22, 23});
  CHECK(ht::slice(x, 1, 1, 4).shares_storage_with(x));
  CHECK(elements(ht::pad(Tensor::from({1.0, 2.0}), 0, 1, 5)) == std::vector<double>{0, 1, 2, 0, 0});
  CHECK(elements(ht::pad(counting({2, 2}), 1, 1, 3)) == std::vector<double>{0, 0, 1, 0, 2, 3});
  for (const std::int64_t axis : {0, 1, 2, -1}) {
    const std::int64_t extent = x.extent(axis);
    for (std::int64_t start = 0; start <= extent; ++start)
      for (std::int64_t stop = start; stop <= extent; ++stop) {
        const Tensor y = uniform(ht::slice(x, axis, start, stop).shape(), 2);
        CHECK(std::abs(ladder::pairing({ht::slice(x, axis, start, stop)}, {y}) -
                       ladder::pairing({x}, {ht::pad(y, axis, start, extent)})) <= 1e-12);
        if (axis < 0) continue;
        expect_derivatives(
            "slice", [&](const TensorList& at) { return TensorList{ht::slice(at[0], axis, start, stop)}; },
            {uniform({2, 5, 3})});
        expect_derivatives(
            "pad", [&](const TensorList& at) { return TensorList{ht::pad(at[0], axis, start, extent)}; },
            {y});
      }
  }
  expect_derivatives("pad of a transpose",
                     [](const TensorList& at) { return TensorList{ht::pad(ht::transpose(at[0]), 0, 1, 6)}; },
                     {uniform({2, 3})});
  expect_derivatives(
      "overlapping slices",
      [](const TensorList& at) { return TensorList{ht::slice(at[0], 0, 0, 3) * ht::slice(at[0], 0, 1, 4)}; },
      {uniform({4})});
}

TEST_CASE("views of views with extreme strides") {
  const Tensor base = uniform({7, 64}, 3);
  // One column: neighbours are 64 elements apart; its transpose has a leading stride of 1.
  expect_derivatives("a column",
                     [](const TensorList& at) { return TensorList{ht::exp(ht::slice(at[0], 1, 40, 41))}; },
                     {base});
  expect_derivatives(
      "a column, transposed and expanded",
      [](const TensorList& at) {
        return TensorList{ht::square(ht::expand(ht::transpose(ht::slice(at[0], 1, 40, 41)), {5, 7}))};
      },
      {base});
  const Tensor column = ht::slice(base, 1, 63, 64);
  expect_derivatives("a leaf that is a column",
                     [](const TensorList& at) { return TensorList{ht::tanh(at[0])}; }, {column});
  expect_derivatives("a leaf with two broadcast axes",
                     [](const TensorList& at) { return TensorList{ht::sum(ht::square(at[0]), {0})}; },
                     {ht::expand(Tensor::scalar(0.7), {3, 4})});
}

TEST_CASE("a polynomial of degree d has no derivative d + 1, or exactly zero") {
  const auto zero = [](const Tensor& x) {
    if (!x.defined()) return true;
    for (const double value : elements(x))
      if (value != 0.0) return false;
    return true;
  };
  const Tensor x = uniform({3, 3}, 4), v = uniform({3, 3}, 5), w = uniform({3, 3}, 6), z = uniform({3, 3}, 7);
  struct Polynomial {
    const char* name;
    int degree;
    std::function<Tensor(const Tensor&)> f;
  };
  const Polynomial polynomials[] = {
      {"sum", 1, [](const Tensor& t) { return ht::sum(t); }},
      {"mean", 1, [](const Tensor& t) { return ht::mean(t); }},
      {"negate", 1, [](const Tensor& t) { return ht::sum(-t); }},
      {"scalars", 1, [](const Tensor& t) { return ht::sum((t * 3.0 - 1.5) / 0.7 + 2.0); }},
      {"views", 1,
       [](const Tensor& t) { return ht::sum(ht::pad(ht::slice(ht::transpose(t), 0, 1, 3), 1, 1, 5)); }},
      {"matmul with a constant", 1, [&](const Tensor& t) { return ht::sum(ht::matmul(t, w)); }},
      {"square", 2, [](const Tensor& t) { return ht::sum(ht::square(t)); }},
      {"t t", 2, [](const Tensor& t) { return ht::sum(t * t); }},
      {"dot", 2, [](const Tensor& t) { return ht::dot(t, t); }},
      {"matmul", 2, [](const Tensor& t) { return ht::sum(ht::matmul(t, t)); }},
      {"t t t", 3, [](const Tensor& t) { return ht::sum(t * t * t); }},
      {"square times t", 3, [](const Tensor& t) { return ht::sum(ht::square(t) * t); }},
      {"matmul of three", 3, [](const Tensor& t) { return ht::sum(ht::matmul(ht::matmul(t, t), t)); }}};
  for (const Polynomial& p : polynomials) {
    INFO(p.name);
    // Forward over reverse, and reverse over reverse, at every order up to 4.
    const auto g = [&](const Tensor& t) { return ht::grad(p.f, t); };
    const auto forward = [](const auto& f, const Tensor& along) {
      return [&f, along](const Tensor& t) {
        const Tensor d = ht::jvp(f, t, along).second;
        return d.defined() ? d : Tensor::zeros(t.shape());
      };
    };
    const auto reverse = [](const auto& f, const Tensor& along) {
      return [&f, along](const Tensor& t) {
        const Tensor d = ht::grad([&](const Tensor& s) { return ht::dot(f(s), along); }, t);
        return d.defined() ? d : Tensor::zeros(t.shape());
      };
    };
    const auto f2 = forward(g, v);
    const auto r2 = reverse(g, v);
    const auto f3 = forward(f2, w);
    const auto r3 = reverse(r2, w);
    const auto f4 = forward(f3, z);
    const auto r4 = reverse(r3, z);
    CHECK_FALSE(zero(g(x)));
    CHECK(zero(f2(x)) == (p.degree < 2));
    CHECK(zero(r2(x)) == (p.degree < 2));
    CHECK(zero(f3(x)) == (p.degree < 3));
    CHECK(zero(r3(x)) == (p.degree < 3));
    CHECK(zero(f4(x)));
    CHECK(zero(r4(x)));
    if (p.degree == 1) CHECK_FALSE(ht::hvp(p.f, x, v).defined());
  }
}
