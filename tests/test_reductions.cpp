// ctest labels: threads kernels levels
//
// Reductions beyond sums: values against naive loops in long double, the ladder, ties, zeros, infinities and
// NaN by hand.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "ladder.h"
#include "naive.h"
#include "thrown.h"

namespace ht = hypertape;
using ht::Dtype;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ladder::elements;
using ladder::expect_consistent;
using ladder::expect_derivatives;
using ladder::sample;
using naive::Axes;
using naive::label;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();
const double not_a_number = std::numeric_limits<double>::quiet_NaN();

using Reduction = std::function<Tensor(const Tensor&, const Axes&, bool)>;
using Group = std::vector<double>;
using Oracle = std::function<long double(const Group&)>;

Tensor uniform(const Shape& shape, std::uint64_t seed = 1) { return sample(shape, -2, 2, seed); }

// All elements at least `gap` apart: no two of them tie within the steps of the ladder.
Tensor spread(const Shape& shape, std::uint64_t seed = 1, double gap = 0.3) {
  std::vector<double> values(static_cast<std::size_t>(shape.size()));
  std::iota(values.begin(), values.end(), -static_cast<double>(shape.size()) / 2);
  std::mt19937_64 random(seed);
  std::shuffle(values.begin(), values.end(), random);
  for (double& value : values) value *= gap;
  return Tensor::from(values, shape);
}

std::vector<std::int64_t> integers(const Tensor& x) { return x.to_vector<std::int64_t>(); }

void expect_values(const std::string& name, const Tensor& got, const std::vector<Group>& groups,
                   const Oracle& oracle, double tolerance) {
  const std::vector<double> values = elements(got);
  REQUIRE(values.size() == groups.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const long double expected = oracle(groups[i]);
    const bool near = std::abs(values[i] - expected) <= tolerance * std::max(1.0L, std::abs(expected));
    CHECK_MESSAGE(near,
                  name << " element " << i << ": " << values[i] << " for " << static_cast<double>(expected));
  }
}

const std::vector<Shape> small_shapes = {Shape{}, Shape{5}, Shape{3, 4}, Shape{2, 3, 4}, Shape{1, 3, 1}};

// Values and ladder over every subset of axes, kept or not, of tensors and of views.
void expect_reduction(const std::string& op, const Reduction& reduce, const Oracle& oracle,
                      const std::function<Tensor(const Shape&)>& input, double tolerance = 1e-14,
                      const ladder::Options& options = {}) {
  for (const Shape& shape : small_shapes) {
    const Tensor x = input(shape);
    for (const Axes& axes : naive::subsets(shape.rank()))
      for (const bool keep : {false, true}) {
        const std::string name = label(op + (keep ? " (kept)" : ""), shape, axes);
        const Tensor got = reduce(x, axes, keep);
        const Shape kept = naive::kept_shape(shape, axes);
        CHECK(got.rank() == (keep ? shape.rank() : shape.rank() - static_cast<int>(axes.size())));
        CHECK(got.size() == kept.size());
        if (keep) CHECK(got.shape() == kept);
        expect_values(name, got, naive::groups(elements(x), shape, axes), oracle, tolerance);
        if (keep && shape.rank() == 3) continue;
        expect_derivatives(
            name, [&](const TensorList& at) { return TensorList{reduce(at[0], axes, keep)}; }, {x}, options);
      }
  }
  Axes from_the_back{-1, 0};
  const Tensor x = input({3, 4, 2});
  CHECK(ladder::same_bits(reduce(x, from_the_back, false), reduce(x, {0, 2}, false)));
  for (const Axes& axes : naive::subsets(3)) {
    const auto turned = [&](const TensorList& at) {
      return TensorList{reduce(ht::transpose(at[0], {2, 0, 1}), axes, false)};
    };
    const Tensor tall = input({4, 3, 2});
    expect_values(label(op + " of a transpose", {2, 4, 3}, axes), turned({tall})[0],
                  naive::groups(elements(ht::contiguous(ht::transpose(tall, {2, 0, 1}))), {2, 4, 3}, axes),
                  oracle, tolerance);
    expect_derivatives(label(op + " of a transpose", {2, 4, 3}, axes), turned, {tall}, options);
    const auto cut = [&](const TensorList& at) {
      return TensorList{reduce(ht::slice(at[0], 1, 1, 3), axes, false)};
    };
    expect_values(label(op + " of a slice", {4, 2, 2}, axes), cut({tall})[0],
                  naive::groups(elements(ht::contiguous(ht::slice(tall, 1, 1, 3))), {4, 2, 2}, axes), oracle,
                  tolerance);
  }
}

