// ctest labels: threads kernels
//
// Cumulative sums and reductions of booleans: values against naive loops, the ladder for what has
// derivatives.
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <limits>
#include <memory>

#include <hypertape/autodiff/ops.h>
#include "ladder.h"
#include "naive.h"

namespace ht = hypertape;
using ht::Dtype;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ladder::elements;
using ladder::expect_consistent;
using ladder::expect_derivatives;
using naive::label;

namespace {

const double not_a_number = std::numeric_limits<double>::quiet_NaN();

using Group = std::vector<double>;

Tensor uniform(const Shape& shape, std::uint64_t seed = 1) { return ladder::sample(shape, -2, 2, seed); }

std::vector<std::int64_t> integers(const Tensor& x) { return x.to_vector<std::int64_t>(); }

std::vector<int> flags(const Tensor& x) {
  const std::unique_ptr<bool[]> values(new bool[static_cast<std::size_t>(x.size()) + 1]);
  x.copy_to(std::span<bool>(values.get(), static_cast<std::size_t>(x.size())));
  return {values.get(), values.get() + x.size()};
}

}  // namespace

TEST_CASE("cumulative_sum: values, ladder, views, and its reverse as the adjoint") {
  for (const Shape& shape : {Shape{5}, Shape{3, 4}, Shape{2, 3, 4}, Shape{1, 3, 1}, Shape{0, 3}, Shape{2, 0}})
    for (std::int64_t axis = -shape.rank(); axis < shape.rank(); ++axis)
      for (const bool reverse : {false, true}) {
        const int a = static_cast<int>(axis < 0 ? axis + shape.rank() : axis);
        const Tensor x = uniform(shape), y = uniform(shape, 2);
        const std::vector<double> values = elements(x), got = elements(ht::cumulative_sum(x, axis, reverse));
        const std::string name = label(reverse ? "reverse cumulative_sum" : "cumulative_sum", shape, {axis});
        std::size_t n = 0;
        naive::for_each_index(shape, [&](const naive::Index& index) {
          long double total = 0;
          naive::Index at = index;
          const auto k = static_cast<std::size_t>(a);
          for (std::int64_t i = 0; i < shape[a]; ++i) {
            at[k] = i;
            if (reverse ? i >= index[k] : i <= index[k]) total += values[naive::position(at, shape)];
          }
          CHECK_MESSAGE(std::abs(got[n] - total) <= 1e-14, name << " at " << n);
          ++n;
        });
        const double there = ladder::pairing({ht::cumulative_sum(x, axis, reverse)}, {y}),
                     back = ladder::pairing({x}, {ht::cumulative_sum(y, axis, !reverse)});
        CHECK(std::abs(there - back) <= 1e-13);
        if (axis < 0) continue;
        expect_derivatives(
            name, [&](const TensorList& z) { return TensorList{ht::cumulative_sum(z[0], axis, reverse)}; },
            {x});
      }
  const auto turned = [](const TensorList& z) {
    return TensorList{ht::cumulative_sum(ht::transpose(z[0]), 0), ht::cumulative_sum(ht::transpose(z[0]), 1)};
  };
  expect_derivatives("cumulative_sum of a transpose", turned, {uniform({4, 3})});
  CHECK(elements(turned({Tensor::from({1.0, 2.0, 3.0, 4.0}, {2, 2})})[0]) == Group{1, 3, 3, 7});
  for (const Shape& shape :
       {Shape{100'003}, Shape{300, 200}, Shape{3, 20'001}, Shape{20'001, 3}, Shape{5, 60, 70}})
    for (std::int64_t axis = 0; axis < shape.rank(); ++axis) {
      const Tensor ones = Tensor::ones(shape);
      const std::vector<double> got = elements(ht::cumulative_sum(ones, axis));
      std::size_t n = 0;
      bool right = true;
      naive::for_each_index(shape, [&](const naive::Index& index) {
        right &= got[n++] == static_cast<double>(index[static_cast<std::size_t>(axis)] + 1);
      });
      CHECK_MESSAGE(right, label("cumulative_sum", shape, {axis}));
      ladder::Options options;
      options.max_order = 1;
      expect_consistent(
          label("cumulative_sum", shape, {axis}),
          [&](const TensorList& z) { return TensorList{ht::cumulative_sum(z[0], axis)}; }, {uniform(shape)},
          options);
    }
  CHECK(std::isnan(elements(ht::cumulative_sum(Tensor::from({1.0, not_a_number, 1.0}), 0))[2]));
  CHECK(elements(ht::cumulative_sum(Tensor::from({1.0, not_a_number, 1.0}), 0))[0] == 1.0);
}

TEST_CASE("cumulative_sum adds one element after the other, however many lines go together") {
  std::vector<std::pair<std::int64_t, std::int64_t>> sizes{{30'001, 40}};  // more than the caches hold
  for (const std::int64_t lines : {1, 3, 4, 5, 131})
    for (const std::int64_t length : {1, 2, 150}) sizes.emplace_back(lines, length);
  for (const Dtype dtype : {Dtype::float32, Dtype::float64})
    for (const auto& [lines, length] : sizes)
      for (const int axis : {0, 1})
        for (const bool turned : {false, true})
          for (const bool reverse : {false, true}) {
            const Shape shape = axis == 1 ? Shape{lines, length} : Shape{length, lines};
            const Tensor x = turned ? ht::transpose(ht::astype(uniform({shape[1], shape[0]}), dtype))
                                    : ht::astype(uniform(shape), dtype);
            const std::vector<double> values = elements(x),
                                      got = elements(ht::cumulative_sum(x, axis, reverse));
            bool right = true;
            for (std::int64_t line = 0; line < lines; ++line) {
              double total = 0;
              for (std::int64_t k = 0; k < length; ++k) {
                const std::int64_t i = reverse ? length - 1 - k : k;
                const auto at = static_cast<std::size_t>(axis == 1 ? line * length + i : i * lines + line);
                total += values[at];
                if (dtype == Dtype::float32) total = static_cast<float>(total);
                right &= got[at] == total;
              }
            }
            CAPTURE(shape);
            CHECK(right);
          }
}

TEST_CASE("any, all and count of booleans") {
  const std::array<bool, 12> values = {true, false, true, false, false, false,
                                       true, true,  true, false, false, true};
  const Tensor x = Tensor::from(std::span<const bool>(values), {3, 4});
  CHECK(flags(ht::any(x, {1})) == std::vector<int>{1, 1, 1});
  CHECK(flags(ht::all(x, {1})) == std::vector<int>{0, 0, 0});
  CHECK(integers(ht::count(x, {1})) == std::vector<std::int64_t>{2, 2, 2});
  CHECK(integers(ht::count(x, {0})) == std::vector<std::int64_t>{2, 0, 2, 2});
  CHECK(integers(ht::count(ht::transpose(x), {-1}, true)) == std::vector<std::int64_t>{2, 0, 2, 2});
  CHECK(ht::count(x, {0}, true).shape() == Shape{1, 4});
  CHECK(ht::count(x).item() == 6.0);
  CHECK(ht::any(x).item() == 1.0);
  CHECK(ht::all(x).item() == 0.0);
  CHECK(ht::all(Tensor::ones({70'001}, Dtype::boolean)).item() == 1.0);
  CHECK(ht::any(Tensor::zeros({70'001}, Dtype::boolean)).item() == 0.0);
  CHECK(ht::count(Tensor::ones({300, 200}, Dtype::boolean)).item() == 60'000.0);
  const Tensor none = Tensor::zeros({2, 0}, Dtype::boolean);
  CHECK(flags(ht::any(none, {1})) == std::vector<int>{0, 0});
  CHECK(flags(ht::all(none, {1})) == std::vector<int>{1, 1});
  CHECK(integers(ht::count(none, {1})) == std::vector<std::int64_t>{0, 0});
  CHECK(ht::any(none, {0}).shape() == Shape{0});
  CHECK(flags(ht::all(x, {})) == flags(x));
}
