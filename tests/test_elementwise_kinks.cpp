// Elementwise operations at kinks, borders of domains, infinities, NaN and in their tails: values and
// derivatives set by hand.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include "ladder.h"
#include "thrown.h"

namespace ht = hypertape;
using ht::Dtype;
using ht::Tensor;
using ht::TensorList;
using ladder::elements;
using ladder::expect_derivatives;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();
using Values = std::vector<double>;
using Unary = Tensor (*)(const Tensor&);

Tensor vector(const Values& values, Dtype dtype = Dtype::float64) {
  const Tensor x = Tensor::from(values, {static_cast<std::int64_t>(values.size())});
  return dtype == Dtype::float64 ? x : ladder::converted(x, dtype);
}

// Equal numbers with equal signs of zero, or NaN both.
void expect_same(const std::string& what, const Values& got, const Values& expected) {
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    const bool same = got[i] == expected[i] || (std::isnan(got[i]) && std::isnan(expected[i]));
    CHECK_MESSAGE(same, what << " element " << i << ": " << got[i] << " for " << expected[i]);
  }
}

void expect_near(const std::string& what, const Values& got, const Values& expected, double tolerance) {
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    const bool near = std::abs(got[i] - expected[i]) <= tolerance * std::abs(expected[i]);
    CHECK_MESSAGE(near, what << " element " << i << ": " << got[i] << " for " << expected[i]);
  }
}

// The derivative of f at each element, checked to be the same in reverse and forward mode, plain and
// recorded.
Values slopes(const std::function<Tensor(const Tensor&)>& f, const Tensor& x) {
  const Tensor ones = Tensor::ones(x.shape(), x.dtype());
  const Values reverse = elements(ht::grad([&](const Tensor& at) { return ht::sum(f(at)); }, x));
  expect_same("forward mode", elements(ht::jvp(f, x, ones).second), reverse);
  const Tensor inside =
      ht::jvp([&](const Tensor& at) { return ht::grad([&](const Tensor& z) { return ht::sum(f(z)); }, at); },
              x, ones)
          .first;
  expect_same("with a tangent", elements(inside), reverse);
  return reverse;
}
Values second_slopes(const std::function<Tensor(const Tensor&)>& f, const Tensor& x) {
  return elements(
      ht::hvp([&](const Tensor& at) { return ht::sum(f(at)); }, x, Tensor::ones(x.shape(), x.dtype())));
}

// Value and slopes in both dtypes, of numbers that are exact in float32.
void expect_slopes(const std::string& what, const std::function<Tensor(const Tensor&)>& f, const Values& x,
                   const Values& values, const Values& derivatives) {
  for (const Dtype dtype : {Dtype::float64, Dtype::float32}) {
    expect_same(what, elements(f(vector(x, dtype))), values);
    expect_same(what + "'", slopes(f, vector(x, dtype)), derivatives);
  }
}

// The gradients of f(a, b) summed, elementwise.
std::pair<Values, Values> both_slopes(Tensor (*f)(ht::Operand, ht::Operand), const Tensor& a,
                                      const Tensor& b) {
  const auto total = [&](const TensorList& x) { return ht::sum(f(x[0], x[1])); };
  const TensorList g = ht::grad(total, TensorList{a, b});
  const auto run = [&](const TensorList& x) { return TensorList{f(x[0], x[1])}; };
  const Tensor ones = Tensor::ones(a.shape(), a.dtype());
  expect_same("forward mode, first",
              elements(ht::jvp(run, TensorList{a, b}, TensorList{ones, Tensor()}).second[0]), elements(g[0]));
  expect_same("forward mode, second",
              elements(ht::jvp(run, TensorList{a, b}, TensorList{Tensor(), ones}).second[0]), elements(g[1]));
  return {elements(g[0]), elements(g[1])};
}

}  // namespace

