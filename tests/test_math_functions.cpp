// scalar_functions.h and scalar_angles.h against long double libm, in ulp, and against the values C defines
// at special points.
#include "core/elementwise/scalar_angles.h"

#include <doctest/doctest.h>

#include "ulp.h"

namespace math = hypertape::math;
using namespace ulp;

namespace {

template <class T, class Function, class Reference>
void expect_within(double bound, const std::vector<T>& points, Function function, Reference reference) {
  const WorstError worst = worst_error(points, function, reference);
  CAPTURE(worst.at);
  CHECK(worst.ulp <= bound);
}

/// Pairs: all of the special points with each other, and random ones.
template <class T>
std::vector<std::pair<T, T>> test_pairs(double low, double high, double low2, double high2) {
  std::vector<std::pair<T, T>> pairs;
  const T some[] = {T(0),
                    T(1),
                    T(2),
                    T(3),
                    T(0.5),
                    T(1.5),
                    T(2.5),
                    std::nextafter(T(1), T(0)),
                    std::nextafter(T(1), T(2)),
                    Limits<T>::min(),
                    Limits<T>::denorm_min(),
                    Limits<T>::max(),
                    infinity<T>,
                    T(1e7),
                    Limits<T>::quiet_NaN()};
  for (const T a : some)
    for (const T b : some)
      for (const T s : {T(1), T(-1)})
        for (const T t : {T(1), T(-1)}) pairs.emplace_back(s * a, t * b);
  std::mt19937_64 generator(21);
  std::uniform_real_distribution<double> first(low, high), second(low2, high2);
  for (int i = 0; i < 200'000; ++i)
    pairs.emplace_back(static_cast<T>(first(generator)), static_cast<T>(second(generator)));
  for (int i = 0; i < 50'000; ++i)
    pairs.emplace_back(std::bit_cast<T>(static_cast<BitsOf<T>>(generator())),
                       std::bit_cast<T>(static_cast<BitsOf<T>>(generator())));
  return pairs;
}

template <class T, class Function, class Reference>
void expect_pairs_within(double bound, const std::vector<std::pair<T, T>>& pairs, Function function,
                         Reference reference) {
  double worst = 0.0;
  std::pair<T, T> at;
  for (const auto& [a, b] : pairs) {
    const double error =
        ulp_error(function(a, b), reference(static_cast<long double>(a), static_cast<long double>(b)));
    if (error > worst) {
      worst = error;
      at = {a, b};
    }
  }
  CAPTURE(at.first);
  CAPTURE(at.second);
  CHECK(worst <= bound);
}

// What T gets from formulas of its own, and from double rounded once.
template <class T>
constexpr double own_or_rounded(double own) {
  return sizeof(T) == 8 ? own : 0.51;
}

}  // namespace

TEST_CASE_TEMPLATE("expm1 and log1p are within 1.25 and 1 ulp, relative however small x is", T, float,
                   double) {
  const auto expm1 = [](T x) { return math::expm1(x); };
  const auto log1p = [](T x) { return math::log1p(x); };
  for (const double width : {sizeof(T) == 8 ? 750.0 : 106.0, 50.0, 2.0, 0.4, 1e-3, 1e-9, 1e-30})
    expect_within(1.25, test_points<T>(-width, width), expm1, [](long double x) { return std::expm1(x); });
  for (const double width : {1e30, 100.0, 3.0, 0.5, 1e-3, 1e-9, 1e-30})
    expect_within(1.0, test_points<T>(-std::min(width, 1.0), width), log1p,
                  [](long double x) { return x < -1.0L ? std::nanl("") : std::log1p(x); });
  for (const T zero : {T(0), -T(0)}) {
    CHECK(same_bits(math::expm1(zero), zero));
    CHECK(same_bits(math::log1p(zero), zero));
  }
  CHECK(math::expm1(-infinity<T>) == T(-1));
  CHECK(math::log1p(T(-1)) == -infinity<T>);
  CHECK(std::isnan(math::log1p(std::nextafter(T(-1), T(-2)))));
  CHECK(math::log1p(infinity<T>) == infinity<T>);
}

TEST_CASE_TEMPLATE("floor and round are exact, halves to even", T, float, double) {
  for (const double width : {10.0, 1e6, 1e17})
    for (const T x : test_points<T>(-width, width)) {
      if (std::isnan(x)) continue;
      if (same_bits(math::floor(x), std::floor(x)) && same_bits(math::round(x), std::nearbyint(x))) continue;
      FAIL("floor or round of " << x << ": " << math::floor(x) << ", " << math::round(x));
    }
  for (const double half : {-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5})
    CHECK(same_bits(math::round(T(half)), static_cast<T>(std::nearbyint(half))));
  CHECK(std::isnan(math::floor(Limits<T>::quiet_NaN())));
  CHECK(std::isnan(math::round(Limits<T>::quiet_NaN())));
}

TEST_CASE_TEMPLATE("rsqrt, sigmoid and softplus keep their relative accuracy in both tails", T, float,
                   double) {
  expect_within(
      1.5, test_points<T>(0.0, 100.0), [](T x) { return math::rsqrt(x); },
      [](long double x) { return x == 0  ? 1 / x
                                 : x < 0 ? std::nanl("")
                                         : 1 / std::sqrt(x); });
  for (const double width : {sizeof(T) == 8 ? 760.0 : 110.0, 20.0, 1.0}) {
    const std::vector<T> points = test_points<T>(-width, width);
    expect_within(
        2.5, points, [](T x) { return math::sigmoid(x); },
        [](long double x) { return 1 / (1 + std::exp(-x)); });
    expect_within(
        4.5, points, [](T x) { return math::sigmoid_slope(x); },
        [](long double x) {
          const long double e = std::exp(-std::abs(x));
          return e / ((1 + e) * (1 + e));
        });
    expect_within(
        1.7, points, [](T x) { return math::softplus(x); },
        [](long double x) {
          return (x > 0 ? x : x != x ? x : 0) + std::log1p(std::exp(-std::abs(x)));
        });
  }
}

TEST_CASE_TEMPLATE("pow is within 0.75 ulp and exact where it can be", T, float, double) {
  const auto pow = [](T x, T y) { return math::pow(x, y); };
  const auto reference = [](long double x, long double y) { return std::pow(x, y); };
  const double bound = own_or_rounded<T>(0.75);
  const double end = sizeof(T) == 8 ? 300.0 : 37.0;
  expect_pairs_within(bound, test_pairs<T>(0.0, 4.0, -5.0, 5.0), pow, reference);
  expect_pairs_within(bound, test_pairs<T>(0.0, 10.0, -end, end), pow, reference);
  expect_pairs_within(bound, test_pairs<T>(0.99, 1.01, -7e4, 7e4), pow, reference);
  for (int x = 1; x <= 200; ++x) {
    const auto base = static_cast<T>(x);
    CHECK(math::pow(base, T(2)) == base * base);
    CHECK(math::pow(-base, T(3)) == -(base * base * base));
    CHECK(math::pow(base * base, T(0.5)) == base);
    CHECK(math::pow(base, T(1)) == base);
    CHECK(math::pow(T(2), T(x - 100)) == std::ldexp(T(1), x - 100));
  }
}

TEST_CASE_TEMPLATE("pow has C's special values", T, float, double) {
  const T nan = Limits<T>::quiet_NaN(), inf = infinity<T>, huge = Limits<T>::max();
  const T values[] = {T(0),    -T(0),  T(1),    T(-1), T(2), T(-2), T(3),  T(-3), T(0.5),
                      T(-0.5), T(1.5), T(-1.5), inf,   -inf, huge,  -huge, nan,   T(5e6) + T(1)};
  for (const T x : values)
    for (const T y : values) {
      const T got = math::pow(x, y), expected = std::pow(x, y);
      INFO("x = " << x << ", y = " << y << ": " << got << " for " << expected);
      CHECK((same_bits(got, expected) || (std::isnan(got) && std::isnan(expected)) ||
             std::abs(got - expected) <= Limits<T>::epsilon() * std::abs(expected)));
    }
}

TEST_CASE_TEMPLATE("sin and cos are within 0.85 ulp up to 2^30, NaN beyond", T, float, double) {
  const double bound = own_or_rounded<T>(0.85);
  const auto inside = [](std::vector<T> points) {
    std::erase_if(points, [](T x) { return math::abs(x) > T(0x1p30); });
    return points;
  };
  for (const double width : {1.0, 10.0, 1e3, 1e6, 0x1p30}) {
    const std::vector<T> points = inside(test_points<T>(-width, width));
    expect_within(
        bound, points, [](T x) { return math::sin(x); }, [](long double x) { return std::sin(x); });
    expect_within(
        bound, points, [](T x) { return math::cos(x); }, [](long double x) { return std::cos(x); });
  }
  // Where the results are smallest: the floats nearest to multiples of pi/2.
  std::vector<T> nearest;
  for (long double k = 1; k < 0x1p29L; k = std::floor(k * 1.0005L) + 1)
    nearest.push_back(static_cast<T>(k * std::acos(-1.0L) / 2));
  nearest = inside(nearest);
  expect_within(
      bound, nearest, [](T x) { return math::sin(x); }, [](long double x) { return std::sin(x); });
  expect_within(
      bound, nearest, [](T x) { return math::cos(x); }, [](long double x) { return std::cos(x); });
  CHECK(same_bits(math::sin(-T(0)), -T(0)));
  for (const T x : {infinity<T>, -infinity<T>, Limits<T>::max(), T(0x1p31), Limits<T>::quiet_NaN()}) {
    CHECK(std::isnan(math::sin(x)));
    CHECK(std::isnan(math::cos(x)));
  }
}

TEST_CASE_TEMPLATE("atan2 is within 1.75 ulp in every direction, zeros and infinities as in C", T, float,
                   double) {
  const auto atan2 = [](T y, T x) { return math::atan2(y, x); };
  const auto reference = [](long double y, long double x) { return std::atan2(y, x); };
  const double bound = own_or_rounded<T>(1.75);
  expect_pairs_within(bound, test_pairs<T>(-1, 1, -1, 1), atan2, reference);
  expect_pairs_within(bound, test_pairs<T>(-1e-3, 1e-3, -1, 1), atan2, reference);
  expect_pairs_within(bound, test_pairs<T>(0.99, 1.01, -1.01, 1.01), atan2, reference);
  for (const T y : {T(0), -T(0)})
    for (const T x : {T(0), -T(0), T(1), T(-1), infinity<T>, -infinity<T>})
      CHECK(same_bits(math::atan2(y, x), std::atan2(y, x)));
}

TEST_CASE_TEMPLATE("erf and the normal distribution, its lower tail relative", T, float, double) {
  for (const double width : {30.0, 7.0, 1.1, 0.1, 1e-10})
    expect_within(
        1.5, test_points<T>(-width, width), [](T x) { return math::erf(x); },
        [](long double x) { return std::erf(x); });
  CHECK(same_bits(math::erf(-T(0)), -T(0)));
  const auto cdf = [](long double x) { return std::erfc(-x / std::sqrt(2.0L)) / 2; };
  for (const double width : {37.0, 10.0, 1.0})
    expect_within(
        sizeof(T) == 4 ? 6.5 : 6.0, test_points<T>(-width, width), [](T x) { return math::normal_cdf(x); },
        // Long double's own argument error is magnified in the far tail that random bits reach.
        [&](long double x) { return x < -40 ? 0.0L : cdf(x); });
  expect_within(
      2.5, test_points<T>(-38.0, 38.0), [](T x) { return math::normal_density(x); },
      [](long double x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0L)); });
}

