// ctest labels: kernels
//
// Random numbers: Philox by its published test vectors, distributions by z-tests at fixed seeds.
#include <hypertape/core/random.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include "ladder.h"

namespace ht = hypertape;
using ht::Distribution;
using ht::Dtype;
using ht::Shape;
using ht::Tensor;
using ladder::elements;
using ladder::same_bits;

namespace {

struct Moments {
  double mean = 0, variance = 0, skewness = 0, kurtosis = 0;
};

Moments moments(const std::vector<double>& x) {
  long double sums[4] = {};
  const auto n = static_cast<long double>(x.size());
  for (const double value : x) sums[0] += value / n;
  for (const double value : x) {
    const long double d = value - sums[0];
    sums[1] += d * d / n;
    sums[2] += d * d * d / n;
    sums[3] += d * d * d * d / n;
  }
  return {static_cast<double>(sums[0]), static_cast<double>(sums[1]),
          static_cast<double>(sums[2] / std::pow(sums[1], 1.5L)),
          static_cast<double>(sums[3] / (sums[1] * sums[1]))};
}

constexpr std::int64_t count = 200'000;

void expect_z(double measured, double expected, double deviation) {
  const double z = (measured - expected) / deviation;
  CHECK_MESSAGE(std::abs(z) < 4.5, measured << " for " << expected << ": z = " << z);
}

}  // namespace

