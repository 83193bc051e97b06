// ctest labels: kernels
//
// The scalar functions against long double libm, in ulp, and dual numbers against formulas worked by hand.
#include "core/elementwise/scalar_math.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "core/elementwise/dual.h"
#include "ulp.h"

namespace math = hypertape::math;
using hypertape::Dual;
using namespace ulp;

namespace {

/// A body as ops write them: constants as scalar_of<T>, functions as math::.
template <class T>
T body(T x) {
  using S = math::scalar_of<T>;
  const T softened = math::sqrt(math::square(x) + S(0.5));
  return S(2) * math::tanh(x) / (S(1) + math::exp(-x)) + math::log(softened) * x -
         math::where_positive(x, math::abs(x), T(3)) / S(4);
}

/// A number in a class, with nothing but operators and functions that ADL finds: a tensor's part in
/// Dual<Tensor>.
struct Boxed {
  double number;
};
Boxed operator+(Boxed a, Boxed b) { return {a.number + b.number}; }
Boxed operator-(Boxed a, Boxed b) { return {a.number - b.number}; }
Boxed operator*(Boxed a, Boxed b) { return {a.number * b.number}; }
Boxed operator/(Boxed a, Boxed b) { return {a.number / b.number}; }
Boxed operator-(Boxed a) { return {-a.number}; }
Boxed operator*(double c, Boxed a) { return {c * a.number}; }
Boxed operator+(double c, Boxed a) { return {c + a.number}; }
Boxed operator-(double c, Boxed a) { return {c - a.number}; }
Boxed exp(const Boxed& a) { return {math::exp(a.number)}; }
Boxed tanh(const Boxed& a) { return {math::tanh(a.number)}; }
Boxed abs(const Boxed& a) { return {math::abs(a.number)}; }
Boxed sign(const Boxed& a) { return {math::sign(a.number)}; }
Boxed zeros_like(const Boxed&) { return {0.0}; }

}  // namespace

TEST_CASE_TEMPLATE("exp is within 1 ulp and right at its ends", T, float, double) {
  const double end = sizeof(T) == 8 ? 750.0 : 106.0;
  const auto function = [](T x) { return math::exp(x); };
  const auto reference = [](long double x) { return std::exp(x); };
  for (const double width : {end, 20.0, 1.0}) {
    const WorstError worst = worst_error(test_points<T>(-width, width), function, reference);
    CAPTURE(worst.at);
    CHECK(worst.ulp <= 1.0);
  }
  CHECK(same_bits(math::exp(T(0)), T(1)));
  CHECK(same_bits(math::exp(-T(0)), T(1)));
  CHECK(math::exp(infinity<T>) == infinity<T>);
  CHECK(same_bits(math::exp(-infinity<T>), T(0)));
  CHECK(std::isnan(math::exp(Limits<T>::quiet_NaN())));
}

