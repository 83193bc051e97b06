// ctest labels: threads
//
// Reductions, products and shape operations: values against naive loops in long double, then the ladder.
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <sstream>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/random.h>
#include "ladder.h"

namespace ht = hypertape;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ladder::elements;
using ladder::expect_consistent;
using ladder::expect_derivatives;
using ladder::sample;

namespace {

using Axes = std::vector<std::int64_t>;

Tensor uniform(const Shape& shape, std::uint64_t seed) { return sample(shape, -2, 2, seed); }

std::string label(const char* name, const Shape& shape, const Axes& axes = {}) {
  std::ostringstream text;
  text << name << ' ' << shape << " over";
  for (const std::int64_t axis : axes) text << ' ' << axis;
  return text.str();
}

// Every subset of the axes of a shape.
std::vector<Axes> subsets(int rank) {
  std::vector<Axes> all;
  for (unsigned bits = 0; bits < (1u << rank); ++bits) {
    Axes axes;
    for (int axis = 0; axis < rank; ++axis)
      if (bits >> axis & 1u) axes.push_back(axis);
    all.push_back(axes);
  }
  return all;
}

// Row-major position of `index` within `shape`, extents of 1 standing still.
std::size_t position(const std::vector<std::int64_t>& index, const Shape& shape) {
  std::int64_t at = 0;
  for (int axis = 0; axis < shape.rank(); ++axis)
    at = at * shape[axis] + (shape[axis] == 1 ? 0 : index[static_cast<std::size_t>(axis)]);
  return static_cast<std::size_t>(at);
}

// Calls body(index) for each index of the shape, row-major.
template <class Body>
void for_each_index(const Shape& shape, Body body) {
  std::vector<std::int64_t> index(static_cast<std::size_t>(shape.rank()));
  for (std::int64_t n = 0; n < shape.size(); ++n) {
    body(index);
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      auto& i = index[static_cast<std::size_t>(axis)];
      if (++i < shape[axis]) break;
      i = 0;
    }
  }
}

// |got - expected| <= 1e-14 of the sum of |terms|, plus `roundings` for sums without compensation.
void expect_sums(const std::string& name, const Tensor& got, const std::vector<long double>& expected,
                 const std::vector<long double>& terms, double tolerance = 1e-14) {
  const std::vector<double> values = elements(got);
  REQUIRE(values.size() == expected.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bool near = std::abs(values[i] - expected[i]) <= static_cast<long double>(tolerance) * terms[i];
    CHECK_MESSAGE(
        near, name << " element " << i << ": " << values[i] << " for " << static_cast<double>(expected[i]));
  }
}

void expect_summed(const std::string& name, const Tensor& x, const Axes& axes, const Tensor& got) {
  Shape kept = x.shape();
  for (const std::int64_t axis : axes) kept = kept.with(static_cast<int>(axis), 1);
  std::vector<long double> sums(static_cast<std::size_t>(kept.size())), terms(sums.size());
  const std::vector<double> values = elements(x);
  std::size_t n = 0;
  for_each_index(x.shape(), [&](const std::vector<std::int64_t>& index) {
    sums[position(index, kept)] += values[n];
    terms[position(index, kept)] += std::abs(values[n++]);
  });
  expect_sums(name, got, sums, terms);
}

void expect_product(const std::string& name, const Tensor& a, const Tensor& b, bool ta, bool tb) {
  const std::int64_t m = a.extent(ta ? 1 : 0), k = a.extent(ta ? 0 : 1), n = b.extent(tb ? 0 : 1);
  const std::vector<double> x = elements(a), y = elements(b);
  const auto at = [](const std::vector<double>& v, bool turned, std::int64_t i, std::int64_t j,
                     std::int64_t rows, std::int64_t columns) {
    return static_cast<long double>(v[static_cast<std::size_t>(turned ? j * rows + i : i * columns + j)]);
  };
  std::vector<long double> sums, terms;
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      long double total = 0, size = 0;
      for (std::int64_t l = 0; l < k; ++l) {
        const long double term = at(x, ta, i, l, m, k) * at(y, tb, l, j, k, n);
        total += term;
        size += std::abs(term);
      }
      sums.push_back(total);
      terms.push_back(size);
    }
  const Tensor c = ht::matmul(a, b, ta, tb);
  CHECK(c.shape() == Shape{m, n});
  expect_sums(name, c, sums, terms);
}

}  // namespace