TEST_CASE("abs: 0 at 0, no second derivative; sign, floor and round: no derivative") {
  const auto abs = [](const Tensor& x) { return ht::abs(x); };
  expect_slopes("abs", abs, {-2, -0.0, 0.0, 3, inf, -inf, not_a_number}, {2, 0, 0, 3, inf, inf, not_a_number},
                {-1, 0, 0, 1, 1, -1, 1});
  const Tensor x = vector({-2, 0, 1.5});
  CHECK_FALSE(ht::hvp([&](const Tensor& at) { return ht::sum(ht::abs(at)); }, x, x).defined());
  expect_same("sign", elements(ht::sign(vector({-3, -0.0, 0, 2, inf, not_a_number}))),
              {-1, 0, 0, 1, 1, not_a_number});
  expect_same("floor", elements(ht::floor(vector({-1.5, -1, -0.5, 0.5, 1, 1e300, -inf, not_a_number}))),
              {-2, -1, -1, 0, 1, 1e300, -inf, not_a_number});
  expect_same("round", elements(ht::round(vector({-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.6, inf, not_a_number}))),
              {-2, -2, 0, 0, 2, 2, 3, inf, not_a_number});
  for (const Unary f : {Unary([](const Tensor& at) { return ht::sign(at); }),
                        Unary([](const Tensor& at) { return ht::floor(at); }),
                        Unary([](const Tensor& at) { return ht::round(at); })}) {
    CHECK_FALSE(ht::grad([&](const Tensor& at) { return ht::sum(f(at)); }, x).defined());
    CHECK_FALSE(ht::jvp([&](const Tensor& at) { return f(at); }, x, x).second.defined());
  }
}

TEST_CASE("leaky_relu: the slope at 0") {
  const auto leaky = [](const Tensor& x) { return ht::leaky_relu(x, 0.25); };
  expect_slopes("leaky_relu", leaky, {-2, -0.0, 0.0, 3, inf, -inf, not_a_number},
                {-0.5, 0, 0, 3, inf, -inf, not_a_number}, {0.25, 0.25, 0.25, 1, 1, 0.25, 1});
}

TEST_CASE("maximum and minimum: half each in a tie, NaN from either side") {
  const Tensor a = vector({1, 2, 3, not_a_number, 1, inf, -0.0}),
               b = vector({2, 2, -1, 1, not_a_number, inf, 0.0});
  expect_same("maximum", elements(ht::maximum(a, b)), {2, 2, 3, not_a_number, not_a_number, inf, 0});
  expect_same("minimum", elements(ht::minimum(a, b)), {1, 2, -1, not_a_number, not_a_number, inf, 0});
  const auto high = both_slopes(ht::maximum, a, b), low = both_slopes(ht::minimum, a, b);
  expect_same("maximum, first", high.first, {0, 0.5, 1, 1, 1, 0.5, 0.5});
  expect_same("maximum, second", high.second, {1, 0.5, 0, 1, 1, 0.5, 0.5});
  expect_same("minimum, first", low.first, {1, 0.5, 0, 1, 1, 0.5, 0.5});
  expect_same("minimum, second", low.second, {0, 0.5, 1, 1, 1, 0.5, 0.5});
  // A tie of a thing with itself is no kink.
  expect_same("maximum(x, x)", slopes([](const Tensor& x) { return ht::maximum(x, x); }, vector({1, -1})),
              {1, 1});
  expect_derivatives("maximum and minimum, all branches",
                     [](const TensorList& x) {
                       return TensorList{ht::maximum(x[0] * x[1], x[1]) + ht::minimum(x[0], x[1] * x[1])};
                     },
                     {vector({1.5, 0.5, -0.5, 3, 0.2}), vector({1, 2, 1.3, -0.7, -2})});
}

