// ctest labels: threads kernels levels
//
// Broadcasts, views and copies of turned ones: what a loop over indices gives, around the sizes of tiles,
// lines and bands.
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "hypertape/autodiff/ops.h"
#include "hypertape/core/parallel.h"
#include "hypertape/core/random.h"
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