TEST_CASE("sum and mean over every subset of axes, kept or not") {
  for (const Shape& shape :
       {Shape{}, Shape{5}, Shape{3, 4}, Shape{2, 3, 4}, Shape{1, 3, 1}, Shape{2, 2, 2, 3}}) {
    const Tensor x = uniform(shape, 1);
    for (const Axes& axes : subsets(shape.rank())) {
      for (const bool keep : {false, true}) {
        const std::string name = label(keep ? "sum (kept)" : "sum", shape, axes);
        const Tensor got = ht::sum(x, axes, keep);
        CHECK(got.rank() == (keep ? shape.rank() : shape.rank() - static_cast<int>(axes.size())));
        expect_summed(name, x, axes, got);
        expect_derivatives(name, [&](const TensorList& at) { return TensorList{ht::sum(at[0], axes, keep)}; },
                           {x});
        expect_derivatives("mean of " + name,
                           [&](const TensorList& at) { return TensorList{ht::mean(at[0], axes, keep)}; },
                           {x});
        const double count = static_cast<double>(x.size()) / static_cast<double>(got.size());
        CHECK(ladder::difference({ht::mean(x, axes, keep) * count}, {got}) <= 1e-14);
      }
    }
    expect_summed(label("sum of all", shape), x, subsets(shape.rank()).back(), ht::sum(x));
    CHECK(ht::sum(x).rank() == 0);
    expect_derivatives(label("mean of all", shape),
                       [](const TensorList& at) { return TensorList{ht::mean(at[0])}; }, {x});
  }
  CHECK(elements(ht::sum(uniform({2, 3}, 1), {-1})) == elements(ht::sum(uniform({2, 3}, 1), {1})));
}

TEST_CASE("sums of views add the view's elements") {
  const Tensor tall = uniform({5, 4, 3}, 2);
  for (const Axes& axes : subsets(3)) {
    const auto turned = [&](const TensorList& at) {
      return TensorList{ht::sum(ht::transpose(at[0], {2, 0, 1}), axes)};
    };
    expect_summed(label("sum of a transpose", {3, 5, 4}, axes), ht::transpose(tall, {2, 0, 1}), axes,
                  turned({tall})[0]);
    expect_derivatives(label("sum of a transpose", {3, 5, 4}, axes), turned, {tall});
    const auto cut = [&](const TensorList& at) {
      return TensorList{ht::sum(ht::slice(at[0], 1, 1, 3), axes)};
    };
    expect_summed(label("sum of a slice", {5, 2, 3}, axes), ht::slice(tall, 1, 1, 3), axes, cut({tall})[0]);
    expect_derivatives(label("sum of a slice", {5, 2, 3}, axes), cut, {tall});
    const Tensor row = uniform({4, 1}, 3);
    const auto wide = [&](const TensorList& at) {
      return TensorList{ht::sum(ht::expand(at[0], {2, 4, 3}), axes)};
    };
    expect_summed(label("sum of an expanded row", {2, 4, 3}, axes), ht::expand(row, {2, 4, 3}), axes,
                  wide({row})[0]);
    expect_derivatives(label("sum of an expanded row", {2, 4, 3}, axes), wide, {row});
  }
}

TEST_CASE("sums of nothing are zeros, of one element itself") {
  CHECK(ht::sum(Tensor::zeros({0})).item() == 0.0);
  CHECK(ht::sum(Tensor::zeros({3, 0})).item() == 0.0);
  CHECK(elements(ht::sum(Tensor::zeros({3, 0}), {1})) == std::vector<double>{0, 0, 0});
  CHECK(ht::sum(Tensor::zeros({3, 0}), {0}).shape() == Shape{0});
  expect_derivatives("sum of nothing", [](const TensorList& x) { return TensorList{ht::sum(x[0], {1})}; },
                     {Tensor::zeros({3, 0})});
  CHECK(ht::sum(Tensor::scalar(4.5)).item() == 4.5);
}

