// Sums, products, quotients, roots, absolute values and selections. The contract: core/elementwise/structs.h.
#pragma once

#include "core/elementwise/bodies.h"

namespace hypertape {
namespace {
namespace elementwise {

struct Add {
  static constexpr int arity = 2;
  static constexpr unsigned uses[] = {uses_nothing, uses_nothing};
  static constexpr bool fused[] = {false, false};
  static constexpr Interval domain[] = {{-3, 3}, {-3, 3}};
  static constexpr double kink = no_kink;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& a, const auto& b) { return a + b; }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t) {
    return t;
  }
};

struct Subtract {
  static constexpr int arity = 2;
  static constexpr unsigned uses[] = {uses_nothing, uses_nothing};
  static constexpr bool fused[] = {false, false};
  static constexpr Interval domain[] = {{-3, 3}, {-3, 3}};
  static constexpr double kink = no_kink;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& a, const auto& b) { return a - b; }
  template <int operand>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t) {
    if constexpr (operand == 0)
      return t;
    else
      return -t;
  }
};

struct Multiply {
  static constexpr int arity = 2;
  static constexpr unsigned uses[] = {uses_second, uses_first};
  static constexpr bool fused[] = {false, false};
  static constexpr bool product[] = {true, true};
  static constexpr Interval domain[] = {{-3, 3}, {-3, 3}};
  static constexpr double kink = no_kink;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& a, const auto& b) { return a * b; }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& other) {
    return t * other;
  }
};

/// a b + c: two roundings, like the operations it stands for. An optimizer's update in one pass.
struct MultiplyAdd {
  static constexpr int arity = 3;
  static constexpr unsigned uses[] = {uses_second, uses_first, uses_nothing};
  static constexpr bool fused[] = {false, false, false};
  static constexpr bool product[] = {true, true, false};
  static constexpr Interval domain[] = {{-3, 3}, {-3, 3}, {-3, 3}};
  static constexpr double kink = no_kink;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& a, const auto& b, const auto& c) {
    return a * b + c;
  }
  template <int operand>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto&... other) {
    if constexpr (operand == 2)
      return t;
    else
      return (t * ... * other);
  }
};

/// l x^2: an element of a weighted squared norm, as in regularisation with a factor for each weight.
struct WeightedSquare {
  static constexpr int arity = 2;
  static constexpr unsigned uses[] = {uses_second, uses_first | uses_second};
  static constexpr bool fused[] = {true, true};
  static constexpr Interval domain[] = {{-3, 3}, {-3, 3}};
  static constexpr double kink = no_kink;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& l, const auto& x) { return l * (x * x); }
  template <int operand>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& a, const auto&... x) {
    if constexpr (operand == 0)
      return t * (a * a);
    else
      return t * (a * ((x + ...) + (x + ...)));
  }
};

struct Divide {
  static constexpr int arity = 2;
  static constexpr unsigned uses[] = {uses_second, uses_second | uses_output};
  static constexpr bool fused[] = {false, true};
  static constexpr Interval domain[] = {{-3, 3}, {0.5, 3}};
  static constexpr double kink = no_kink;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& a, const auto& b) { return a / b; }
  template <int operand>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& b, const auto&... y) {
    if constexpr (operand == 0)
      return t / b;
    else
      return -(t * (y, ...)) / b;
  }
};

struct Negate {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_nothing};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return -x; }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t) {
    return -t;
  }
};

struct Square {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_first};
  static constexpr bool fused[] = {true};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return x * x; }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& x) {
    return t * (x + x);
  }
};

struct AddScalar {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_nothing};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant c, const auto& x) { return bodies::plus(x, c); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t) {
    return t;
  }
};

struct MultiplyScalar {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_nothing};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant c, const auto& x) { return bodies::times(x, c); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant c, const auto& t) {
    using bodies::times;
    return times(t, c);
  }
};

/// x / c
struct DivideScalar {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_nothing};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant c, const auto& x) { return bodies::over(x, c); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant c, const auto& t) {
    using bodies::over;
    return over(t, c);
  }
};

/// c / x
struct ScalarDivide {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_first | uses_output};
  static constexpr bool fused[] = {true};
  static constexpr Interval domain[] = {{0.5, 3}};
  static constexpr double kink = no_kink;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant c, const auto& x) { return bodies::under(c, x); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& x, const auto& y) {
    return -(t * y) / x;
  }
};