TEST_CASE("Philox4x32-10 gives the known answers of Random123") {
  using Words = std::array<std::uint32_t, 4>;
  // kat_vectors of Random123 1.14, philox4x32 10.
  CHECK(ht::philox({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(ht::philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(ht::philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a value depends on seed, stream, step and index, and on nothing else") {
  const ht::Key key{42, 3, 7};
  for (const Distribution distribution :
       {Distribution::uniform, Distribution::normal, Distribution::rademacher}) {
    const Tensor x = ht::random({100}, distribution, key);
    CHECK(same_bits(x, ht::random({100}, distribution, key)));
    CHECK(same_bits(ht::reshape(ht::random({4, 5, 5}, distribution, key), {100}), x));
    CHECK(same_bits(ht::slice(ht::random({100'000}, distribution, key), 0, 0, 100), x));
    const ht::Key others[] = {{43, 3, 7},
                              {42, 4, 7},
                              {42, 3, 8},
                              {42 + (std::uint64_t{1} << 32), 3, 7},
                              {42, 3, 7 + (std::uint64_t{1} << 32)},
                              {3, 42, 7},
                              {7, 3, 42}};
    for (const ht::Key& other : others) CHECK_FALSE(same_bits(ht::random({100}, distribution, other), x));
    Tensor on_one, on_two;
    {
      const ladder::Threads one(1);
      on_one = ht::random({300'000}, distribution, key);
    }
    {
      const ladder::Threads two(2);
      on_two = ht::random({300'000}, distribution, key);
    }
    CHECK(same_bits(on_one, on_two));
    CHECK(ht::random({0}, distribution, key).size() == 0);
    CHECK(ht::random({}, distribution, key).rank() == 0);
  }
}

TEST_CASE("uniform numbers: range, first moments, and no correlation with the neighbour") {
  for (const Dtype dtype : {Dtype::float64, Dtype::float32}) {
    const std::vector<double> x = elements(ht::random({count}, Distribution::uniform, {1}, dtype));
    const auto [low, high] = std::minmax_element(x.begin(), x.end());
    CHECK(*low >= 0.0);
    CHECK(*high < 1.0);
    const Moments m = moments(x);
    const double n = static_cast<double>(count);
    expect_z(m.mean, 0.5, std::sqrt(1.0 / 12 / n));
    expect_z(m.variance, 1.0 / 12, std::sqrt(1.0 / 180 / n));
    double product = 0;
    for (std::size_t i = 1; i < x.size(); ++i) product += (x[i] - 0.5) * (x[i - 1] - 0.5) / n;
    expect_z(product, 0, 1.0 / 12 / std::sqrt(n));
    // Chi-squared of 256 bins: 255 +- sqrt(510).
    std::vector<double> bins(256);
    for (const double value : x) ++bins[static_cast<std::size_t>(value * 256)];
    double chi = 0;
    for (const double bin : bins) chi += (bin - n / 256) * (bin - n / 256) / (n / 256);
    expect_z(chi, 255, std::sqrt(510.0));
  }
}

TEST_CASE("normal numbers: four moments and the tails") {
  for (const Dtype dtype : {Dtype::float64, Dtype::float32}) {
    const std::vector<double> x = elements(ht::random({count}, Distribution::normal, {2}, dtype));
    const Moments m = moments(x);
    const double n = static_cast<double>(count);
    expect_z(m.mean, 0, 1 / std::sqrt(n));
    expect_z(m.variance, 1, std::sqrt(2 / n));
    expect_z(m.skewness, 0, std::sqrt(6 / n));
    expect_z(m.kurtosis, 3, std::sqrt(24 / n));
    const double beyond =
        static_cast<double>(std::count_if(x.begin(), x.end(), [](double v) { return std::abs(v) > 2; }));
    const double p = std::erfc(std::sqrt(2.0));
    expect_z(beyond, n * p, std::sqrt(n * p * (1 - p)));
    for (const double value : x) REQUIRE(std::isfinite(value));
  }
}

TEST_CASE("rademacher numbers are -1 or 1, half each") {
  const std::vector<double> x = elements(ht::random({count}, Distribution::rademacher, {3}));
  for (const double value : x) REQUIRE(std::abs(value) == 1.0);
  expect_z(moments(x).mean, 0, 1 / std::sqrt(static_cast<double>(count)));
}

TEST_CASE("streams and steps are independent of each other") {
  const std::vector<double> a = elements(ht::random({count}, Distribution::normal, {5, 0, 0})),
                            b = elements(ht::random({count}, Distribution::normal, {5, 1, 0})),
                            c = elements(ht::random({count}, Distribution::normal, {5, 0, 1}));
  double ab = 0, ac = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += a[i] * b[i];
    ac += a[i] * c[i];
  }
  expect_z(ab, 0, std::sqrt(static_cast<double>(count)));
  expect_z(ac, 0, std::sqrt(static_cast<double>(count)));
}

TEST_CASE("random_permutation permutes, differently for each key, and without favourites") {
  for (const std::int64_t size : {std::int64_t{0}, std::int64_t{1}, std::int64_t{2}, std::int64_t{1000}}) {
    std::vector<std::int64_t> order = ht::random_permutation(size, {7}).to_vector<std::int64_t>();
    std::sort(order.begin(), order.end());
    for (std::int64_t i = 0; i < size; ++i) CHECK(order[static_cast<std::size_t>(i)] == i);
  }
  const Tensor first = ht::random_permutation(1000, {7});
  CHECK(same_bits(first, ht::random_permutation(1000, {7})));
  CHECK_FALSE(same_bits(first, ht::random_permutation(1000, {8})));
  CHECK_FALSE(same_bits(first, ht::random_permutation(1000, {7, 1})));
  CHECK_FALSE(same_bits(first, ht::random_permutation(1000, {7, 0, 1})));
  // All 24 orders of four, equally often: chi-squared of 23 degrees of freedom.
  std::vector<double> seen(256);
  constexpr int draws = 24'000;
  for (int step = 0; step < draws; ++step) {
    const std::vector<std::int64_t> p =
        ht::random_permutation(4, {9, 0, static_cast<std::uint64_t>(step)}).to_vector<std::int64_t>();
    ++seen[static_cast<std::size_t>(p[0] * 64 + p[1] * 16 + p[2] * 4 + p[3])];
  }
  double chi = 0;
  int orders = 0;
  for (const double times : seen) {
    if (times == 0) continue;
    ++orders;
    chi += (times - draws / 24) * (times - draws / 24) / (draws / 24);
  }
  CHECK(orders == 24);
  expect_z(chi, 23, std::sqrt(46.0));
}

TEST_CASE("random refuses integer tensors and negative sizes") {
  const auto message = [](const std::function<void()>& call) -> std::string {
    try {
      call();
    } catch (const ht::Error& error) {
      return error.what();
    }
    return "nothing thrown";
  };
  CHECK(message([] { ht::random({2}, Distribution::normal, {}, Dtype::int64); }).find("[random]") == 0);
  CHECK(message([] { ht::random_permutation(-1, {}); }).find("[random_permutation]") == 0);
}