TEST_CASE("clamp: at a bound as inside; high wins where the bounds cross") {
  const auto clamp = [](const Tensor& x) { return ht::clamp(x, -1, 2); };
  expect_slopes("clamp", clamp, {-2, -1, 0, 2, 3, inf, -inf, not_a_number},
                {-1, -1, 0, 2, 2, 2, -1, not_a_number}, {0, 1, 1, 1, 0, 0, 0, 1});
  expect_same("NaN bounds",
              elements(ht::clamp(vector({1, 1}), vector({not_a_number, 0}), vector({2, not_a_number}))),
              {not_a_number, not_a_number});
  expect_same("one-sided", elements(ht::clamp(vector({-3, 7, inf}), 0, inf)), {0, 7, inf});
  const TensorList x = {vector({-2, -1, 0, 2, 3, 0, 5}), vector({-1, -1, -1, -1, -1, 3, 3}),
                        vector({2, 2, 2, 2, 2, 1, 1})};
  const auto f = [](const TensorList& at) { return ht::clamp(at[0], at[1], at[2]); };
  expect_same("value", elements(f(x)), {-1, -1, 0, 2, 2, 1, 1});
  const TensorList g = ht::grad([&](const TensorList& at) { return ht::sum(f(at)); }, x);
  expect_same("in x", elements(g[0]), {0, 1, 1, 1, 0, 0, 0});
  expect_same("in low", elements(g[1]), {1, 0, 0, 0, 0, 0, 0});
  expect_same("in high", elements(g[2]), {0, 0, 0, 0, 1, 1, 1});
  for (const auto& [low, high] :
       {std::pair{1.0, 0.0}, std::pair{not_a_number, 0.0}, std::pair{0.0, not_a_number}})
    expect_text(thrown([&, l = low, h = high] { ht::clamp(x[0], l, h); }), "[clamp] needs low <= high");
  expect_text(thrown([&] { ht::clamp(Tensor(), 0.0, 1.0); }), "[clamp] operand is absent");
  expect_derivatives(
      "clamp, all branches",
      [](const TensorList& at) { return TensorList{ht::clamp(at[0] * at[1], at[1], at[2] * at[2])}; },
      {vector({0.3, 1.6, 5, 2}), vector({1.1, 1.2, 1.3, 0.9}), vector({2, -2, 1.5, 3})});
}

TEST_CASE("sqrt, rsqrt, log1p at the border: infinite slopes, values as in C") {
  const auto sqrt = [](const Tensor& x) { return ht::sqrt(x); };
  expect_slopes("sqrt", sqrt, {0, 4, inf, -1, not_a_number}, {0, 2, inf, not_a_number, not_a_number},
                {inf, 0.25, 0, not_a_number, not_a_number});
  const auto rsqrt = [](const Tensor& x) { return ht::rsqrt(x); };
  expect_slopes("rsqrt", rsqrt, {0, 4, inf, -1, not_a_number}, {inf, 0.5, 0, not_a_number, not_a_number},
                {-inf, -0.0625, 0, not_a_number, not_a_number});
  const auto log1p = [](const Tensor& x) { return ht::log1p(x); };
  expect_slopes("log1p", log1p, {-1, 0, inf, -2, not_a_number}, {-inf, 0, inf, not_a_number, not_a_number},
                {inf, 1, 0, -1, not_a_number});
  const auto expm1 = [](const Tensor& x) { return ht::expm1(x); };
  expect_slopes("expm1", expm1, {-inf, 0, inf, not_a_number}, {-1, 0, inf, not_a_number},
                {0, 1, inf, not_a_number});
}

TEST_CASE("expm1 and log1p: relative accuracy near 0, and expm1's slope where its value is -1") {
  const Values small = {1e-20, -1e-17, 1e-10, 5e-324};
  expect_near("expm1", elements(ht::expm1(vector(small))), {1e-20, -1e-17, 1.00000000005e-10, 5e-324}, 3e-16);
  expect_near("log1p", elements(ht::log1p(vector(small))), {1e-20, -1e-17, 0.99999999995e-10, 5e-324}, 3e-16);
  expect_near("expm1'", slopes([](const Tensor& x) { return ht::expm1(x); }, vector({-40, -700})),
              {std::exp(-40.0), std::exp(-700.0)}, 3e-16);
}

