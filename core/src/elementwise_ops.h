// The elementwise operations: one struct each, everything about the operation in it.
//
//   arity     number of operands
//   value     the body, one element; instantiated for float, double and their dual numbers
//   pull<i>   cotangent of operand i from the output's cotangent t: t * d value / d operand i. The Jacobian
//   is
//             diagonal, so the same formula gives the tangent that operand i contributes from its tangent t.
//             Instantiated for elements (a fused kernel) and for Tensor (public operations, any order).
//   uses[i]   what pull<i> reads besides t, in this order: first to third operand, output
//   fused[i]  whether pull<i> is a kernel of its own; if not, it is a single public operation already
//   product   (optional) whether pull<i> is t times one used tensor: summed to a scalar, it is a dot product
//   cost      passes over memory that evaluating the body takes as long as; 1 if not given
//   domain    where tests sample each operand; kinks are points where the derivative jumps
//
// Adding an operation: one struct here, one line in elementwise.def.
#pragma once

#include "dual.h"
#include "scalar_math.h"

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

template <Element T>
inline T plus(const T& x, Constant c) {
  return x + static_cast<T>(c.value);
}
template <Element T>
inline T times(const T& x, Constant c) {
  return x * static_cast<T>(c.value);
}
template <Element T>
inline T over(const T& x, Constant c) {
  return x / static_cast<T>(c.value);
}
template <Element T>
inline T under(Constant c, const T& x) {
  return static_cast<T>(c.value) / x;
}
template <Element T>
inline T minus_from(Constant c, const T& x) {
  return static_cast<T>(c.value) - x;
}

template <class T>
inline Dual<T> plus(const Dual<T>& x, Constant c) {
  return {plus(x.value, c), x.tangent};
}
template <class T>
inline Dual<T> times(const Dual<T>& x, Constant c) {
  return {times(x.value, c), times(x.tangent, c)};
}
template <class T>
inline Dual<T> over(const Dual<T>& x, Constant c) {
  return {over(x.value, c), over(x.tangent, c)};
}
template <class T>
inline Dual<T> under(Constant c, const Dual<T>& x) {
  const T quotient = under(c, x.value);
  return {quotient, -(quotient * x.tangent) / x.value};
}
template <class T>
inline Dual<T> minus_from(Constant c, const Dual<T>& x) {
  return {minus_from(c, x.value), -x.tangent};
}

// t where y > 0, else 0; a NaN in y passes t on, so that it is not hidden.
template <Element T>
inline T masked(const T& t, const T& y) {
  return y <= T(0) ? T(0) : t;
}
template <class T>
inline Dual<T> masked(const Dual<T>& t, const T& y) {
  return {masked(t.value, y), masked(t.tangent, y)};
}
template <class T>
inline Dual<T> masked(const Dual<T>& t, const Dual<T>& y) {
  return masked(t, y.value);
}
template <class T>
inline T masked(const T& t, const Dual<T>& y) {
  return masked(t, y.value);
}

template <class T>
requires(Element<T> || IsDual<T>::value) inline auto exp(const T& x) { return math::exp(x); }
template <class T>
requires(Element<T> || IsDual<T>::value) inline auto log(const T& x) { return math::log(x); }
template <class T>
requires(Element<T> || IsDual<T>::value) inline auto tanh(const T& x) { return math::tanh(x); }
}  // namespace bodies

struct Add {
  static constexpr int arity = 2;
  static constexpr unsigned uses[] = {uses_nothing, uses_nothing};
  static constexpr bool fused[] = {false, false};
  static constexpr Interval domain[] = {{-3, 3}, {-3, 3}};
  static constexpr double kink = no_kink;
  static auto value(Constant, const auto& a, const auto& b) { return a + b; }
  template <int>
  static auto pull(Constant, const auto& t) {
    return t;
  }
};

