// Errors in units of the last place, and the points at which scalar functions are tested.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "core/elementwise/scalar_math.h"

namespace ulp {

template <class T>
using Limits = std::numeric_limits<T>;

template <class T>
using BitsOf = hypertape::math::detail::Bits<T>;

template <class T>
constexpr T infinity = Limits<T>::infinity();

template <class T>
bool same_bits(T a, T b) {
  return std::bit_cast<BitsOf<T>>(a) == std::bit_cast<BitsOf<T>>(b);
}

/// |got - expected| in units of T's last place at `expected`; the unit of the smallest normal below it, and
/// infinity counted as the next number after the largest.
template <class T>
double ulp_error(T got, long double expected) {
  constexpr double wrong = 1e30;
  const T rounded = static_cast<T>(expected);
  if (std::isnan(got) || std::isnan(expected)) return std::isnan(got) && std::isnan(expected) ? 0.0 : wrong;
  if (got == rounded && (std::isinf(got) || got == T(0))) return 0.0;
  const int lowest = Limits<T>::min_exponent - 1;
  const int exponent =
      expected == 0.0L ? lowest : std::clamp(std::ilogb(expected), lowest, Limits<T>::max_exponent - 1);
  const long double unit = std::ldexp(1.0L, exponent - (Limits<T>::digits - 1));
  const long double value = std::isinf(got) ? std::copysign(std::ldexp(1.0L, Limits<T>::max_exponent),
                                                            static_cast<long double>(got))
                                            : static_cast<long double>(got);
  return static_cast<double>(std::abs(value - expected) / unit);
}

/// Zeros, infinities, NaN, the ends of the normal and denormal ranges, and small integers, both signs.
template <class T>
std::vector<T> special_points() {
  std::vector<T> points = {T(0),
                           infinity<T>,
                           Limits<T>::quiet_NaN(),
                           Limits<T>::min(),
                           Limits<T>::denorm_min(),
                           Limits<T>::max(),
                           Limits<T>::epsilon(),
                           T(0.625),
                           std::nextafter(T(0.625), T(0)),
                           T(0.5),
                           T(1),
                           std::nextafter(T(1), T(2)),
                           std::nextafter(T(1), T(0)),
                           std::sqrt(T(0.5)),
                           std::sqrt(T(2)),
                           std::nextafter(Limits<T>::min(), T(0))};
  for (int i = 2; i <= 1100; ++i) points.push_back(static_cast<T>(i));
  const std::size_t count = points.size();
  for (std::size_t i = 0; i < count; ++i) points.push_back(-points[i]);
  return points;
}

/// The special points, 100,000 evenly spaced in [low, high] and 100,000 with random bits.
template <class T>
std::vector<T> test_points(double low, double high) {
  std::vector<T> points = special_points<T>();
  constexpr int count = 100'000;
  for (int i = 0; i <= count; ++i) points.push_back(static_cast<T>(low + (high - low) * i / count));
  std::mt19937_64 generator(20);
  for (int i = 0; i < count; ++i) points.push_back(std::bit_cast<T>(static_cast<BitsOf<T>>(generator())));
  return points;
}

struct WorstError {
  double ulp = 0.0, at = 0.0;
};

template <class T, class Function, class Reference>
WorstError worst_error(const std::vector<T>& points, Function function, Reference reference) {
  WorstError worst;
  for (const T x : points) {
    const double error = ulp_error(function(x), reference(static_cast<long double>(x)));
    if (error > worst.ulp) worst = {error, static_cast<double>(x)};
  }
  return worst;
}

template <class T, class Function>
bool nondecreasing(T from, int steps, Function function) {
  T last = function(from);
  for (int i = 0; i < steps; ++i) {
    from = std::nextafter(from, infinity<T>);
    const T next = function(from);
    if (next < last) return false;
    last = next;
  }
  return true;
}

}  // namespace ulp