TEST_CASE("pow: bases and exponents 0, 1, 2, integers of negative bases") {
  const auto power = [](double c) { return [c](const Tensor& x) { return ht::pow(x, c); }; };
  const Values x = {-2, -0.0, 0, 3, inf, not_a_number};
  expect_slopes("x^0", power(0), x, {1, 1, 1, 1, 1, 1}, {0, 0, 0, 0, 0, 0});
  expect_slopes("x^1", power(1), x, {-2, 0, 0, 3, inf, not_a_number}, {1, 1, 1, 1, 1, 1});
  expect_slopes("x^2", power(2), x, {4, 0, 0, 9, inf, not_a_number}, {-4, 0, 0, 6, inf, not_a_number});
  expect_slopes("x^3", power(3), x, {-8, 0, 0, 27, inf, not_a_number}, {12, 0, 0, 27, inf, not_a_number});
  expect_slopes("x^-1", power(-1), {-2, 0, 4, inf}, {-0.5, inf, 0.25, 0}, {-0.25, -inf, -0.0625, 0});
  expect_slopes("x^0.5", power(0.5), {-1, 0, 4}, {not_a_number, 0, 2}, {not_a_number, inf, 0.25});
  for (const auto& [c, expected] : {std::pair{1.0, 0.0}, std::pair{2.0, 2.0}, std::pair{3.0, 0.0}})
    expect_same("second derivative at 0", second_slopes(power(c), vector({0.0})), {expected});
  // The third derivative of x^3 is 6, that of x^2 is 0, at 0 too.
  for (const auto& [c, expected] : {std::pair{3.0, 6.0}, std::pair{2.0, 0.0}}) {
    const auto total = [f = power(c)](const Tensor& at) { return ht::sum(f(at)); };
    const Tensor at = vector({0.0}), one = Tensor::ones({1});
    expect_same("third derivative at 0",
                elements(ht::jvp([&](const Tensor& z) { return ht::hvp(total, z, one); }, at, one).second),
                {expected});
  }

  const Tensor a = vector({0, 0, 0, 0, 3, -2, 2}), b = vector({0, 1, 2, 0.5, 0, 3, -1});
  expect_same("a^b", elements(ht::pow(a, b)), {1, 0, 0, 0, 1, -8, 0.5});
  const auto slope = both_slopes(ht::pow, a, b);
  expect_same("in a", slope.first, {0, 1, 0, inf, 0, 12, -0.25});
  expect_near("in b, positive bases", {slope.second[4], slope.second[6]},
              {std::log(3.0), 0.5 * std::log(2.0)}, 3e-16);
  expect_same("in b, base 0", {slope.second[0], slope.second[1], slope.second[2], slope.second[3]},
              {0, 0, 0, 0});
  CHECK(std::isnan(slope.second[5]));
  // d2/da db a^b = a^(b-1) (1 + b log a): at b = 0 it is 1/a, though b a^(b-1) is 0 there.
  const auto mixed = [](const TensorList& at) {
    return TensorList{ht::grad([](const TensorList& z) { return ht::sum(ht::pow(z[0], z[1])); }, at)[0]};
  };
  CHECK(elements(ht::jvp(mixed, TensorList{vector({4}), vector({0})}, TensorList{Tensor(), vector({1})})
                     .second[0])[0] == 0.25);
  // Bases 0 and negative ones with constant tensor exponents: no NaN from the exponent's side.
  const Tensor exponent = vector({2, 3, 2});
  expect_same("x^n, second derivative",
              second_slopes([&](const Tensor& at) { return ht::pow(at, exponent); }, vector({0, 0, -3})),
              {2, 0, 2});
}

TEST_CASE("sin, cos: range of arguments; atan2: signs, the origin, large and small arguments") {
  expect_near("sin", elements(ht::sin(vector({1e9, 22, -0.5}))),
              {0.54584344944869955, -0.0088513092904038759, -0.47942553860420300}, 3e-16);
  for (const double x : {0x1p31, inf, -inf, not_a_number}) {
    CHECK(std::isnan(ht::sin(Tensor::scalar(x)).item()));
    CHECK(std::isnan(ht::cos(Tensor::scalar(x)).item()));
  }
  const double pi = std::acos(-1.0);
  const Tensor y = vector({0, 1, 0, -1, 1e-200, 1e200, 3e-300}),
               x = vector({1, 0, -1, 0, 1e-200, -1e200, 4e-300});
  expect_near("atan2", elements(ht::atan2(y, x)),
              {0, pi / 2, pi, -pi / 2, pi / 4, 0.75 * pi, std::atan(0.75)}, 3e-16);
  const auto slope = both_slopes(ht::atan2, y, x);
  expect_near("in y", slope.first, {1, 0, -1, 0, 5e199, -5e-201, 1.6e299}, 1e-15);
  expect_near("in x", slope.second, {0, -1, 0, 1, -5e199, -5e-201, -1.2e299}, 1e-15);
  CHECK(ht::atan2(Tensor::scalar(0.0), Tensor::scalar(0.0)).item() == 0.0);
  const auto origin = both_slopes(ht::atan2, vector({0}), vector({0}));
  CHECK(std::isnan(origin.first[0]));
  CHECK(std::isnan(origin.second[0]));
}