TEST_CASE_TEMPLATE("exp underflows gradually", T, float, double) {
  const double normal_end = std::log(static_cast<double>(Limits<T>::min()));
  const double denormal_end =
      std::log(static_cast<double>(Limits<T>::min())) - Limits<T>::digits * std::log(2.0);
  std::vector<T> points;
  for (int i = 0; i <= 50'000; ++i)
    points.push_back(static_cast<T>(denormal_end + (normal_end - denormal_end) * i / 50'000));
  const WorstError worst = worst_error(
      points, [](T x) { return math::exp(x); }, [](long double x) { return std::exp(x); });
  CAPTURE(worst.at);
  CHECK(worst.ulp <= 1.0);
  CHECK(math::exp(static_cast<T>(normal_end - 2.0)) > T(0));
}

TEST_CASE_TEMPLATE("log is within 1 ulp, denormals included", T, float, double) {
  const auto function = [](T x) { return math::log(x); };
  const auto reference = [](long double x) { return x < 0.0L ? std::nanl("") : std::log(x); };
  for (const double width : {1e30, 100.0, 1.0}) {
    const WorstError worst = worst_error(test_points<T>(0.0, width), function, reference);
    CAPTURE(worst.at);
    CHECK(worst.ulp <= 1.0);
  }
  const WorstError around_one = worst_error(test_points<T>(0.99, 1.01), function, reference);
  CHECK(around_one.ulp <= 1.0);
  const double denormals = static_cast<double>(Limits<T>::min());
  CHECK(worst_error(test_points<T>(0.0, denormals), function, reference).ulp <= 1.0);

  CHECK(same_bits(math::log(T(1)), T(0)));
  CHECK(math::log(T(0)) == -infinity<T>);
  CHECK(math::log(-T(0)) == -infinity<T>);
  CHECK(math::log(infinity<T>) == infinity<T>);
  CHECK(std::isnan(math::log(T(-1))));
  CHECK(std::isnan(math::log(-Limits<T>::denorm_min())));
  CHECK(std::isnan(math::log(-infinity<T>)));
  CHECK(std::isnan(math::log(Limits<T>::quiet_NaN())));
}

TEST_CASE_TEMPLATE("tanh is within 2 ulp, relative error for small x too", T, float, double) {
  const auto function = [](T x) { return math::tanh(x); };
  const auto reference = [](long double x) { return std::tanh(x); };
  for (const double width : {25.0, 2.0, 0.7, 1e-3, 1e-30}) {
    const WorstError worst = worst_error(test_points<T>(-width, width), function, reference);
    CAPTURE(worst.at);
    CHECK(worst.ulp <= 2.0);
  }
  CHECK(same_bits(math::tanh(T(0)), T(0)));
  CHECK(same_bits(math::tanh(-T(0)), -T(0)));
  CHECK(same_bits(math::tanh(infinity<T>), T(1)));
  CHECK(same_bits(math::tanh(-infinity<T>), T(-1)));
  CHECK(same_bits(math::tanh(Limits<T>::denorm_min()), Limits<T>::denorm_min()));
  CHECK(std::isnan(math::tanh(Limits<T>::quiet_NaN())));
  for (const T x : test_points<T>(-10.0, 10.0)) {
    if (std::isnan(x)) continue;
    if (math::abs(math::tanh(x)) <= T(1) && same_bits(math::tanh(-x), -math::tanh(x))) continue;
    FAIL_CHECK("tanh is not odd or leaves [-1, 1] at x = " << x);
  }
}

TEST_CASE_TEMPLATE("values do not fall where a formula changes hands", T, float, double) {
  const auto below = [](double x) {
    T point = static_cast<T>(x);
    for (int i = 0; i < 500; ++i) point = std::nextafter(point, -infinity<T>);
    return point;
  };
  const double half_ln2 = 0.5 * std::log(2.0);
  for (const double x : {half_ln2, -half_ln2, 3.0 * half_ln2, 1.0})
    CHECK(nondecreasing(below(x), 1000, [](T y) { return math::exp(y); }));
  for (const double x : {1.0, 2.0, std::sqrt(0.5), std::sqrt(2.0), static_cast<double>(Limits<T>::min())})
    CHECK(nondecreasing(below(x), 1000, [](T y) { return math::log(y); }));
  // Half an ulp of 1 is where tanh is flat to the last place, so that one step back is rounding, not a wrong
  // formula.
  CHECK(math::tanh(below(0.625)) < math::tanh(T(0.625)));
  CHECK(math::tanh(T(sizeof(T) == 8 ? 20.5 : 10.5)) == T(1));
}

TEST_CASE_TEMPLATE("selections, signs and exact functions", T, float, double) {
  const T nan = Limits<T>::quiet_NaN();
  CHECK(same_bits(math::abs(-T(0)), T(0)));
  CHECK(math::abs(-infinity<T>) == infinity<T>);
  CHECK(math::sign(T(-3)) == T(-1));
  CHECK(math::sign(T(3)) == T(1));
  CHECK(math::sign(T(0)) == T(0));
  CHECK(std::isnan(math::sign(nan)));
  CHECK(same_bits(math::copysign(T(2), -T(0)), T(-2)));
  CHECK(math::max(T(1), T(2)) == T(2));
  CHECK(math::min(T(1), T(2)) == T(1));
  for (const bool first : {true, false}) {
    CHECK(std::isnan(math::max(first ? nan : T(1), first ? T(1) : nan)));
    CHECK(std::isnan(math::min(first ? nan : T(1), first ? T(1) : nan)));
  }
  CHECK(math::where_positive(T(0), T(1), T(2)) == T(2));
  CHECK(math::where_positive(Limits<T>::denorm_min(), T(1), T(2)) == T(1));
  CHECK(math::where_positive(nan, T(1), T(2)) == T(2));
  CHECK(math::select(true, T(1), T(2)) == T(1));
  CHECK(math::square(T(-3)) == T(9));
  for (const T x : test_points<T>(0.0, 100.0))
    if (x >= T(0)) REQUIRE(same_bits(math::sqrt(x), std::sqrt(x)));
}

TEST_CASE_TEMPLATE("vector body and scalar tail give the same bits", T, float, double) {
  const std::vector<T> x = test_points<T>(-30.0, 30.0);
  std::vector<T> exps(x.size()), logs(x.size()), tanhs(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) exps[i] = math::exp(x[i]);
  for (std::size_t i = 0; i < x.size(); ++i) logs[i] = math::log(x[i]);
  for (std::size_t i = 0; i < x.size(); ++i) tanhs[i] = math::tanh(x[i]);
  for (std::size_t i = 0; i < x.size(); ++i) {
    // A volatile input keeps this loop scalar.
    const volatile T one = x[i];
    REQUIRE(same_bits(exps[i], math::exp(T(one))));
    REQUIRE(same_bits(logs[i], math::log(T(one))));
    REQUIRE(same_bits(tanhs[i], math::tanh(T(one))));
  }
}

TEST_CASE_TEMPLATE("a dual's value has the bits of the plain body", T, float, double) {
  static_assert(std::is_same_v<math::scalar_of<T>, T>);
  static_assert(std::is_same_v<math::scalar_of<Dual<Dual<T>>>, T>);
  static_assert(std::is_same_v<decltype(Dual<T>(1) * 2.0), Dual<T>>);
  for (const T x : test_points<T>(-5.0, 5.0)) {
    if (std::isnan(x)) continue;
    const T plain = body(x);
    const T once = body(Dual<T>(x, T(1))).value;
    const T twice = body(Dual<Dual<T>>(Dual<T>(x, T(1)), Dual<T>(T(1), T(0)))).value.value;
    // A NaN's payload is not part of the promise: it depends on which operand an addition reads first.
    if (std::isnan(plain) && std::isnan(once) && std::isnan(twice)) continue;
    REQUIRE(same_bits(plain, once));
    REQUIRE(same_bits(plain, twice));
  }
}

TEST_CASE("dual operators follow the rules of differentiation") {
  const Dual<double> a(3.0, 0.5), b(-2.0, 0.25);
  const auto check = [](Dual<double> got, double value, double tangent) {
    CHECK(got.value == value);
    CHECK(got.tangent == doctest::Approx(tangent).epsilon(1e-15));
  };
  check(a + b, 1.0, 0.75);
  check(a - b, 5.0, 0.25);
  check(a * b, -6.0, 0.5 * -2.0 + 3.0 * 0.25);
  check(a / b, -1.5, (0.5 + 1.5 * 0.25) / -2.0);
  check(-a, -3.0, -0.5);
  check(a + 1, 4.0, 0.5);
  check(1 + a, 4.0, 0.5);
  check(a - 1.0, 2.0, 0.5);
  check(1.0 - a, -2.0, -0.5);
  check(a * 4.0, 12.0, 2.0);
  check(4.0 * a, 12.0, 2.0);
  check(a / 4.0, 0.75, 0.125);
  check(6.0 / a, 2.0, -6.0 / 9.0 * 0.5);
  check(Dual<double>(7), 7.0, 0.0);
  check(math::max(a, b), 3.0, 0.5);
  check(math::min(a, b), -2.0, 0.25);
  check(math::select(a > b, a, b), 3.0, 0.5);
  check(math::where_positive(b, a, b), -2.0, 0.25);
  check(math::abs(b), 2.0, -0.25);
  check(math::abs(Dual<double>(0.0, 5.0)), 0.0, 0.0);
  check(math::sign(b), -1.0, 0.0);
  check(math::square(a), 9.0, 3.0);
  CHECK((a > 2 && a >= b && b < a && b <= 0.0 && !(a < 2)));
  // A constant factor has no tangent to meet an infinity with.
  CHECK((2.0 * Dual<double>(infinity<double>, 1.0)).tangent == 2.0);
}

TEST_CASE("dual functions have their derivatives") {
  for (const double x : {0.1, 0.9, 2.5}) {
    const Dual<double> dual(x, 1.0);
    CHECK(math::exp(dual).tangent == doctest::Approx(std::exp(x)).epsilon(1e-15));
    CHECK(math::log(dual).tangent == doctest::Approx(1.0 / x).epsilon(1e-15));
    CHECK(math::tanh(dual).tangent == doctest::Approx(1.0 / std::pow(std::cosh(x), 2)).epsilon(1e-13));
    CHECK(math::sqrt(dual).tangent == doctest::Approx(0.5 / std::sqrt(x)).epsilon(1e-15));
    // ADL alone finds them as well.
    CHECK(exp(dual).value == math::exp(x));
  }
}

TEST_CASE("nested duals carry second derivatives") {
  using Second = Dual<Dual<double>>;
  const auto second = [](auto function, double x) {
    return function(Second(Dual<double>(x, 1.0), Dual<double>(1.0, 0.0))).tangent.tangent;
  };
  for (const double x : {0.3, 1.7}) {
    const double t = std::tanh(x);
    CHECK(second([](auto y) { return math::exp(y); }, x) == doctest::Approx(std::exp(x)));
    CHECK(second([](auto y) { return math::log(y); }, x) == doctest::Approx(-1.0 / (x * x)));
    CHECK(second([](auto y) { return math::tanh(y); }, x) == doctest::Approx(-2.0 * t * (1.0 - t * t)));
    CHECK(second([](auto y) { return math::sqrt(y); }, x) == doctest::Approx(-0.25 * std::pow(x, -1.5)));
    CHECK(second([](auto y) { return math::square(y); }, x) == doctest::Approx(2.0));
    CHECK(second([](auto y) { return math::abs(y); }, x) == 0.0);
    CHECK(second([](auto y) { return 1.0 / y; }, x) == doctest::Approx(2.0 / (x * x * x)));
    CHECK(second([](auto y) { return y * math::exp(y) / y; }, x) == doctest::Approx(std::exp(x)));
  }
  // A plain Dual beside a Dual<Dual> is constant in the outer direction.
  const Dual<double> inner(3.0, 1.0);
  const Second product = inner * Second(Dual<double>(2.0, 0.0), Dual<double>(1.0, 0.0));
  CHECK(product.value.tangent == 2.0);
  CHECK(product.tangent.tangent == 1.0);
}

TEST_CASE("a dual of a class type needs only operators and ADL functions") {
  const Dual<Boxed> x(Boxed{0.4}, Boxed{1.0});
  const Dual<Boxed> y = 2.0 * tanh(x) / (1.0 + math::exp(-x)) - x * Boxed{3.0} + x * x;
  const Dual<double> z(0.4, 1.0);
  const Dual<double> expected = 2.0 * math::tanh(z) / (1.0 + math::exp(-z)) - z * 3.0 + z * z;
  CHECK(y.value.number == expected.value);
  CHECK(y.tangent.number == doctest::Approx(expected.tangent).epsilon(1e-14));
  CHECK(math::abs(-x).tangent.number == 1.0);
  CHECK(math::sign(x).tangent.number == 0.0);
}
