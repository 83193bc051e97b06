// Dual numbers over long double, and over themselves: the oracles' own way to differentiate, in a few lines.
//
// f(Dual{x, u}) = {f(x), f'(x) u}. With T = Dual<long double> the slope of the slope is f''.
#pragma once

#include <cmath>

namespace long_dual {

using Real = long double;

template <class T>
struct Dual {
  T value{}, slope{};
  Dual() = default;
  Dual(Real constant) : value(constant) {}
  Dual(T v, T s) : value(v), slope(s) {}

  friend Dual operator-(const Dual& a) { return {-a.value, -a.slope}; }
  friend Dual operator+(const Dual& a, const Dual& b) { return {a.value + b.value, a.slope + b.slope}; }
  friend Dual operator-(const Dual& a, const Dual& b) { return {a.value - b.value, a.slope - b.slope}; }
  friend Dual operator*(const Dual& a, const Dual& b) {
    return {a.value * b.value, a.slope * b.value + a.value * b.slope};
  }
  friend Dual operator/(const Dual& a, const Dual& b) {
    const T quotient = a.value / b.value;
    return {quotient, (a.slope - quotient * b.slope) / b.value};
  }
  friend Dual sqrt(const Dual& x) {
    using std::sqrt;
    const T root = sqrt(x.value);
    return {root, x.slope / (Real(2) * root)};
  }
  friend Dual tanh(const Dual& x) {
    using std::tanh;
    const T y = tanh(x.value);
    return {y, x.slope * (Real(1) - y * y)};
  }
};

using First = Dual<Real>;
using Second = Dual<First>;

}  // namespace long_dual