TEST_CASE("activations far out: limits, no NaN, slopes relative in the tails") {
  const auto sigmoid = [](const Tensor& x) { return ht::sigmoid(x); };
  const auto softplus = [](const Tensor& x) { return ht::softplus(x); };
  const auto silu = [](const Tensor& x) { return ht::silu(x); };
  const auto gelu = [](const Tensor& x) { return ht::gelu(x); };
  const auto gelu_tanh = [](const Tensor& x) { return ht::gelu_tanh(x); };
  const Values far = {-inf, -30000, 0, 30000, inf, not_a_number};
  expect_slopes("sigmoid", sigmoid, far, {0, 0, 0.5, 1, 1, not_a_number}, {0, 0, 0.25, 0, 0, not_a_number});
  expect_slopes("silu", silu, far, {0, 0, 0, 30000, inf, not_a_number}, {0, 0, 0.5, 1, 1, not_a_number});
  expect_slopes("gelu", gelu, far, {0, 0, 0, 30000, inf, not_a_number}, {0, 0, 0.5, 1, 1, not_a_number});
  expect_slopes("gelu_tanh", gelu_tanh, far, {0, 0, 0, 30000, inf, not_a_number},
                {0, 0, 0.5, 1, 1, not_a_number});
  expect_same("softplus'", slopes(softplus, vector(far)), {0, 0, 0.5, 1, 1, not_a_number});
  expect_near("softplus", elements(softplus(vector({-700, -40, 0, 40, 30000}))),
              {std::exp(-700.0), std::exp(-40.0), std::log(2.0), 40, 30000}, 3e-16);

  // exp(-40) and below: lost if taken as 1 - output.
  const double e = std::exp(-40.0);
  expect_near("sigmoid'", slopes(sigmoid, vector({40, -40, 700})), {e, e, std::exp(-700.0)}, 1e-15);
  expect_near("sigmoid''", second_slopes(sigmoid, vector({40, -40})), {-e, e}, 1e-15);
  expect_near("softplus''", second_slopes(softplus, vector({40, -40})), {e, e}, 1e-15);
  expect_near("silu", elements(silu(vector({-40, -700}))), {-40 * e, -700 * std::exp(-700.0)}, 1e-15);
  expect_near("silu'", slopes(silu, vector({-40})), {-39 * e}, 1e-14);
  expect_near("silu''", second_slopes(silu, vector({-40})), {-38 * e}, 1e-14);
  // x Phi(x) at -10 and -30 with Phi from mpmath, 30
  // digits: 7.61985302416052606e-24, 4.90671392714818706e-198.
  expect_near("gelu", elements(gelu(vector({-10, -30}))),
              {-7.61985302416052606e-23, -1.47201417814445612e-196}, 1e-14);
  // Phi(x) + x phi(x) at -10: 7.6198530e-24 - 10 phi(10), phi(10) = 7.69459862670641935e-23.
  expect_near("gelu'", slopes(gelu, vector({-10})), {-7.61840009646481409e-22}, 1e-14);
  expect_near("gelu''", second_slopes(gelu, vector({-10})), {-98 * 7.69459862670641935e-23}, 1e-14);
  // 2 sqrt(2/pi) (10 + 0.044715 * 1000) = 87.316...; -10 exp(-that).
  const double u = 2 * std::sqrt(2 / std::acos(-1.0)) * (10 + 44.715);
  expect_near("gelu_tanh", elements(gelu_tanh(vector({-10}))), {-10 * std::exp(-u)}, 3e-14);
}

TEST_CASE("erf: known values and slopes") {
  // mpmath, 30 digits.
  expect_near("erf", elements(ht::erf(vector({1e-300, 0.5, 1, 2, 6, inf, -1}))),
              {1.12837916709551257e-300, 0.520499877813046538, 0.842700792949714869, 0.995322265018952734, 1,
               1, -0.842700792949714869},
              3e-16);
  expect_near("erf'", slopes([](const Tensor& x) { return ht::erf(x); }, vector({0, 1})),
              {1.12837916709551257, 0.415107497420594704}, 5e-16);
  CHECK(std::isnan(ht::erf(Tensor::scalar(not_a_number)).item()));
}
