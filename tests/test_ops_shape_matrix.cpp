// Diagonals and triangles of batches of matrices, and outer products: values by index, the ladder.
#include <doctest/doctest.h>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <limits>
#include "ladder.h"
#include "thrown.h"

namespace ht = hypertape;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ladder::elements;
using ladder::expect_derivatives;
using ladder::sample;

namespace {

Tensor uniform(const Shape& shape, std::uint64_t seed = 1) { return sample(shape, -2, 2, seed); }

// Element [.., i, j] of the n-th matrix.
double at(const Tensor& x, std::int64_t n, std::int64_t i, std::int64_t j) {
  return elements(x)[static_cast<std::size_t>((n * x.extent(-2) + i) * x.extent(-1) + j)];
}

std::int64_t matrices_of(const Tensor& x) {
  return x.size() == 0 ? 0 : x.size() / (x.extent(-2) * x.extent(-1));
}

}  // namespace

TEST_CASE("tril and triu keep a triangle of each matrix") {
  for (const Shape& shape :
       {Shape{3, 3}, Shape{2, 4}, Shape{4, 2}, Shape{2, 3, 3}, Shape{1, 1}, Shape{0, 2}}) {
    const Tensor x = uniform(shape);
    for (const std::int64_t diagonal : {-5, -1, 0, 1, 9}) {
      const Tensor lower = ht::tril(x, diagonal), upper = ht::triu(x, diagonal);
      for (std::int64_t n = 0; n < matrices_of(x); ++n)
        for (std::int64_t i = 0; i < x.extent(-2); ++i)
          for (std::int64_t j = 0; j < x.extent(-1); ++j) {
            CHECK(at(lower, n, i, j) == (j <= i + diagonal ? at(x, n, i, j) : 0.0));
            CHECK(at(upper, n, i, j) == (j >= i + diagonal ? at(x, n, i, j) : 0.0));
          }
      if (x.size() > 9) continue;
      expect_derivatives("tril", [&](const TensorList& z) { return TensorList{ht::tril(z[0], diagonal)}; },
                         {x});
      expect_derivatives("triu", [&](const TensorList& z) { return TensorList{ht::triu(z[0], diagonal)}; },
                         {x});
    }
  }
  expect_derivatives(
      "triangles of a batch",
      [](const TensorList& z) { return TensorList{ht::matmul(ht::tril(z[0]), ht::triu(z[0], 1))}; },
      {uniform({2, 3, 3})});
  expect_derivatives("tril of a transpose",
                     [](const TensorList& z) { return TensorList{ht::tril(ht::transpose(z[0]))}; },
                     {uniform({3, 4})});
  // What is cut away is not looked at.
  const Tensor odd = Tensor::from({1.0, std::numeric_limits<double>::quiet_NaN(), 2.0, 3.0}, {2, 2});
  CHECK(elements(ht::tril(odd)) == std::vector<double>{1, 0, 2, 3});
  CHECK(ht::tril(Tensor::from<std::int64_t>({1, 2, 3, 4}, {2, 2})).to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{1, 0, 3, 4});
}

TEST_CASE("diagonal is a view, diag places it: adjoints of each other") {
  for (const Shape& shape : {Shape{3, 3}, Shape{2, 4}, Shape{4, 2}, Shape{2, 3, 3}, Shape{0, 3}}) {
    const Tensor x = uniform(shape);
    for (const std::int64_t offset : {-4, -1, 0, 1, 2, 7}) {
      const Tensor d = ht::diagonal(x, offset);
      CHECK(d.shares_storage_with(x));
      std::vector<double> expected;
      for (std::int64_t n = 0; n < matrices_of(x); ++n)
        for (std::int64_t i = 0; i < x.extent(-2); ++i)
          if (i + offset >= 0 && i + offset < x.extent(-1)) expected.push_back(at(x, n, i, i + offset));
      CHECK(elements(d) == expected);
      expect_derivatives("diagonal",
                         [&](const TensorList& z) { return TensorList{ht::diagonal(z[0], offset)}; }, {x});
    }
  }
  for (const Shape& shape : {Shape{3}, Shape{2, 2}, Shape{1}, Shape{0}, Shape{2, 0}})
    for (const std::int64_t offset : {-2, 0, 1}) {
      const Tensor v = uniform(shape), m = ht::diag(v, offset);
      const std::int64_t extent = shape[shape.rank() - 1] + std::abs(offset);
      CHECK((m.extent(-1) == extent && m.extent(-2) == extent));
      CHECK(ladder::same_bits(ht::contiguous(ht::diagonal(m, offset)), v));
      double total = 0, kept = 0;
      for (const double value : elements(m)) total += std::abs(value);
      for (const double value : elements(v)) kept += std::abs(value);
      CHECK(total == doctest::Approx(kept).epsilon(1e-15));
      expect_derivatives("diag", [&](const TensorList& z) { return TensorList{ht::diag(z[0], offset)}; },
                         {v});
    }
  expect_derivatives(
      "trace of a product",
      [](const TensorList& z) { return TensorList{ht::sum(ht::diagonal(ht::matmul(z[0], z[0])))}; },
      {uniform({3, 3})});
}

TEST_CASE("outer") {
  const Tensor a = uniform({3}), b = uniform({4}, 2);
  const Tensor y = ht::outer(a, b);
  CHECK(y.shape() == Shape{3, 4});
  for (std::int64_t i = 0; i < 3; ++i)
    for (std::int64_t j = 0; j < 4; ++j)
      CHECK(at(y, 0, i, j) ==
            elements(a)[static_cast<std::size_t>(i)] * elements(b)[static_cast<std::size_t>(j)]);
  const auto run = [](const TensorList& z) { return TensorList{ht::outer(z[0], z[1])}; };
  expect_derivatives("outer", run, {a, b});
  expect_derivatives("outer with nothing", run, {a, Tensor::zeros({0})});
  expect_derivatives("outer with itself",
                     [](const TensorList& z) { return TensorList{ht::outer(z[0], z[0])}; }, {a});
  expect_text(thrown([&] { ht::outer(a, uniform({2, 2})); }), "[outer] needs two vectors");
  expect_text(thrown([&] { ht::outer(a, Tensor::ones({2}, ht::Dtype::float32)); }), "[outer] dtypes differ");
}

TEST_CASE("vectors and scalars are refused where matrices are needed") {
  const Tensor v = uniform({3});
  expect_text(thrown([&] { ht::tril(v); }), "[tril]");
  expect_text(thrown([&] { ht::triu(v); }), "[triu]");
  expect_text(thrown([&] { ht::diagonal(v); }), "[diagonal]");
  expect_text(thrown([&] { ht::diag(Tensor::scalar(1)); }), "[diag]");
  expect_text(thrown([&] { ht::diag(v, std::numeric_limits<std::int64_t>::min()); }), "[diag]");
}
