// Exponentials, logarithms, powers, circular functions and erf. The contract: core/elementwise/structs.h.
#pragma once

#include "core/elementwise/bodies.h"

namespace hypertape {
namespace {
namespace elementwise {

struct Exp {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_output};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 2;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return math::exp(x); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& y) {
    return t * y;
  }
};

struct Log {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_first};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{0.3, 4}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 4;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return math::log(x); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& x) {
    return t / x;
  }
};

/// exp(x) - 1. The derivative is exp(x), which the output does not give where it is near -1.
struct Expm1 {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_first};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 4;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return math::expm1(x); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& x) {
    using bodies::exp;
    return t * exp(x);
  }
};

/// log(1 + x)
struct Log1p {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_first};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{-0.7, 3}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 5;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return math::log1p(x); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& x) {
    using bodies::plus;
    return t / plus(x, Constant{1.0});
  }
};

/// a^b as in C. In a, the derivative is b a^(b-1), 0 where both are 0; in b it is a^b log(a), 0 where a = 0
/// and b >= 0, NaN for a < 0.
struct Pow {
  static constexpr int arity = 2;
  static constexpr unsigned uses[] = {uses_first | uses_second, uses_first | uses_second | uses_output};
  static constexpr bool fused[] = {false, false};
  static constexpr Interval domain[] = {{0.5, 3}, {-2, 3}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 20;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& a, const auto& b) {
    return math::pow(a, b);
  }
  template <int operand>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& a, const auto& b,
                                           const auto&... y) {
    if constexpr (operand == 0) {
      using bodies::base_for_slope, bodies::plus, bodies::pow;
      return t * (b * pow(base_for_slope(a, b), plus(b, Constant{-1.0})));
    } else {
      using bodies::base_for_logarithm, bodies::log;
      return t * ((y * ...) * log(base_for_logarithm(a, b)));
    }
  }
};

/// x^c as in C; the derivative c x^(c-1) is 0 everywhere for c = 0.
struct PowScalar {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_first};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{0.5, 3}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 20;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant c, const auto& x) {
    return math::pow(x, static_cast<std::decay_t<decltype(x)>>(c.value));
  }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant c, const auto& t, const auto& x) {
    using bodies::power_slope;
    return t * power_slope(x, c);
  }
};

struct Sin {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_first};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 8;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return math::sin(x); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& x) {
    using bodies::cos;
    return t * cos(x);
  }
};

struct Cos {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_first};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 8;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return math::cos(x); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& x) {
    using bodies::sin;
    return -(t * sin(x));
  }
};

/// The angle of the point (x, y), operands in the order y, x. No derivative at the origin: NaN.
struct Atan2 {
  static constexpr int arity = 2;
  static constexpr unsigned uses[] = {uses_first | uses_second, uses_first | uses_second};
  static constexpr bool fused[] = {true, true};
  static constexpr Interval domain[] = {{-3, 3}, {0.5, 3}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 8;
  static constexpr int pull_cost = 4;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& y, const auto& x) {
    return math::atan2(y, x);
  }
  template <int operand>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& y, const auto& x) {
    using bodies::over_square_sum;
    if constexpr (operand == 0)
      return t * over_square_sum(x, y);
    else
      return -(t * over_square_sum(y, x));
  }
};

/// The error function; the derivative is 2/sqrt(pi) exp(-x^2).
struct Erf {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_first};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 8;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return math::erf(x); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& x) {
    using bodies::exp;
    using bodies::times;
    return times(t * exp(-(x * x)), Constant{0x1.20dd750429b6dp+0});
  }
};

}  // namespace elementwise
}  // namespace
}  // namespace hypertape
