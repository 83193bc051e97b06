// What elementwise formulas are written with, for elements and their dual numbers;
// autodiff/ops/elementwise/elementwise.cpp has the same vocabulary for tensors, for derivatives beyond the
// kernels'.
#pragma once

#include <array>

#include "core/elementwise/dual.h"
#include "core/elementwise/scalar_angles.h"

// Unnamed, since each ISA's translation unit compiles a copy of its own that the linker must not merge.
namespace hypertape {
namespace {

/// A literal in a body: takes the type of what it meets, so that float bodies stay float.
struct Constant {
  double value;
  constexpr operator double() const noexcept { return value; }
};

namespace elementwise {

inline constexpr unsigned uses_nothing = 0, uses_first = 1, uses_second = 2, uses_third = 4, uses_output = 8;
struct Interval {
  double low, high;
};
inline constexpr double no_kink = 1e300;

// Arithmetic of literals with elements and dual numbers; Tensor has its own operators with double.
namespace bodies {
template <class T>
concept Element = std::is_same_v<T, float> || std::is_same_v<T, double>;
template <class T>
struct IsDual : std::false_type {};
template <class T>
struct IsDual<Dual<T>> : std::true_type {};

// What decides a selection: selections have no derivative in it.
template <Element T>
HYPERTAPE_ALWAYS_INLINE const T& value_of(const T& x) {
  return x;
}
template <class T>
HYPERTAPE_ALWAYS_INLINE const T& value_of(const Dual<T>& x) {
  return x.value;
}

template <Element T>
HYPERTAPE_ALWAYS_INLINE T plus(const T& x, Constant c) {
  return x + static_cast<T>(c.value);
}
template <Element T>
HYPERTAPE_ALWAYS_INLINE T times(const T& x, Constant c) {
  return x * static_cast<T>(c.value);
}
template <Element T>
HYPERTAPE_ALWAYS_INLINE T over(const T& x, Constant c) {
  return x / static_cast<T>(c.value);
}
template <Element T>
HYPERTAPE_ALWAYS_INLINE T under(Constant c, const T& x) {
  return static_cast<T>(c.value) / x;
}
template <Element T>
HYPERTAPE_ALWAYS_INLINE T minus_from(Constant c, const T& x) {
  return static_cast<T>(c.value) - x;
}

template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> plus(const Dual<T>& x, Constant c) {
  return {plus(x.value, c), x.tangent};
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> times(const Dual<T>& x, Constant c) {
  return {times(x.value, c), times(x.tangent, c)};
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> over(const Dual<T>& x, Constant c) {
  return {over(x.value, c), over(x.tangent, c)};
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> under(Constant c, const Dual<T>& x) {
  const T quotient = under(c, x.value);
  return {quotient, -(quotient * x.tangent) / x.value};
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> minus_from(Constant c, const Dual<T>& x) {
  return {minus_from(c, x.value), -x.tangent};
}

// Selections are linear in t and constant in the rest. A NaN that decides lets t pass, so that nothing is
// hidden.

// t where y > 0, else 0.
template <Element T>
HYPERTAPE_ALWAYS_INLINE T masked(const T& t, const auto& y) {
  return value_of(y) <= T(0) ? T(0) : t;
}
// t where x > 0, -t where x < 0, 0 between.
template <Element T>
HYPERTAPE_ALWAYS_INLINE T with_sign(const T& t, const auto& x) {
  const T flipped = value_of(x) < T(0) ? -t : t;
  return value_of(x) == T(0) ? T(0) : flipped;
}
// t where x > 0, else c t.
template <Element T>
HYPERTAPE_ALWAYS_INLINE T leaking(const T& t, const auto& x, Constant c) {
  return value_of(x) <= T(0) ? times(t, c) : t;
}
// t where a is the larger, half of it where neither is.
template <Element T>
HYPERTAPE_ALWAYS_INLINE T share_of_larger(const T& t, const auto& a, const auto& b) {
  const T half = value_of(a) == value_of(b) ? times(t, Constant{0.5}) : t;
  return value_of(a) < value_of(b) ? T(0) : half;
}
// t where clamp(x, low, high) is x, low, high.
template <Element T>
HYPERTAPE_ALWAYS_INLINE T passed_by_clamp(const T& t, const auto& x, const auto& low, const auto& high) {
  const bool outside = (value_of(x) < value_of(low)) | (value_of(x) > value_of(high));
  return (outside | (value_of(low) > value_of(high))) ? T(0) : t;
}
template <Element T>
HYPERTAPE_ALWAYS_INLINE T raised_by_clamp(const T& t, const auto& x, const auto& low, const auto& high) {
  return ((value_of(x) >= value_of(low)) | (value_of(low) > value_of(high))) ? T(0) : t;
}
template <Element T>
HYPERTAPE_ALWAYS_INLINE T lowered_by_clamp(const T& t, const auto& x, const auto& low, const auto& high) {
  return ((value_of(x) <= value_of(high)) & (value_of(low) <= value_of(high))) ? T(0) : t;
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> masked(const Dual<T>& t, const auto& y) {
  return {masked(t.value, y), masked(t.tangent, y)};
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> with_sign(const Dual<T>& t, const auto& x) {
  return {with_sign(t.value, x), with_sign(t.tangent, x)};
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> leaking(const Dual<T>& t, const auto& x, Constant c) {
  return {leaking(t.value, x, c), leaking(t.tangent, x, c)};
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> share_of_larger(const Dual<T>& t, const auto& a, const auto& b) {
  return {share_of_larger(t.value, a, b), share_of_larger(t.tangent, a, b)};
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> passed_by_clamp(const Dual<T>& t, const auto& x, const auto& low,
                                                const auto& high) {
  return {passed_by_clamp(t.value, x, low, high), passed_by_clamp(t.tangent, x, low, high)};
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> raised_by_clamp(const Dual<T>& t, const auto& x, const auto& low,
                                                const auto& high) {
  return {raised_by_clamp(t.value, x, low, high), raised_by_clamp(t.tangent, x, low, high)};
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> lowered_by_clamp(const Dual<T>& t, const auto& x, const auto& low,
                                                 const auto& high) {
  return {lowered_by_clamp(t.value, x, low, high), lowered_by_clamp(t.tangent, x, low, high)};
}

// x within [-limit, limit], with derivative 1 inside.
template <Element T>
HYPERTAPE_ALWAYS_INLINE T within(const T& x, Constant limit) {
  const T end = static_cast<T>(limit.value), not_above = x > end ? end : x;
  return not_above < -end ? -end : not_above;
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> within(const Dual<T>& x, Constant limit) {
  const T end = static_cast<T>(limit.value);
  return {within(x.value, limit), ((x.value > end) | (x.value < -end)) ? T(0) : x.tangent};
}

// Functions in pulls that are public operations, hence of elements only.
template <Element T>
HYPERTAPE_ALWAYS_INLINE T exp(const T& x) {
  return math::exp(x);
}
template <Element T>
HYPERTAPE_ALWAYS_INLINE T log(const T& x) {
  return math::log(x);
}
template <Element T>
HYPERTAPE_ALWAYS_INLINE T sin(const T& x) {
  return math::sin(x);
}
template <Element T>
HYPERTAPE_ALWAYS_INLINE T cos(const T& x) {
  return math::cos(x);
}
template <Element T>
HYPERTAPE_ALWAYS_INLINE T pow(const T& x, const T& y) {
  return math::pow(x, y);
}

// c x^(c-1); 0 for c = 0, x = 0 included.
template <Element T>
HYPERTAPE_ALWAYS_INLINE T power_slope(const T& x, Constant c) {
  return c.value == 0.0 ? T(0) : times(math::pow(x, static_cast<T>(c.value - 1.0)), c);
}
// The base as the derivative of a^b in a sees it, 1 where both are 0: b a^(b-1) is 0 there, not 0 times
// infinity. Subtracted rather than selected: a known base would split the loop.
template <Element T>
HYPERTAPE_ALWAYS_INLINE T base_for_slope(const T& a, const T& b) {
  return a - (((a == T(0)) & (b == T(0))) ? T(-1) : T(0));
}
// And the derivative in b: a^b log(a) is 0 where a = 0 and b >= 0.
template <Element T>
HYPERTAPE_ALWAYS_INLINE T base_for_logarithm(const T& a, const T& b) {
  return a - (((a == T(0)) & (b >= T(0))) ? T(-1) : T(0));
}

// Functions in fused pulls.
template <Element T>
HYPERTAPE_ALWAYS_INLINE T sigmoid(const T& x) {
  return math::sigmoid(x);
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> sigmoid(const Dual<T>& x) {
  return {math::sigmoid(x.value), x.tangent * math::sigmoid_slope(x.value)};
}
template <Element T>
HYPERTAPE_ALWAYS_INLINE T sigmoid_slope(const T& x) {
  return math::sigmoid_slope(x);
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> sigmoid_slope(const Dual<T>& x) {
  const T slope = math::sigmoid_slope(x.value);
  return {slope, x.tangent * (slope * (math::sigmoid(-x.value) - math::sigmoid(x.value)))};
}
template <Element T>
HYPERTAPE_ALWAYS_INLINE T normal_density(const T& x) {
  return math::normal_density(x);
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> normal_density(const Dual<T>& x) {
  const T density = math::normal_density(x.value);
  return {density, -(x.tangent * (x.value * density))};
}
template <Element T>
HYPERTAPE_ALWAYS_INLINE T normal_cdf(const T& x) {
  return math::normal_cdf(x);
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> normal_cdf(const Dual<T>& x) {
  return {math::normal_cdf(x.value), x.tangent * math::normal_density(x.value)};
}
// x / (x^2 + y^2) = s, y / (x^2 + y^2) = r: ds/dx = r^2 - s^2, ds/dy = -2 s r.
template <Element T>
HYPERTAPE_ALWAYS_INLINE T over_square_sum(const T& x, const T& y) {
  return math::over_square_sum(x, y);
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> over_square_sum(const Dual<T>& x, const T& y) {
  const T s = math::over_square_sum(x.value, y), r = math::over_square_sum(y, x.value);
  return {s, x.tangent * ((r - s) * (r + s))};
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> over_square_sum(const T& x, const Dual<T>& y) {
  const T s = math::over_square_sum(x, y.value), r = math::over_square_sum(y.value, x);
  return {s, -(y.tangent * ((s + s) * r))};
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Dual<T> over_square_sum(const Dual<T>& x, const Dual<T>& y) {
  const T s = math::over_square_sum(x.value, y.value), r = math::over_square_sum(y.value, x.value);
  return {s, x.tangent * ((r - s) * (r + s)) - y.tangent * ((s + s) * r)};
}
}  // namespace bodies

}  // namespace elementwise
}  // namespace
}  // namespace hypertape