TEST_CASE_TEMPLATE("gelu is x times the normal distribution, zeros and infinities included", T, float,
                   double) {
  // Below, the probability is a denormal number, whose product with x has its absolute error only.
  const T normal = sizeof(T) == 4 ? T(-12.8) : T(-37);
  for (const double width : {37.0, 10.0, 1.0, 1e-10}) {
    std::vector<T> points = test_points<T>(-width, width);
    std::erase_if(points, [&](T x) { return x < normal; });
    expect_within(
        sizeof(T) == 4 ? 6.8 : 6.3, points, [](T x) { return math::gelu(x); },
        [](long double x) { return x * (std::erfc(-x / std::sqrt(2.0L)) / 2); });
  }
  for (const T x :
       {sizeof(T) == 4 ? T(-13) : T(-37.5), sizeof(T) == 4 ? T(-14.4) : T(-38.5), T(-39), T(-1e30)}) {
    const long double wide = x, expected = wide * std::erfc(-wide / std::sqrt(2.0L)) / 2;
    CHECK(std::abs(math::gelu(x) - expected) <= 100 * Limits<T>::denorm_min());
  }
  CHECK(same_bits(math::gelu(-T(0)), -T(0)));
  CHECK(same_bits(math::gelu(T(0)), T(0)));
  CHECK(math::gelu(infinity<T>) == infinity<T>);
  CHECK(same_bits(math::gelu(-infinity<T>), -T(0)));
  CHECK(same_bits(math::gelu(T(-50)), -T(0)));
  CHECK(math::gelu(Limits<T>::max()) == Limits<T>::max());
}

