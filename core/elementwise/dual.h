// Dual numbers: a value and its tangent, the derivative along one direction.
//
// With e such that e * e = 0, f(x + v e) = f(x) + f'(x) v e. For f(x) = x * exp(x) at x = 2 along v = 1:
//
//     x      = 2        + 1 e
//     exp(x) = exp(2)   + exp(2) e                   rule of exp: y * v
//     f(x)   = 2 exp(2) + (1 exp(2) + 2 exp(2)) e    rule of *: ad * b + a * bd
//
// An op's templated body run on Dual<T> is that op's tangent kernel. `value` is computed with exactly the
// operations that the body does on T, so it has the same bits whether a tangent rides along or not. Duals
// nest: Dual<Dual<double>> carries second derivatives. T may also be a class with operators and functions
// found by ADL (a tensor): constants then meet it as doubles, and a T is made from a number only where the
// body asks for one.
#pragma once

#include <type_traits>
#include <utility>

#include "core/elementwise/scalar_math.h"

namespace hypertape {
inline namespace HYPERTAPE_ISA {

template <class T>
struct Dual;

namespace dual_detail {

template <class S>
concept Arithmetic = std::is_arithmetic_v<S>;

/// A constant as it meets a T: a double must not promote a float.
template <class T, Arithmetic S>
HYPERTAPE_ALWAYS_INLINE constexpr auto constant_for(S c) {
  return static_cast<math::scalar_of<T>>(c);
}

/// The tangent of something constant; a class says `zeros_like`, having a shape that no number gives it.
template <class T>
HYPERTAPE_ALWAYS_INLINE constexpr T zero_tangent(const T& like) {
  if constexpr (math::Real<T>) {
    return T(0);
  } else {
    return zeros_like(like);
  }
}

}  // namespace dual_detail

template <class T>
struct Dual {
  T value;
  T tangent;

  Dual() = default;
  HYPERTAPE_ALWAYS_INLINE constexpr Dual(T value_, T tangent_)
      : value(std::move(value_)), tangent(std::move(tangent_)) {}

  /// A constant, with tangent zero.
  template <dual_detail::Arithmetic S>
  HYPERTAPE_ALWAYS_INLINE constexpr explicit Dual(S constant)
      : value(static_cast<T>(constant)), tangent(static_cast<T>(0)) {}

  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual zeros_like(const Dual& a) {
    return {dual_detail::zero_tangent(a.value), dual_detail::zero_tangent(a.tangent)};
  }

  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator-(const Dual& a) { return {-a.value, -a.tangent}; }

  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator+(const Dual& a, const Dual& b) {
    return {a.value + b.value, a.tangent + b.tangent};
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator-(const Dual& a, const Dual& b) {
    return {a.value - b.value, a.tangent - b.tangent};
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator*(const Dual& a, const Dual& b) {
    return {a.value * b.value, a.tangent * b.value + a.value * b.tangent};
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator/(const Dual& a, const Dual& b) {
    const T quotient = a.value / b.value;
    return {quotient, (a.tangent - quotient * b.tangent) / b.value};
  }

  // A plain T, which has no tangent. Where T is a number, the constants below cover it.
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator+(const Dual& a,
                                                          const T& b) requires math::RealLike<T> {
    return {a.value + b, a.tangent};
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator+(const T& a,
                                                          const Dual& b) requires math::RealLike<T> {
    return {a + b.value, b.tangent};
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator-(const Dual& a,
                                                          const T& b) requires math::RealLike<T> {
    return {a.value - b, a.tangent};
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator-(const T& a,
                                                          const Dual& b) requires math::RealLike<T> {
    return {a - b.value, -b.tangent};
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator*(const Dual& a,
                                                          const T& b) requires math::RealLike<T> {
    return {a.value * b, a.tangent * b};
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator*(const T& a,
                                                          const Dual& b) requires math::RealLike<T> {
    return {a * b.value, a * b.tangent};
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator/(const Dual& a,
                                                          const T& b) requires math::RealLike<T> {
    return {a.value / b, a.tangent / b};
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator/(const T& a,
                                                          const Dual& b) requires math::RealLike<T> {
    const T quotient = a / b.value;
    return {quotient, -(quotient * b.tangent) / b.value};
  }

  // A C++ constant.
  template <dual_detail::Arithmetic S>
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator+(const Dual& a, S c) {
    return {a.value + dual_detail::constant_for<T>(c), a.tangent};
  }
  template <dual_detail::Arithmetic S>
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator+(S c, const Dual& a) {
    return {dual_detail::constant_for<T>(c) + a.value, a.tangent};
  }
  template <dual_detail::Arithmetic S>
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator-(const Dual& a, S c) {
    return {a.value - dual_detail::constant_for<T>(c), a.tangent};
  }
  template <dual_detail::Arithmetic S>
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator-(S c, const Dual& a) {
    return {dual_detail::constant_for<T>(c) - a.value, -a.tangent};
  }
  template <dual_detail::Arithmetic S>
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator*(const Dual& a, S c) {
    return {a.value * dual_detail::constant_for<T>(c), a.tangent * dual_detail::constant_for<T>(c)};
  }
  template <dual_detail::Arithmetic S>
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator*(S c, const Dual& a) {
    return {dual_detail::constant_for<T>(c) * a.value, dual_detail::constant_for<T>(c) * a.tangent};
  }
  template <dual_detail::Arithmetic S>
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator/(const Dual& a, S c) {
    return {a.value / dual_detail::constant_for<T>(c), a.tangent / dual_detail::constant_for<T>(c)};
  }
  template <dual_detail::Arithmetic S>
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual operator/(S c, const Dual& a) {
    const T quotient = dual_detail::constant_for<T>(c) / a.value;
    return {quotient, -(quotient * a.tangent) / a.value};
  }

  // Values decide a comparison; what it yields is for select: a bool, or a mask where T is a tensor.
  HYPERTAPE_ALWAYS_INLINE friend constexpr auto operator>(const Dual& a, const Dual& b) {
    return a.value > b.value;
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr auto operator<(const Dual& a, const Dual& b) {
    return a.value < b.value;
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr auto operator>=(const Dual& a, const Dual& b) {
    return a.value >= b.value;
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr auto operator<=(const Dual& a, const Dual& b) {
    return a.value <= b.value;
  }
  template <dual_detail::Arithmetic S>
  HYPERTAPE_ALWAYS_INLINE friend constexpr auto operator>(const Dual& a, S c) {
    return a.value > dual_detail::constant_for<T>(c);
  }
  template <dual_detail::Arithmetic S>
  HYPERTAPE_ALWAYS_INLINE friend constexpr auto operator<(const Dual& a, S c) {
    return a.value < dual_detail::constant_for<T>(c);
  }
  template <dual_detail::Arithmetic S>
  HYPERTAPE_ALWAYS_INLINE friend constexpr auto operator>=(const Dual& a, S c) {
    return a.value >= dual_detail::constant_for<T>(c);
  }
  template <dual_detail::Arithmetic S>
  HYPERTAPE_ALWAYS_INLINE friend constexpr auto operator<=(const Dual& a, S c) {
    return a.value <= dual_detail::constant_for<T>(c);
  }

  // Found by ADL, and through the forwarding templates of math.h as math::exp(x) and so on.

  template <class Condition>
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual select(const Condition& condition, const Dual& a,
                                                       const Dual& b) {
    return {math::select(condition, a.value, b.value), math::select(condition, a.tangent, b.tangent)};
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual where_positive(const Dual& x, const Dual& a, const Dual& b) {
    return {math::where_positive(x.value, a.value, b.value),
            math::where_positive(x.value, a.tangent, b.tangent)};
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual max(const Dual& a, const Dual& b) {
    return {math::max(a.value, b.value), math::select(a.value > b.value, a.tangent, b.tangent)};
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual min(const Dual& a, const Dual& b) {
    return {math::min(a.value, b.value), math::select(a.value < b.value, a.tangent, b.tangent)};
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual square(const Dual& x) {
    return {math::square(x.value), (x.value + x.value) * x.tangent};
  }
  HYPERTAPE_ALWAYS_INLINE friend Dual exp(const Dual& x) {
    const T y = math::exp(x.value);
    return {y, y * x.tangent};
  }
  HYPERTAPE_ALWAYS_INLINE friend Dual log(const Dual& x) { return {math::log(x.value), x.tangent / x.value}; }
  HYPERTAPE_ALWAYS_INLINE friend Dual tanh(const Dual& x) {
    const T y = math::tanh(x.value);
    return {y, x.tangent * (dual_detail::constant_for<T>(1) - y * y)};
  }
  HYPERTAPE_ALWAYS_INLINE friend Dual sqrt(const Dual& x) {
    const T y = math::sqrt(x.value);
    return {y, x.tangent / (y + y)};
  }
  /// The tangent is 0 at the kink.
  HYPERTAPE_ALWAYS_INLINE friend Dual abs(const Dual& x) {
    return {math::abs(x.value), x.tangent * math::sign(x.value)};
  }
  HYPERTAPE_ALWAYS_INLINE friend constexpr Dual sign(const Dual& x) {
    return {math::sign(x.value), dual_detail::zero_tangent(x.tangent)};
  }
};

}  // namespace HYPERTAPE_ISA

namespace math {
inline namespace HYPERTAPE_ISA {

template <class T>
struct ScalarOf<Dual<T>> : ScalarOf<T> {};

}  // namespace HYPERTAPE_ISA
}  // namespace math
}  // namespace hypertape
