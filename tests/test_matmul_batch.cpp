// ctest labels: threads kernels levels
//
// Products over batches: every slice has the bits of the product of two matrices, whatever broadcasts,
// transposes, strides and threads; values against long double; the ladder.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <sstream>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "core/cpu/products/product.h"
#include "ladder.h"
#include "thrown.h"

namespace ht = hypertape;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ladder::elements;
using ladder::expect_consistent;
using ladder::expect_derivatives;
using ladder::sample;

namespace {

Tensor uniform(const Shape& shape, std::uint64_t seed = 1) { return sample(shape, -2, 2, seed); }

// The matrix of x that slice `index` of a batch of `batch` uses, by numpy's rule.
Tensor matrix_at(const Tensor& x, const Shape& batch, std::vector<std::int64_t> index) {
  const std::int64_t missing = batch.rank() - (x.rank() - 2);
  Tensor matrix = x;
  for (std::int64_t axis = missing; axis < batch.rank(); ++axis) {
    const std::int64_t i = matrix.extent(0) == 1 ? 0 : index[static_cast<std::size_t>(axis)];
    matrix = ht::squeeze(ht::slice(matrix, 0, i, i + 1), {0});
  }
  return matrix;
}

void expect_slices(const Tensor& a, const Tensor& b, bool ta, bool tb) {
  const Tensor c = ht::matmul(a, b, ta, tb);
  const Shape shape = c.shape();
  const Shape batch(shape.extents().first(static_cast<std::size_t>(shape.rank() - 2)));
  std::vector<std::int64_t> index(static_cast<std::size_t>(batch.rank()));
  std::int64_t differing = 0;
  for (std::int64_t n = 0; n < batch.size(); ++n) {
    const Tensor expected = ht::matmul(matrix_at(a, batch, index), matrix_at(b, batch, index), ta, tb);
    differing += !ladder::same_bits(matrix_at(c, batch, index), expected);
    for (int axis = batch.rank() - 1; axis >= 0; --axis) {
      auto& i = index[static_cast<std::size_t>(axis)];
      if (++i < batch[axis]) break;
      i = 0;
    }
  }
  CHECK_MESSAGE(differing == 0, differing << " slices of " << a.shape() << (ta ? "' " : " ") << b.shape()
                                          << (tb ? "'" : "") << " differ from matrix products");
}

std::string name_of(const Tensor& a, const Tensor& b, bool ta, bool tb) {
  std::ostringstream name;
  name << "matmul " << a.shape() << (ta ? "' " : " ") << b.shape() << (tb ? "'" : "");
  return name.str();
}

struct Batches {
  std::vector<std::int64_t> a, b;
};
const Batches batches[] = {{{2}, {2}}, {{3}, {}},        {{}, {3}},     {{1}, {2}}, {{2}, {1}},
                           {{0}, {1}}, {{2, 1}, {1, 3}}, {{2, 3}, {3}}, {{1}, {}},  {{}, {1, 1}}};

Tensor stack_of(const std::vector<std::int64_t>& batch, std::int64_t rows, std::int64_t columns, bool turned,
                std::uint64_t seed) {
  std::vector<std::int64_t> extents = batch;
  extents.push_back(turned ? columns : rows);
  extents.push_back(turned ? rows : columns);
  return uniform(Shape(std::span<const std::int64_t>(extents)), seed);
}

}  // namespace

TEST_CASE("matmul broadcasts leading axes: slices and ladder, all transposes") {
  for (const Batches& batch : batches)
    for (const bool ta : {false, true})
      for (const bool tb : {false, true}) {
        const Tensor a = stack_of(batch.a, 2, 3, ta, 1), b = stack_of(batch.b, 3, 4, tb, 2);
        expect_slices(a, b, ta, tb);
        expect_derivatives(name_of(a, b, ta, tb),
                           [&](const TensorList& at) { return TensorList{ht::matmul(at[0], at[1], ta, tb)}; },
                           {a, b}, {.max_order = batch.a.size() + batch.b.size() > 2 ? 2 : 3});
        expect_derivatives(
            "with an addend: " + name_of(a, b, ta, tb),
            [&](const TensorList& at) { return TensorList{ht::matmul_add(at[2], at[0], at[1], ta, tb)}; },
            {a, b, uniform({4}, 3)}, {.max_order = 2});
      }
}

TEST_CASE("batches as strided, reversed, transposed and broadcast views, without empty inner axes' garbage") {
  const Tensor a = uniform({4, 3, 5}), b = uniform({4, 5, 2}, 2);
  const Tensor views[] = {
      ht::permute(uniform({5, 4, 3}), {1, 2, 0}),  // no unit stride among rows and columns
      ht::permute(uniform({3, 5, 4}), {2, 0, 1}),  // batch innermost
      ht::flip(a, {0}),                            // backwards
      ht::flip(a, {2}),
      ht::slice(uniform({8, 3, 5}), 0, 0, 8, 2),
      ht::expand(uniform({3, 5}), {4, 3, 5}),
      ht::expand(uniform({4, 1, 5}), {4, 3, 5}),
      ht::expand(uniform({4, 3, 1}), {4, 3, 5}),
      ht::expand(Tensor::scalar(0.3), {4, 3, 5}),
      ht::transpose(uniform({4, 5, 3}), {0, 2, 1})};
  for (const Tensor& view : views) {
    expect_slices(view, b, false, false);
    expect_slices(ht::transpose(b, {0, 2, 1}), view, false, true);
    expect_derivatives("a view times a batch",
                       [](const TensorList& at) { return TensorList{ht::matmul(at[0], at[1])}; }, {view, b},
                       {.max_order = 2});
  }
  CHECK(elements(ht::matmul(Tensor::zeros({2, 3, 0}), Tensor::zeros({2, 0, 2}))) == std::vector<double>(12));
  CHECK(ht::matmul(Tensor::zeros({2, 0, 3}), Tensor::zeros({3, 2})).shape() == Shape{2, 0, 2});
  expect_derivatives("a batch times itself",
                     [](const TensorList& at) { return TensorList{ht::matmul(at[0], at[0], true)}; }, {a});
  expect_derivatives("a batch times its own first matrix",
                     [](const TensorList& at) {
                       return TensorList{ht::matmul(at[0], ht::slice(at[0], 0, 1, 2), false, true)};
                     },
                     {a});
}