// Large shapes, where blocks, chunks and threads come in.
void expect_large(const std::string& op, const Reduction& reduce, const Oracle& oracle,
                  const std::function<Tensor(const Shape&)>& input, double tolerance) {
  for (const Shape& shape :
       {Shape{100'003}, Shape{301, 203}, Shape{3, 20'001}, Shape{20'001, 3}, Shape{7, 50, 130}})
    for (const Axes& axes : naive::subsets(shape.rank())) {
      if (axes.empty()) continue;
      const Tensor x = input(shape);
      const std::string name = label(op, shape, axes);
      expect_values(name, reduce(x, axes, false), naive::groups(elements(x), shape, axes), oracle, tolerance);
      ladder::Options options;
      options.max_order = 1;
      expect_consistent(
          name, [&](const TensorList& at) { return TensorList{reduce(at[0], axes, false)}; }, {x}, options);
    }
}

Tensor max_of(const Tensor& x, const Axes& axes, bool keep) { return ht::max(x, axes, keep); }
Tensor min_of(const Tensor& x, const Axes& axes, bool keep) { return ht::min(x, axes, keep); }
Tensor prod_of(const Tensor& x, const Axes& axes, bool keep) { return ht::prod(x, axes, keep); }
Tensor logsumexp_of(const Tensor& x, const Axes& axes, bool keep) { return ht::logsumexp(x, axes, keep); }
Tensor norm_of(const Tensor& x, const Axes& axes, bool keep) { return ht::norm(x, axes, keep); }

long double naive_max(const Group& g) { return *std::max_element(g.begin(), g.end()); }
long double naive_min(const Group& g) { return *std::min_element(g.begin(), g.end()); }
long double naive_prod(const Group& g) {
  return std::accumulate(g.begin(), g.end(), 1.0L, std::multiplies<long double>());
}
long double naive_logsumexp(const Group& g) {
  long double total = 0;
  for (const double value : g) total += std::exp(static_cast<long double>(value));
  return std::log(total);
}
long double naive_norm(const Group& g) {
  long double total = 0;
  for (const double value : g) total += static_cast<long double>(value) * value;
  return std::sqrt(total);
}
Oracle naive_variance(int correction) {
  return [correction](const Group& g) {
    const auto count = static_cast<long double>(g.size());
    long double mean = 0, total = 0;
    for (const double value : g) mean += value / count;
    for (const double value : g) total += (value - mean) * (value - mean);
    return total / (count - correction);
  };
}

// d/dx of sum(f(x)), and of the directional derivative of that along ones: what happens at special points.
std::vector<double> gradient(const std::function<Tensor(const Tensor&)>& f, const Tensor& x) {
  return elements(ht::grad([&](const Tensor& z) { return ht::sum(f(z)); }, x));
}
std::vector<double> curvature(const std::function<Tensor(const Tensor&)>& f, const Tensor& x) {
  return elements(
      ht::hvp([&](const Tensor& z) { return ht::sum(f(z)); }, x, Tensor::ones(x.shape(), x.dtype())));
}

}  // namespace

TEST_CASE("max and min: values, ladder, large shapes") {
  expect_reduction(
      "max", max_of, naive_max, [](const Shape& shape) { return spread(shape); }, 0.0);
  expect_reduction(
      "min", min_of, naive_min, [](const Shape& shape) { return spread(shape, 2); }, 0.0);
  expect_large(
      "max", max_of, naive_max, [](const Shape& shape) { return spread(shape); }, 0.0);
  expect_large(
      "min", min_of, naive_min, [](const Shape& shape) { return uniform(shape, 2); }, 0.0);
  const Tensor x = spread({3, 4});
  CHECK(ladder::same_bits(ht::max(x), ht::max(x, {0, 1})));
  CHECK(ladder::same_bits(ht::min(x), ht::min(x, {0, 1})));
}

TEST_CASE("of equal elements the first in row-major order gets the gradient of max and min, at every order") {
  const Tensor x = Tensor::from({1.0, 3.0, 3.0, 3.0, 0.0, 3.0}, {2, 3});
  CHECK(gradient([](const Tensor& z) { return ht::max(z, {1}); }, x) == Group{0, 1, 0, 1, 0, 0});
  CHECK(gradient([](const Tensor& z) { return ht::max(z, {0}); }, x) == Group{0, 1, 1, 1, 0, 0});
  CHECK(gradient([](const Tensor& z) { return ht::max(z); }, x) == Group{0, 1, 0, 0, 0, 0});
  CHECK(gradient([](const Tensor& z) { return ht::min(z); }, -x) == Group{0, 1, 0, 0, 0, 0});
  // Row-major in x, not in the order in which a transpose lays the merged axes out.
  CHECK(gradient([](const Tensor& z) { return ht::max(ht::transpose(z)); }, x) == Group{0, 0, 0, 1, 0, 0});
  const Tensor cube = Tensor::from({0.0, 5.0, 0.0, 0.0, 5.0, 0.0, 5.0, 5.0}, {2, 2, 2});
  CHECK(gradient([](const Tensor& z) { return ht::max(z, {0, 2}); }, cube) == Group{0, 1, 0, 0, 0, 0, 1, 0});
  // d2 max^2 = 2 e e': along the tie nothing is split.
  const auto squared = [](const Tensor& z) { return ht::square(ht::max(z)); };
  CHECK(gradient(squared, x) == Group{0, 6, 0, 0, 0, 0});
  CHECK(curvature(squared, x) == Group{0, 2, 0, 0, 0, 0});
  const Tensor zeros = Tensor::from({-0.0, 0.0, -1.0}, {3});
  CHECK(integers(ht::argmax(zeros)) == std::vector<std::int64_t>{0});
  CHECK(std::signbit(ht::max(zeros).item()));
}

TEST_CASE("NaN wins in max and min, infinities are numbers") {
  const Tensor x = Tensor::from(
      {1.0, not_a_number, inf, not_a_number, -inf, 2.0, 1.0, -inf, -inf, -inf, -inf, -inf}, {3, 4});
  const std::vector<double> largest = elements(ht::max(x, {1})), smallest = elements(ht::min(x, {1}));
  CHECK(std::isnan(largest[0]));
  CHECK(std::isnan(smallest[0]));
  CHECK(largest[1] == 2.0);
  CHECK(smallest[1] == -inf);
  CHECK(largest[2] == -inf);
  CHECK(integers(ht::argmax(x, 1)) == std::vector<std::int64_t>{1, 1, 0});
  CHECK(integers(ht::argmin(x, 1)) == std::vector<std::int64_t>{1, 0, 0});
  CHECK(integers(ht::argmax(x, 0)) == std::vector<std::int64_t>{0, 0, 0, 0});
  CHECK(integers(ht::argmin(x)) == std::vector<std::int64_t>{1});
  CHECK(gradient([](const Tensor& z) { return ht::max(z, {1}); }, x) ==
        Group{0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0});
  // In the middle of a line that is shared out between threads.
  std::vector<double> values(70'000, 1.0);
  values[40'000] = not_a_number;
  values[60'000] = not_a_number;
  CHECK(integers(ht::argmax(Tensor::from(values, {70'000}))) == std::vector<std::int64_t>{40'000});
}

TEST_CASE("argmax and argmin: along each axis, over all, of views, in large lines") {
  for (const Shape& shape : {Shape{5}, Shape{3, 4}, Shape{2, 3, 4}, Shape{50'021}, Shape{2, 300, 70}})
    for (int axis = 0; axis < shape.rank(); ++axis) {
      const Tensor x = spread(shape, 3);
      const std::vector<Group> groups = naive::groups(elements(x), shape, {axis});
      const Tensor at = ht::argmax(x, axis), kept = ht::argmin(x, axis - shape.rank(), true);
      CHECK(at.dtype() == Dtype::int64);
      CHECK(at.rank() == shape.rank() - 1);
      CHECK(kept.shape() == shape.with(axis, 1));
      const std::vector<std::int64_t> largest = integers(at), smallest = integers(kept);
      bool right = true;
      for (std::size_t i = 0; i < groups.size(); ++i) {
        right &= largest[i] == std::max_element(groups[i].begin(), groups[i].end()) - groups[i].begin();
        right &= smallest[i] == std::min_element(groups[i].begin(), groups[i].end()) - groups[i].begin();
      }
      CHECK_MESSAGE(right, label("argmax", shape, {axis}));
    }
  const Tensor x = Tensor::from({1.0, 9.0, 2.0, 3.0, 4.0, 5.0}, {2, 3});
  CHECK(integers(ht::argmax(x)) == std::vector<std::int64_t>{1});
  CHECK(integers(ht::argmax(ht::transpose(x))) == std::vector<std::int64_t>{2});
  CHECK(integers(ht::argmin(ht::transpose(x), 1)) == std::vector<std::int64_t>{0, 1, 0});
  CHECK(ht::argmax(Tensor::zeros({0, 3}), 1).shape() == Shape{0});
  CHECK(ht::argmin(Tensor::scalar(2.0)).item() == 0.0);
}

TEST_CASE("prod: values and ladder, zeros among the factors included") {
  expect_reduction("prod", prod_of, naive_prod,
                   [](const Shape& shape) { return sample(shape, 0.4, 1.6, 1); });
  for (const std::size_t zeros : {1u, 2u, 3u, 5u}) {
    // Where more than three factors vanish so do three derivatives, and there is nothing to extrapolate.
    ladder::Options options;
    options.max_order = zeros > 3 ? 2 : 3;
    expect_reduction(
        "prod with " + std::to_string(zeros) + " zeros", prod_of, naive_prod,
        [zeros](const Shape& shape) {
          std::vector<double> values = elements(sample(shape, 0.4, 1.6, 2));
          for (std::size_t i = 0; i < std::min(zeros, values.size()); ++i)
            values[i * 3 % values.size()] = 0.0;
          return Tensor::from(values, shape);
        },
        1e-14, options);
  }
  for (const std::int64_t n : {1, 2, 3, 7, 13, 64, 1000})
    expect_values("prod of many", ht::prod(sample({n, 3}, 0.9, 1.1, 3), {0}),
                  naive::groups(elements(sample({n, 3}, 0.9, 1.1, 3)), {n, 3}, {0}), naive_prod, 1e-13);
  expect_large(
      "prod", prod_of, naive_prod, [](const Shape& shape) { return 1.0 + sample(shape, -1e-3, 1e-3, 4); },
      1e-12);
}

TEST_CASE("prod: derivatives of leave-one-out and leave-two-out products with zeros, by hand") {
  const auto f = [](const Tensor& z) { return ht::prod(z); };
  CHECK(gradient(f, Tensor::from({2.0, 0.0, 3.0})) == Group{0, 6, 0});
  CHECK(gradient(f, Tensor::from({0.0, 0.0, 5.0})) == Group{0, 0, 0});
  CHECK(gradient(f, Tensor::from({0.0, 0.0, 0.0})) == Group{0, 0, 0});
  // d2 / dx_i dx_j summed over j: products without two.
  CHECK(curvature(f, Tensor::from({2.0, 0.0, 3.0})) == Group{3, 5, 2});
  CHECK(curvature(f, Tensor::from({0.0, 0.0, 5.0})) == Group{5, 5, 0});
  CHECK(curvature(f, Tensor::from({0.0, 0.0, 0.0, 7.0})) == Group{0, 0, 0, 0});
  // The third derivative of x y z is 1 for each of six orders, the fourth is 0, exactly.
  const auto along = [](const std::function<Tensor(const Tensor&)>& g) {
    return [g](const Tensor& z) { return ht::jvp(g, z, Tensor::ones(z.shape())).second; };
  };
  const Tensor x = Tensor::from({0.0, 0.0, 0.0});
  CHECK(along(along(along(f)))(x).item() == 6.0);
  CHECK_FALSE(along(along(along(along(f))))(Tensor::from({2.0, 0.0, 3.0})).defined());
}

TEST_CASE("variance: values, ladder, corrections, far from zero") {
  for (const int correction : {0, 1}) {
    const auto reduce = [correction](const Tensor& x, const Axes& axes, bool keep) {
      return ht::variance(x, axes, keep, correction);
    };
    for (const Shape& shape : {Shape{5}, Shape{3, 4}, Shape{2, 3, 4}})
      for (const Axes& axes : naive::subsets(shape.rank())) {
        if (axes.empty()) continue;
        const std::string name = label("variance", shape, axes);
        const Tensor x = uniform(shape);
        expect_values(name, reduce(x, axes, true), naive::groups(elements(x), shape, axes),
                      naive_variance(correction), 1e-14);
        CHECK(reduce(x, axes, true).shape() == naive::kept_shape(shape, axes));
        expect_derivatives(name, [&](const TensorList& at) { return TensorList{reduce(at[0], axes, false)}; },
                           {x});
      }
    // Deviations of 1 from a mean of 1e8: sums of squares minus squared sums would have no digit right.
    const Tensor far = uniform({50}) + 1e8;
    expect_values("variance far from 0", reduce(far, {0}, false), {elements(far)}, naive_variance(correction),
                  1e-13);
  }
  CHECK(elements(ht::variance(uniform({3, 4}), {}, false)) == Group(12, 0.0));
  CHECK(ht::variance(Tensor::from({1.0, 2.0, 4.0, 5.0})).item() == 2.5);
  CHECK(ht::variance(Tensor::zeros({0, 3}), {1}).shape() == Shape{0});
  // torch.var
  CHECK(elements(ht::variance(Tensor::from({1.0, 2.0, 4.0, 0.0, 0.0, 5.0}, {2, 3}), {1}, false, 1))[0] ==
        doctest::Approx(2.333333333333333).epsilon(1e-15));
}

TEST_CASE("logsumexp: values and ladder") {
  expect_reduction("logsumexp", logsumexp_of, naive_logsumexp,
                   [](const Shape& shape) { return uniform(shape); });
  expect_large(
      "logsumexp", logsumexp_of, naive_logsumexp, [](const Shape& shape) { return uniform(shape); }, 1e-13);
  // torch.logsumexp
  const std::vector<double> got =
      elements(ht::logsumexp(Tensor::from({1.0, 2.0, 4.0, 0.0, 0.0, 5.0}, {2, 3}), {1}));
  CHECK(got[0] == doctest::Approx(4.169846019556286).epsilon(1e-15));
  CHECK(got[1] == doctest::Approx(5.013385901721449).epsilon(1e-15));
}

TEST_CASE("logsumexp where exp over- or underflows, and of -inf") {
  const auto f = [](const Tensor& z) { return ht::logsumexp(z, {1}); };
  const Tensor x = Tensor::from({1e300, 1e300, -1e300,  // ties at the top
                                 -1e5, -1e5 - 1, -2e5,  // far below exp's range
                                 -inf, 2.0, -inf,       // one term
                                 -inf, -inf, -inf},     // none
                                {4, 3});
  const std::vector<double> values = elements(f(x));
  CHECK(values[0] == 1e300);
  CHECK(values[1] == doctest::Approx(-1e5 + std::log1p(std::exp(-1.0))).epsilon(1e-15));
  CHECK(values[2] == 2.0);
  CHECK(values[3] == -inf);
  const std::vector<double> g = gradient(f, x), h = curvature(f, x);
  const double p = 1 / (1 + std::exp(-1.0));
  const Group expected{0.5, 0.5, 0, p, 1 - p, 0, 0, 1, 0, 0, 0, 0};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CHECK(g[i] == doctest::Approx(expected[i]).epsilon(1e-15));
    CHECK(std::abs(h[i]) <= 1e-15);  // constant along ones
  }
  const Tensor third =
      ht::jvp(
          [&](const Tensor& z) {
            return ht::hvp([&](const Tensor& y) { return ht::sum(f(y)); }, z, uniform({4, 3}));
          },
          x, uniform({4, 3}, 2))
          .second;
  CHECK_FALSE(ht::has_non_finite(third));

  CHECK(ht::logsumexp(Tensor::from({inf, 1.0})).item() == inf);
  CHECK(std::isnan(gradient([](const Tensor& z) { return ht::logsumexp(z); }, Tensor::from({inf, 1.0}))[0]));
  CHECK(std::isnan(ht::logsumexp(Tensor::from({not_a_number, 1.0})).item()));
  CHECK(std::isnan(ht::logsumexp(Tensor::from({-inf, not_a_number})).item()));
  CHECK(ht::logsumexp(Tensor::zeros({0})).item() == -inf);
  CHECK(elements(ht::logsumexp(Tensor::zeros({2, 0}), {1})) == Group{-inf, -inf});
  CHECK(ht::logsumexp(Tensor::zeros({2, 0}), {0}).shape() == Shape{0});
  const Tensor single = Tensor::full({3}, -inf, Dtype::float32);
  CHECK(ht::logsumexp(single).item() == -inf);
  CHECK(gradient([](const Tensor& z) { return ht::logsumexp(z); }, single) == Group{0, 0, 0});
}

TEST_CASE("norm: values and ladder") {
  expect_reduction("norm", norm_of, naive_norm,
                   [](const Shape& shape) { return sample(shape, -2, 2, 5, 0.0, 0.3); });
  expect_large(
      "norm", norm_of, naive_norm, [](const Shape& shape) { return uniform(shape); }, 1e-13);
  CHECK(ht::norm(Tensor::from({3.0, 4.0})).item() == 5.0);
  CHECK(ht::norm(Tensor::zeros({0})).item() == 0.0);
  CHECK(elements(ht::norm(Tensor::zeros({2, 0}), {1})) == Group{0, 0});
  CHECK(std::isnan(ht::norm(Tensor::from({not_a_number, inf})).item()));
  CHECK(ht::norm(Tensor::from({-inf, 1.0})).item() == inf);
}

TEST_CASE("norm: squares that would overflow or underflow") {
  for (const double scale : {1e200, 1e-200, 1e308, 1e-320}) {
    const double three = 0.75 * scale, four = scale;
    const Tensor x = Tensor::from({three, 0.0, four, 0.0, 1.0, 0.0}, {2, 3});
    const std::vector<double> norms = elements(ht::norm(x, {1}));
    CHECK(norms[0] / scale == doctest::Approx(1.25).epsilon(1e-3 * (scale < 1e-300) + 1e-15));
    CHECK(norms[1] == 1.0);
    CHECK(elements(ht::norm(ht::transpose(x), {0})) == norms);
    if (scale < 1e-300) continue;
    const std::vector<double> g = gradient([](const Tensor& z) { return ht::norm(z, {1}); }, x);
    CHECK(g[0] == doctest::Approx(0.6).epsilon(1e-15));
    CHECK(g[2] == doctest::Approx(0.8).epsilon(1e-15));
  }
  std::vector<float> tiny(1000, 1e-25f);
  CHECK(ht::norm(Tensor::from(tiny, {1000})).item() ==
        doctest::Approx(1e-25 * std::sqrt(1000.0)).epsilon(1e-6));
}

TEST_CASE("norm over a leading axis has the bits of each column among others, huge and tiny ones included") {
  for (const Dtype dtype : {Dtype::float32, Dtype::float64})
    for (const std::int64_t columns : {2, 127, 128, 300}) {
      CAPTURE(columns);
      auto numbers = elements(sample({50, columns}, -2, 2, 3));
      for (std::size_t i = 0; i < 50; ++i) {
        numbers[i * static_cast<std::size_t>(columns)] *= 0x1p120;
        numbers[(i + 1) * static_cast<std::size_t>(columns) - 1] *= 0x1p-120;
      }
      const Tensor x = ladder::converted(Tensor::from(numbers, {50, columns}), dtype);
      const std::vector<double> norms = elements(ht::norm(x, {0}));
      for (std::int64_t j = 0; j + 1 < columns; ++j) {
        const auto pair = elements(ht::norm(ht::slice(x, 1, j, j + 2), {0}));
        REQUIRE(pair[0] == norms[static_cast<std::size_t>(j)]);
        REQUIRE(pair[1] == norms[static_cast<std::size_t>(j) + 1]);
      }
    }
}

TEST_CASE("norm at 0: all derivatives are 0, beside rows that are not") {
  const auto f = [](const Tensor& z) { return ht::norm(z, {1}); };
  const Tensor x = Tensor::from({0.0, 0.0, 3.0, 4.0}, {2, 2});
  const std::vector<double> g = gradient(f, x);
  CHECK(g[0] == 0.0);
  CHECK(g[1] == 0.0);
  CHECK(g[2] == doctest::Approx(0.6).epsilon(1e-15));
  const Tensor v = uniform({2, 2}), w = uniform({2, 2}, 2);
  const auto total = [&](const Tensor& z) { return ht::sum(f(z)); };
  const auto second = [&](const Tensor& z) { return ht::hvp(total, z, v); };
  const Tensor h = second(x), third = ht::jvp(second, x, w).second,
               reverse = ht::grad([&](const Tensor&z) { return ht::dot(second(z), w); }, x);
  for (const Tensor& derivative : {h, third, reverse}) {
    CHECK_FALSE(ht::has_non_finite(derivative));
    CHECK(elements(derivative)[0] == 0.0);
    CHECK(elements(derivative)[1] == 0.0);
    CHECK(elements(derivative)[2] != 0.0);
  }
  CHECK(elements(ht::jvp(f, x, v).second)[0] == 0.0);
}

TEST_CASE("empty products are 1, extremes of nothing are refused") {
  CHECK(ht::prod(Tensor::zeros({0})).item() == 1.0);
  CHECK(elements(ht::prod(Tensor::zeros({2, 0}), {1})) == Group{1, 1});
  CHECK(ht::prod(Tensor::zeros({2, 0}), {0}).shape() == Shape{0});
  CHECK(ht::max(Tensor::zeros({0, 3}), {1}).shape() == Shape{0});
  expect_text(thrown([] { ht::max(Tensor::zeros({0, 3}), {0}); }), "[max] of no elements: shape (0, 3)");
  expect_text(thrown([] { ht::min(Tensor::zeros({0})); }), "[min] of no elements: shape (0)");
  expect_text(thrown([] { ht::argmax(Tensor::zeros({2, 0}), 1); }), "[argmax] of no elements");
  expect_text(thrown([] { ht::argmin(Tensor::zeros({0})); }), "[argmin] of no elements");
}

TEST_CASE("reductions refuse absent operands, other dtypes and wrong axes by name") {
  const Tensor no, integers_only = Tensor::zeros({2, 3}, Dtype::int64), x = Tensor::ones({2, 3}),
                   booleans = Tensor::zeros({2, 3}, Dtype::boolean);
  using Call = std::function<void(const Tensor&, std::int64_t)>;
  const std::pair<const char*, Call> calls[] = {
      {"max", [](const Tensor& z, std::int64_t a) { ht::max(z, {a}); }},
      {"min", [](const Tensor& z, std::int64_t a) { ht::min(z, {a}); }},
      {"prod", [](const Tensor& z, std::int64_t a) { ht::prod(z, {a}); }},
      {"variance", [](const Tensor& z, std::int64_t a) { ht::variance(z, {a}); }},
      {"logsumexp", [](const Tensor& z, std::int64_t a) { ht::logsumexp(z, {a}); }},
      {"norm", [](const Tensor& z, std::int64_t a) { ht::norm(z, {a}); }},
      {"argmax", [](const Tensor& z, std::int64_t a) { ht::argmax(z, a); }},
      {"argmin", [](const Tensor& z, std::int64_t a) { ht::argmin(z, a); }},
      {"cumulative_sum", [](const Tensor& z, std::int64_t a) { ht::cumulative_sum(z, a); }}};
  for (const auto& [name, call] : calls) {
    const std::string op = "[" + std::string(name) + "]";
    expect_text(thrown([&, &call = call] { call(no, 0); }), op + " operand is absent");
    expect_text(thrown([&, &call = call] { call(integers_only, 0); }),
                op + " needs float32 or float64, not int64");
    expect_text(thrown([&, &call = call] { call(booleans, 0); }),
                op + " needs float32 or float64, not boolean");
    for (const std::int64_t axis : {2, -3}) {
      expect_text(thrown([&, &call = call] { call(x, axis); }), op);
      expect_text(thrown([&, &call = call] { call(x, axis); }), "axis " + std::to_string(axis));
    }
  }
  const std::pair<const char*, std::function<void(const Tensor&)>> whole[] = {
      {"max", [](const Tensor& z) { ht::max(z); }},
      {"min", [](const Tensor& z) { ht::min(z); }},
      {"prod", [](const Tensor& z) { ht::prod(z); }},
      {"variance", [](const Tensor& z) { ht::variance(z); }},
      {"norm", [](const Tensor& z) { ht::norm(z); }},
      {"logsumexp", [](const Tensor& z) { ht::logsumexp(z); }},
      {"argmax", [](const Tensor& z) { ht::argmax(z); }},
      {"argmin", [](const Tensor& z) { ht::argmin(z); }}};
  for (const auto& [name, call] : whole) {
    expect_text(thrown([&, &call = call] { call(no); }), "[" + std::string(name) + "] operand is absent");
    expect_text(thrown([&, &call = call] { call(integers_only); }),
                "[" + std::string(name) + "] needs float32 or float64");
  }
  for (const auto& [name, call] : {std::pair<const char*, std::function<void(const Tensor&)>>{
                                       "any", [](const Tensor& z) { ht::any(z, {0}); }},
                                   {"all", [](const Tensor& z) { ht::all(z, {0}); }},
                                   {"count", [](const Tensor& z) { ht::count(z, {0}); }}}) {
    expect_text(thrown([&, &call = call] { call(no); }), "[" + std::string(name) + "] operand is absent");
    expect_text(thrown([&, &call = call] { call(x); }),
                "[" + std::string(name) + "] needs a boolean tensor, not float64");
  }
  expect_text(thrown([&] { ht::max(x, {1, -1}); }), "[max] axis -1 is named twice for shape (2, 3)");
  expect_text(thrown([&] { ht::any(booleans, {0, 0}); }), "[any] axis 0 is named twice");
  expect_text(thrown([&] { ht::variance(x, {0}, false, 2); }),
              "[variance] needs a correction from 0 to one less than the 2 elements");
  expect_text(thrown([&] { ht::variance(x, {0}, false, -1); }), "not -1");
  expect_text(thrown([] { ht::variance(Tensor::zeros({0})); }), "[variance]");
}