TEST_CASE("large sums run in fixed chunks: near the truth, same bits on any number of threads") {
  for (const Shape& shape : {Shape{300'007}, Shape{2001, 101}, Shape{3, 70'001}, Shape{70'001, 3}}) {
    const Tensor x = uniform(shape, 4);
    for (const Axes& axes : subsets(shape.rank())) {
      if (axes.empty()) continue;
      const std::string name = label("sum", shape, axes);
      expect_summed(name, x, axes, ht::sum(x, axes));
      ladder::Options options;
      options.max_order = 1;
      expect_consistent(
          name, [&](const TensorList& at) { return TensorList{ht::sum(at[0], axes)}; }, {x}, options);
    }
  }
}

TEST_CASE("sum_to is the adjoint of expand") {
  const std::pair<Shape, Shape> shapes[] = {{{4}, {3, 4}},    {{3, 1}, {3, 4}}, {{}, {3, 4}},
                                            {{1}, {5}},       {{1, 1}, {2, 3}}, {{2, 1, 4}, {2, 3, 4}},
                                            {{3}, {2, 2, 3}}, {{2}, {2}},       {{1}, {0}},
                                            {{}, {0, 3}},     {{0, 1}, {0, 4}}};
  for (const auto& [small, large] : shapes) {
    const Tensor x = uniform(small, 5), y = uniform(large, 6);
    const double there = ladder::pairing({ht::expand(x, large)}, {y}),
                 back = ladder::pairing({x}, {ht::sum_to(y, small)});
    CHECK(std::abs(there - back) <= 1e-13);
    CHECK(ht::sum_to(y, small).shape() == small);
    expect_derivatives(
        label("expand", small),
        [&large = large](const TensorList& at) { return TensorList{ht::expand(at[0], large)}; }, {x});
    expect_derivatives(
        label("sum_to", small),
        [&small = small](const TensorList& at) { return TensorList{ht::sum_to(at[0], small)}; }, {y});
  }
}

TEST_CASE("dot: value and ladder, views, aliases and nothing") {
  const auto run = [](const TensorList& at) { return TensorList{ht::dot(at[0], at[1])}; };
  for (const Shape& shape : {Shape{}, Shape{0}, Shape{1}, Shape{17}, Shape{3, 4}, Shape{2, 3, 5}}) {
    const Tensor a = uniform(shape, 7), b = uniform(shape, 8);
    long double total = 0, terms = 0;
    for (std::size_t i = 0; i < elements(a).size(); ++i) {
      total += static_cast<long double>(elements(a)[i]) * elements(b)[i];
      terms += std::abs(static_cast<long double>(elements(a)[i]) * elements(b)[i]);
    }
    expect_sums(label("dot", shape), ht::dot(a, b), {total}, {terms});
    expect_derivatives(label("dot", shape), run, {a, b});
    expect_derivatives(label("dot(x, x)", shape),
                       [](const TensorList& at) { return TensorList{ht::dot(at[0], at[0])}; }, {a});
  }
  expect_derivatives("dot of transposed leaves", run,
                     {ht::transpose(uniform({4, 3}, 7)), ht::transpose(uniform({4, 3}, 8))});
  expect_derivatives("dot with a transposed operand",
                     [](const TensorList& at) { return TensorList{ht::dot(ht::transpose(at[0]), at[1])}; },
                     {uniform({4, 3}, 7), uniform({3, 4}, 8)});
  expect_derivatives("dot with an expanded operand",
                     [](const TensorList& at) {
                       return TensorList{ht::dot(ht::expand(at[0], {3, 4}), at[1])};
                     },
                     {uniform({4}, 7), uniform({3, 4}, 8)});
  ladder::Options options;
  options.max_order = 1;
  expect_consistent("dot of 200,003", run, {uniform({200'003}, 7), uniform({200'003}, 8)}, options);
}

TEST_CASE("matmul: all transposes, ladder and values") {
  for (const bool ta : {false, true})
    for (const bool tb : {false, true}) {
      const auto run = [&](const TensorList& at) { return TensorList{ht::matmul(at[0], at[1], ta, tb)}; };
      const std::array<std::int64_t, 3> sizes[] = {{1, 1, 1}, {3, 4, 5}, {2, 7, 1}, {1, 5, 3},
                                                   {4, 1, 2}, {0, 3, 2}, {2, 0, 3}, {2, 3, 0}};
      for (const auto& [m, k, n] : sizes) {
        const Tensor a = uniform(ta ? Shape{k, m} : Shape{m, k}, 9),
                     b = uniform(tb ? Shape{n, k} : Shape{k, n}, 10);
        std::ostringstream name;
        name << "matmul " << a.shape() << (ta ? "' " : " ") << b.shape() << (tb ? "'" : "");
        expect_product(name.str(), a, b, ta, tb);
        expect_derivatives(name.str(), run, {a, b});
      }
      // Operands that are views of every layout: transposed, cut from wider rows, broadcast.
      const Tensor a = uniform(ta ? Shape{4, 3} : Shape{3, 4}, 9),
                   b = uniform(tb ? Shape{5, 4} : Shape{4, 5}, 10);
      const Tensor turned = ht::transpose(ladder::converted(ht::transpose(a), ht::Dtype::float64));
      REQUIRE_FALSE(turned.is_contiguous());
      expect_product("matmul of a transposed view", turned, b, ta, tb);
      expect_derivatives("matmul of a transposed view", run, {turned, b});
      const Tensor turned_b = ht::transpose(ladder::converted(ht::transpose(b), ht::Dtype::float64));
      expect_product("matmul by a transposed view", a, turned_b, ta, tb);
      expect_derivatives("matmul by a transposed view", run, {a, turned_b});
      const Tensor cut = ht::slice(uniform({a.extent(0), 9}, 11), 1, 3, 3 + a.extent(1));
      expect_product("matmul of a slice", cut, b, ta, tb);
      expect_derivatives("matmul of a slice", run, {cut, b});
      const Tensor flat = ht::expand(uniform({a.extent(1)}, 12), a.shape());
      expect_product("matmul of a broadcast view", flat, b, ta, tb);
      expect_derivatives("matmul of a broadcast view", run, {flat, b});
    }
}

TEST_CASE("matmul with vectors, with itself, and chained") {
  const Tensor a = uniform({3, 4}, 13), v = uniform({4}, 14), u = uniform({3}, 15), w = uniform({3}, 16);
  const auto run = [](const TensorList& at) { return TensorList{ht::matmul(at[0], at[1])}; };
  CHECK(ht::matmul(a, v).shape() == Shape{3});
  CHECK(ht::matmul(u, a).shape() == Shape{4});
  CHECK(ht::matmul(u, w).shape() == Shape{});
  expect_derivatives("matrix times vector", run, {a, v});
  expect_derivatives("vector times matrix", run, {u, a});
  expect_derivatives("vector times vector", run, {u, w});
  expect_derivatives("transposed matrix times vector",
                     [](const TensorList& at) { return TensorList{ht::matmul(at[0], at[1], true)}; }, {a, u});
  expect_derivatives("vector times transposed matrix",
                     [](const TensorList& at) { return TensorList{ht::matmul(at[0], at[1], false, true)}; },
                     {v, a});
  const Tensor square = uniform({4, 4}, 17);
  expect_derivatives("x x", [](const TensorList& at) { return TensorList{ht::matmul(at[0], at[0])}; },
                     {square});
  expect_derivatives(
      "x x'", [](const TensorList& at) { return TensorList{ht::matmul(at[0], at[0], false, true)}; }, {a});
  expect_derivatives("x' x of a view's transpose",
                     [](const TensorList& at) { return TensorList{ht::matmul(ht::transpose(at[0]), at[0])}; },
                     {a});
  expect_derivatives(
      "a b a", [](const TensorList& at) { return TensorList{ht::matmul(ht::matmul(at[0], at[1]), at[0])}; },
      {a, uniform({4, 3}, 18)});
}

TEST_CASE("matmul at sizes of blocked and threaded kernels") {
  const std::array<std::int64_t, 3> sizes[] = {
      {65, 64, 33}, {200, 130, 50}, {128, 257, 96}, {1, 300, 200}, {300, 1, 200}};
  for (const auto& [m, k, n] : sizes)
    for (const bool ta : {false, true})
      for (const bool tb : {false, true}) {
        const Tensor a = uniform(ta ? Shape{k, m} : Shape{m, k}, 19),
                     b = uniform(tb ? Shape{n, k} : Shape{k, n}, 20);
        std::ostringstream name;
        name << "matmul " << a.shape() << (ta ? "' " : " ") << b.shape() << (tb ? "'" : "");
        expect_product(name.str(), a, b, ta, tb);
        ladder::Options options;
        options.max_order = 1;
        expect_consistent(
            name.str(), [&](const TensorList& at) { return TensorList{ht::matmul(at[0], at[1], ta, tb)}; },
            {a, b}, options);
      }
}

TEST_CASE("a row of a product has the same bits whatever stands in the other rows") {
  const Tensor a = uniform({64, 40}, 21), b = uniform({40, 30}, 22);
  std::vector<double> poisoned = elements(a);
  std::fill(poisoned.begin() + 40, poisoned.end(), std::nan(""));
  const Tensor c = ht::matmul(a, b), d = ht::matmul(Tensor::from(poisoned, {64, 40}), b);
  CHECK(ladder::same_bits(ht::slice(d, 0, 0, 1), ht::slice(c, 0, 0, 1)));
}
