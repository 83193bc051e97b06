// ctest labels: threads kernels levels
//
// Broadcasts, views and copies of turned ones: what a loop over indices gives, around the sizes of tiles,
// lines and bands.
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include <hypertape/autodiff/ops.h>
#include <hypertape/core/parallel.h>
#include <hypertape/core/random.h>
#include "ladder.h"
#include "naive.h"

namespace ht = hypertape;
using ht::Shape;
using ht::Tensor;
using ladder::elements;

TEST_CASE("broadcasts and views of short and long rows are what a loop over indices gives") {
  const auto values = [](const Shape& shape, std::uint64_t seed) {
    return ladder::sample(shape, -2, 2, seed);
  };
  for (const Shape& shape :
       {Shape{300, 7}, Shape{5, 40, 3}, Shape{2, 3, 600}, Shape{3, 513}, Shape{700, 30}, Shape{90, 256},
        Shape{3, 70, 100}, Shape{41, 257}, Shape{2, 3, 4, 5}, Shape{3, 1200}})
    for (const naive::Axes& axes : naive::subsets(shape.rank())) {
      const Tensor full = values(shape, 1), small = values(naive::kept_shape(shape, axes), 2);
      std::vector<std::int64_t> order;
      for (int axis = shape.rank(); axis-- > 0;) order.push_back(axis);
      std::vector<std::int64_t> turned_extents;
      for (const std::int64_t axis : order) turned_extents.push_back(shape[static_cast<int>(axis)]);
      const Tensor turned = ht::transpose(values(Shape(turned_extents), 3), order);
      const auto a = elements(full), b = elements(small), c = elements(turned),
                 got = elements(ht::multiply_add(full, small, turned)), sums = elements(small + full),
                 differences = elements(full - small), inner = elements(ht::multiply_add(small, small, full));
      std::size_t n = 0;
      bool equal = true;
      naive::for_each_index(shape, [&](const naive::Index& index) {
        const double other = b[naive::position(index, small.shape())];
        equal &= got[n] == a[n] * other + c[n];
        equal &= sums[n] == a[n] + other;
        equal &= differences[n] == a[n] - other;
        equal &= inner[n] == other * other + a[n];
        ++n;
      });
      CAPTURE(shape);
      CHECK(equal);
    }
}

TEST_CASE("copies of turned views: every size around the squares and bands, both dtypes") {
  for (const ht::Dtype dtype : {ht::Dtype::float32, ht::Dtype::float64})
    for (const std::int64_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 63, 64, 65, 130})
      for (const std::int64_t columns : {1, 3, 4, 7, 8, 9, 15, 16, 17, 24, 31, 33}) {
        const Tensor x = ht::astype(ladder::sample({2, rows, columns}, -2, 2, 1), dtype);
        const auto values = elements(x), turned = elements(ht::contiguous(ht::transpose(x, {0, 2, 1}))),
                   around = elements(ht::contiguous(ht::transpose(x, {2, 0, 1})));
        bool equal = true;
        for (std::int64_t b = 0; b < 2; ++b)
          for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < columns; ++j) {
              const double expected = values[static_cast<std::size_t>((b * rows + i) * columns + j)];
              equal &= turned[static_cast<std::size_t>((b * columns + j) * rows + i)] == expected;
              equal &= around[static_cast<std::size_t>((j * 2 + b) * rows + i)] == expected;
            }
        CAPTURE(rows);
        CAPTURE(columns);
        CHECK(equal);
      }
}

TEST_CASE("large copies of turned views, whose lines are whole or not, on one thread and several") {
  for (const ht::Dtype dtype : {ht::Dtype::float32, ht::Dtype::float64})
    for (const Shape& shape :
         {Shape{1600, 1024}, Shape{2, 1104, 723}, Shape{1601, 1027}, Shape{3, 700, 805}}) {
      const Tensor x = ht::random(shape, ht::Distribution::normal, {1}, dtype);
      const int rank = shape.rank();
      const std::int64_t rows = shape[rank - 2], columns = shape[rank - 1];
      const auto values = elements(x);
      for (const int count : {1, 2}) {
        const ladder::Threads threads(count);
        const auto turned = elements(ht::contiguous(ht::permute(
            x, rank == 2 ? std::vector<std::int64_t>{1, 0} : std::vector<std::int64_t>{0, 2, 1})));
        bool equal = true;
        for (std::int64_t at = 0; at < x.size(); ++at) {
          const std::int64_t slice = at / (rows * columns), i = at / columns % rows, j = at % columns;
          equal &= turned[static_cast<std::size_t>((slice * columns + j) * rows + i)] ==
                   values[static_cast<std::size_t>(at)];
        }
        CAPTURE(shape);
        CHECK(equal);
      }
    }
}

namespace {

// The same elements in other places: turned around, backwards, with gaps, in the middle of others.
std::vector<Tensor> other_layouts(const Tensor& x) {
  std::vector<Tensor> views = {ht::transpose(ht::contiguous(ht::transpose(x)))};
  if (x.rank() == 3) views.push_back(ht::permute(ht::contiguous(ht::permute(x, {1, 2, 0})), {2, 0, 1}));
  for (std::int64_t axis = 0; axis < x.rank(); ++axis) {
    const std::int64_t extent = x.extent(axis);
    views.push_back(ht::flip(ht::contiguous(ht::flip(x, {axis})), {axis}));
    views.push_back(ht::slice(ht::repeat(x, 2, axis), axis, 1, 2 * extent, 2));
    views.push_back(ht::slice(ht::concatenate({x, x}, axis), axis, extent, 2 * extent));
  }
  return views;
}

}  // namespace

TEST_CASE("sums, norms and products have the bits of a row-major operand, whatever the layout") {
  for (const ht::Dtype dtype : {ht::Dtype::float32, ht::Dtype::float64})
    for (const Shape& shape : {Shape{40}, Shape{40000}, Shape{8, 9}, Shape{300, 7}, Shape{7, 300},
                               Shape{3, 20000}, Shape{20000, 3}, Shape{1, 50}, Shape{50, 1}, Shape{5, 6, 7},
                               Shape{2, 300, 70}, Shape{130, 1, 140}, Shape{3, 4, 5, 6}}) {
      const Tensor x = ht::random(shape, ht::Distribution::normal, {7}, dtype);
      const Tensor w = ht::random({shape[shape.rank() - 1], 33}, ht::Distribution::normal, {8}, dtype);
      const auto results = [&](const Tensor& z) {
        ht::TensorList all = {ht::sum(z),
                              ht::norm(z),
                              ht::norm(z * 1e30),
                              ht::dot(z, x),
                              ht::mean(ht::flip(z, {0})),
                              ht::sum(ht::expand(ht::sum(z, {-1}, true), shape))};
        for (const naive::Axes& axes : naive::subsets(shape.rank()))
          for (const bool keep : {false, true}) {
            all.push_back(ht::sum(z, axes, keep));
            all.push_back(ht::norm(z, axes, keep));
          }
        if (shape.rank() < 4 && shape[shape.rank() - 1] < 1000) all.push_back(ht::matmul(z, w));
        if (shape.rank() == 2 && shape[0] < 1000)
          all.push_back(ht::matmul(z, ht::transpose(ht::contiguous(ht::transpose(z))), false, true));
        return all;
      };
      const ht::TensorList expected = results(x);
      CAPTURE(shape);
      for (const Tensor& view : other_layouts(x)) {
        REQUIRE(ladder::same_bits(view, x));
        CHECK(ladder::same_bits(results(view), expected));
      }
    }
}