TEST_CASE_TEMPLATE("NaNs of every kind stay", T, float, double) {
  using Bits = math::detail::Bits<T>;
  const T quiet = Limits<T>::quiet_NaN();
  for (const Bits payload : {Bits(0), Bits(1), Bits(0x155), Bits(0x3ff)})
    for (const T sign : {T(1), T(-1)}) {
      const T nan = std::copysign(math::detail::from_bits<T>(math::detail::to_bits(quiet) | payload), sign);
      CAPTURE(payload);
      CHECK(std::isnan(math::erf(nan)));
      CHECK(std::isnan(math::normal_cdf(nan)));
      CHECK(std::isnan(math::normal_density(nan)));
      CHECK(std::isnan(math::gelu(nan)));
      CHECK(std::isnan(math::exp(nan)));
      CHECK(std::isnan(math::sigmoid(nan)));
      CHECK(std::isnan(math::pow(nan, T(2))));
      CHECK(std::isnan(math::pow(T(2), nan)));
    }
}

TEST_CASE_TEMPLATE("vector body and scalar tail of the further functions give the same bits", T, float,
                   double) {
  const std::vector<T> x = test_points<T>(-30.0, 30.0);
  const auto expect = [&](const char* name, auto function) {
    std::vector<T> vector(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) vector[i] = function(x[i]);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const volatile T one = x[i];
      const T scalar = function(T(one));
      INFO(std::string(name) << " at " << x[i]);
      REQUIRE((same_bits(vector[i], scalar) || (std::isnan(vector[i]) && std::isnan(scalar))));
    }
  };
  expect("expm1", [](T a) { return math::expm1(a); });
  expect("log1p", [](T a) { return math::log1p(a); });
  expect("floor", [](T a) { return math::floor(a); });
  expect("sigmoid", [](T a) { return math::sigmoid(a); });
  expect("softplus", [](T a) { return math::softplus(a); });
  expect("pow", [](T a) { return math::pow(math::abs(a), a); });
  expect("sin", [](T a) { return math::sin(a); });
  expect("cos", [](T a) { return math::cos(a); });
  expect("atan2", [](T a) { return math::atan2(a, T(3) - a); });
  expect("erf", [](T a) { return math::erf(a); });
  expect("normal_cdf", [](T a) { return math::normal_cdf(a); });
  expect("gelu", [](T a) { return math::gelu(a); });
}