/// The derivative at 0 is infinite.
struct Sqrt {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_output};
  static constexpr bool fused[] = {true};
  static constexpr Interval domain[] = {{0.3, 4}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 2;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return math::sqrt(x); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& y) {
    return t / (y + y);
  }
};

/// 1 / sqrt(x)
struct Rsqrt {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_output};
  static constexpr bool fused[] = {true};
  static constexpr Interval domain[] = {{0.3, 4}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 3;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return math::rsqrt(x); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& y) {
    using bodies::times;
    return t * times(y * (y * y), Constant{-0.5});
  }
};

/// |x|; the derivative at 0 is 0.
struct Abs {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_first};
  static constexpr bool fused[] = {true};
  static constexpr bool selects = true;
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = 0.0;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return math::abs(x); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& x) {
    using bodies::with_sign;
    return with_sign(t, x);
  }
};

/// -1, 0 or 1. No derivative.
struct Sign {
  static constexpr int arity = 1;
  static constexpr std::array<unsigned, 0> uses{};
  static constexpr std::array<bool, 0> fused{};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = 0.0;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return math::sign(x); }
};

/// The largest integer not above x. No derivative.
struct Floor {
  static constexpr int arity = 1;
  static constexpr std::array<unsigned, 0> uses{};
  static constexpr std::array<bool, 0> fused{};
  static constexpr Interval domain[] = {{-1.8, -1.2}};
  static constexpr double kink = no_kink;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return math::floor(x); }
};

/// The nearest integer, halves to even. No derivative.
struct Round {
  static constexpr int arity = 1;
  static constexpr std::array<unsigned, 0> uses{};
  static constexpr std::array<bool, 0> fused{};
  static constexpr Interval domain[] = {{0.6, 1.4}};
  static constexpr double kink = no_kink;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return math::round(x); }
};

/// The larger, NaN if either is. Where a = b, each operand has half the derivative.
struct Maximum {
  static constexpr int arity = 2;
  static constexpr unsigned uses[] = {uses_first | uses_second, uses_first | uses_second};
  static constexpr bool fused[] = {true, true};
  static constexpr bool selects = true;
  static constexpr Interval domain[] = {{-3, 3}, {-0.05, 0.05}};
  static constexpr double kink[] = {0.0, no_kink};
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& a, const auto& b) {
    return math::max(a, b);
  }
  template <int operand>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& a, const auto& b) {
    if constexpr (operand == 0)
      return bodies::share_of_larger(t, a, b);
    else
      return bodies::share_of_larger(t, b, a);
  }
};

/// The smaller, NaN if either is. Where a = b, each operand has half the derivative.
struct Minimum {
  static constexpr int arity = 2;
  static constexpr unsigned uses[] = {uses_first | uses_second, uses_first | uses_second};
  static constexpr bool fused[] = {true, true};
  static constexpr bool selects = true;
  static constexpr Interval domain[] = {{-3, 3}, {-0.05, 0.05}};
  static constexpr double kink[] = {0.0, no_kink};
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& a, const auto& b) {
    return math::min(a, b);
  }
  template <int operand>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& a, const auto& b) {
    if constexpr (operand == 0)
      return bodies::share_of_larger(t, b, a);
    else
      return bodies::share_of_larger(t, a, b);
  }
};

/// min(max(x, low), high). At a bound, the derivative is that of x inside: 1 in x, 0 in the bound.
struct Clamp {
  static constexpr int arity = 3;
  static constexpr unsigned uses[] = {uses_first | uses_second | uses_third,
                                      uses_first | uses_second | uses_third,
                                      uses_first | uses_second | uses_third};
  static constexpr bool fused[] = {true, true, true};
  static constexpr bool selects = true;
  static constexpr Interval domain[] = {{-3, 3}, {-0.05, 0.05}, {5, 6}};
  static constexpr double kink[] = {0.0, no_kink, no_kink};
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x, const auto& low, const auto& high) {
    const auto raised = x < low ? low : x;
    const auto both = raised > high ? high : raised;
    return ((low != low) | (high != high)) ? low + high : both;
  }
  template <int operand>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& x, const auto& low,
                                           const auto& high) {
    if constexpr (operand == 0)
      return bodies::passed_by_clamp(t, x, low, high);
    else if constexpr (operand == 1)
      return bodies::raised_by_clamp(t, x, low, high);
    else
      return bodies::lowered_by_clamp(t, x, low, high);
  }
};

}  // namespace elementwise
}  // namespace
}  // namespace hypertape