TEST_CASE("vectors against batches") {
  const Tensor a = uniform({2, 3, 4}), v = uniform({4}, 2), u = uniform({3}, 3);
  CHECK(ht::matmul(a, v).shape() == Shape{2, 3});
  CHECK(ht::matmul(u, a).shape() == Shape{2, 4});
  const auto run = [](const TensorList& at) { return TensorList{ht::matmul(at[0], at[1])}; };
  expect_derivatives("batch times vector", run, {a, v});
  expect_derivatives("vector times batch", run, {u, a});
  expect_derivatives("transposed batch times vector",
                     [](const TensorList& at) { return TensorList{ht::matmul(at[0], at[1], true)}; }, {a, u});
}

TEST_CASE("large batches: bits of slices, and of 1 and 2 threads; values") {
  struct Case {
    Shape a, b;
    bool ta, tb;
  };
  const Case cases[] = {{{300, 5, 7}, {300, 7, 6}, false, false},   // tiny slices
                        {{40, 30, 20}, {40, 20, 50}, false, true},  // planned, one block each
                        {{6, 120, 90}, {6, 90, 130}, true, false},  // several blocks each
                        {{50, 8, 30}, {30, 40}, false, false},      // one tall product
                        {{50, 8, 30}, {30, 40}, true, false},       // one V for all slices
                        {{30, 40}, {50, 40, 9}, false, false},
                        {{3, 4, 40, 33}, {4, 33, 60}, false, false},
                        {{7, 3, 1200}, {7, 1200, 9}, false, false}};  // several blocks of k
  for (const Case& c : cases) {
    const auto turned = [](const Shape& shape, bool yes) {
      return yes ? shape.with(shape.rank() - 2, shape[shape.rank() - 1])
                       .with(shape.rank() - 1, shape[shape.rank() - 2])
                 : shape;
    };
    const Tensor a = uniform(turned(c.a, c.ta), 4), b = uniform(turned(c.b, c.tb), 5);
    expect_slices(a, b, c.ta, c.tb);
    const auto run = [&](const TensorList& at) { return TensorList{ht::matmul(at[0], at[1], c.ta, c.tb)}; };
    expect_consistent(name_of(a, b, c.ta, c.tb), run, {a, b}, {.max_order = 1});
    const auto single = [&](const TensorList& at) {
      return ladder::same_bits(run(at), [&] {
        const ladder::Threads one(1);
        return run(at);
      }());
    };
    CHECK(single({a, b}));
    CHECK(single({ladder::converted(a, ht::Dtype::float32), ladder::converted(b, ht::Dtype::float32)}));
    expect_slices(ladder::converted(a, ht::Dtype::float32), ladder::converted(b, ht::Dtype::float32), c.ta,
                  c.tb);
  }
}

TEST_CASE("product_batch merges axes and finds every slice") {
  ht::detail::ProductBatch batch;
  batch.add_axis(2, 60, 0);
  batch.add_axis(1, 7, 7);
  batch.add_axis(3, 20, 0);
  CHECK(batch.rank == 1);
  batch.add_axis(4, 5, 11);
  CHECK(batch.rank == 2);
  CHECK(batch.count() == 24);
  std::int64_t slice = 0;
  for (std::int64_t i = 0; i < 2; ++i)
    for (std::int64_t j = 0; j < 3; ++j)
      for (std::int64_t k = 0; k < 4; ++k) {
        const auto offsets = batch.offsets(slice++);
        CHECK(offsets.a == 60 * i + 20 * j + 5 * k);
        CHECK(offsets.b == 11 * k);
      }
}

TEST_CASE("batches that do not fit are refused with both shapes") {
  const Tensor a = uniform({2, 3, 4});
  const std::string text = thrown([&] { ht::matmul(a, uniform({3, 4, 2})); });
  expect_text(text, "[matmul]");
  expect_text(text, "(2, 3, 4)");
  expect_text(text, "(3, 4, 2)");
  expect_text(thrown([&] { ht::matmul(a, uniform({3, 3})); }), "inner extents differ: 4");
  expect_text(thrown([&] { ht::matmul(a, a); }), "(2, 3, 4)");
  expect_text(thrown([&] { ht::matmul(a, Tensor::scalar(1)); }), "rank 1 or more");
  expect_text(thrown([&] { ht::matmul_add(uniform({3}), a, uniform({4, 2})); }), "[matmul_add]");
  expect_text(thrown([&] { ht::matmul_add(uniform({5, 2, 3, 2}), a, uniform({4, 2})); }), "[matmul_add]");
}