struct Subtract {
  static constexpr int arity = 2;
  static constexpr unsigned uses[] = {uses_nothing, uses_nothing};
  static constexpr bool fused[] = {false, false};
  static constexpr Interval domain[] = {{-3, 3}, {-3, 3}};
  static constexpr double kink = no_kink;
  static auto value(Constant, const auto& a, const auto& b) { return a - b; }
  template <int operand>
  static auto pull(Constant, const auto& t) {
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
  static auto value(Constant, const auto& a, const auto& b) { return a * b; }
  template <int>
  static auto pull(Constant, const auto& t, const auto& other) {
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
  static auto value(Constant, const auto& a, const auto& b, const auto& c) { return a * b + c; }
  template <int operand>
  static auto pull(Constant, const auto& t, const auto&... other) {
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
  static auto value(Constant, const auto& l, const auto& x) { return l * (x * x); }
  template <int operand>
  static auto pull(Constant, const auto& t, const auto& a, const auto&... x) {
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
  static auto value(Constant, const auto& a, const auto& b) { return a / b; }
  template <int operand>
  static auto pull(Constant, const auto& t, const auto& b, const auto&... y) {
    if constexpr (operand == 0)
      return t / b;
    else
      return -(t * (y, ...)) / b;
  }
};

/// t where y > 0 and 0 elsewhere: the derivative of relu. Linear in t, constant in y.
struct Masked {
  static constexpr int arity = 2;
  static constexpr unsigned uses[] = {uses_second};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{-3, 3}, {-3, 3}};
  static constexpr double kink = no_kink;
  static auto value(Constant, const auto& t, const auto& y) {
    using bodies::masked;
    return masked(t, y);
  }
  template <int>
  static auto pull(Constant, const auto& s, const auto& y) {
    using bodies::masked;
    return masked(s, y);
  }
};

struct Negate {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_nothing};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  static auto value(Constant, const auto& x) { return -x; }
  template <int>
  static auto pull(Constant, const auto& t) {
    return -t;
  }
};

struct Square {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_first};
  static constexpr bool fused[] = {true};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  static auto value(Constant, const auto& x) { return x * x; }
  template <int>
  static auto pull(Constant, const auto& t, const auto& x) {
    return t * (x + x);
  }
};

struct Exp {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_output};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 4;
  static auto value(Constant, const auto& x) {
    using bodies::exp;
    return exp(x);
  }
  template <int>
  static auto pull(Constant, const auto& t, const auto& y) {
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
  static auto value(Constant, const auto& x) {
    using bodies::log;
    return log(x);
  }
  template <int>
  static auto pull(Constant, const auto& t, const auto& x) {
    return t / x;
  }
};

struct Tanh {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_output};
  static constexpr bool fused[] = {true};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 8;
  static auto value(Constant, const auto& x) {
    using bodies::tanh;
    return tanh(x);
  }
  template <int>
  static auto pull(Constant, const auto& t, const auto& y) {
    using bodies::minus_from;
    return t * minus_from(Constant{1.0}, y * y);
  }
};

/// max(x, 0); the derivative at 0 is 0.
struct Relu {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_output};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = 0.0;
  static auto value(Constant, const auto& x) {
    using bodies::masked;
    return masked(x, x);
  }
  template <int>
  static auto pull(Constant, const auto& t, const auto& y) {
    using bodies::masked;
    return masked(t, y);
  }
};

struct AddScalar {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_nothing};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  static auto value(Constant c, const auto& x) { return bodies::plus(x, c); }
  template <int>
  static auto pull(Constant, const auto& t) {
    return t;
  }
};

struct MultiplyScalar {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_nothing};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  static auto value(Constant c, const auto& x) { return bodies::times(x, c); }
  template <int>
  static auto pull(Constant c, const auto& t) {
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
  static auto value(Constant c, const auto& x) { return bodies::over(x, c); }
  template <int>
  static auto pull(Constant c, const auto& t) {
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
  static auto value(Constant c, const auto& x) { return bodies::under(c, x); }
  template <int>
  static auto pull(Constant, const auto& t, const auto& x, const auto& y) {
    return -(t * y) / x;
  }
};

}  // namespace elementwise
}  // namespace
}  // namespace hypertape
