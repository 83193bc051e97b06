// sin, cos and atan2, under the rules of scalar_math.h; their errors stand in scalar_functions.h.
#pragma once

#include "core/elementwise/scalar_functions.h"

namespace hypertape::math {
inline namespace HYPERTAPE_ISA {
namespace detail {

/// x = quadrant pi/2 + (r + low), |r| <= pi/4, the quadrant modulo 4 in the lowest bits. The parts of pi/2
/// have 22 bits each, so that their products with quadrants below 2^31 are exact.
struct Angle {
  double r, low;
  Bits<double> quadrant;
};
inline constexpr double largest_angle = 0x1p30;

HYPERTAPE_ALWAYS_INLINE Angle reduce_angle(double x) {
  constexpr double magic = Format<double>::round_magic;
  const double shifted = x * 0x1.45f306dc9c883p-1 + magic;
  const double k = shifted - magic;
  const double first = x - k * 0x1.921fbp+0;
  const Pair second = two_sum(first, -(k * 0x1.5110bp-22));
  const Pair third = two_sum(second.high, -(k * 0x1.184698p-44));
  const Pair fourth = two_sum(third.high, -(k * 0x1.31988p-69));
  const double rest = ((second.low + third.low) + fourth.low) - k * 0x1.1701b839a2520p-88;
  const Pair r = two_sum(fourth.high, rest);
  return {r.high, r.low, to_bits(shifted)};
}

/// sin(r + low) and cos(r + low), each to 2^-57.9 and less: the first for even quadrants.
HYPERTAPE_ALWAYS_INLINE double sine_or_cosine(const Angle& angle, Bits<double> quadrant) {
  const double r = angle.r, z = r * r, half = 0.5 * z;
  const double sine_tail = polynomial(z, -0x1.5555555555548p-3, 0x1.111111110f7d5p-7, -0x1.a01a019bfe415p-13,
                                      0x1.71de3567ed45bp-19, -0x1.ae5e5a88673e6p-26, 0x1.5d8fc81f64839p-33);
  const double sine = r + (angle.low * (1.0 - half) + (r * z) * sine_tail);
  const double cosine_tail =
      polynomial(z, 0x1.555555555554bp-5, -0x1.6c16c16c14f8fp-10, 0x1.a01a019c8402dp-16,
                 -0x1.27e4f7ea84951p-22, 0x1.1ee9d784b1cd6p-29, -0x1.8fa47f3254cfdp-37);
  const double leading = 1.0 - half;
  const double cosine = leading + (((1.0 - leading) - half) + ((z * z) * cosine_tail - r * angle.low));
  const double value = (quadrant & 1) ? cosine : sine;
  return from_bits<double>(to_bits(value) ^ ((quadrant & 2) << 62));
}

/// The same for a float: |low| is beneath notice.
struct FloatAngle {
  double r;
  Bits<double> quadrant;
};

HYPERTAPE_ALWAYS_INLINE FloatAngle reduce_angle(float x) {
#if HYPERTAPE_FMA
  // The products are exact, so that what is left of x keeps 53 bits however much cancels.
  constexpr double magic = Format<double>::round_magic;
  const double shifted = fused(static_cast<double>(x), 0x1.45f306dc9c883p-1, magic);
  const double k = shifted - magic;
  const double rest = fused(k, -0x1.921fb54442d18p+0, static_cast<double>(x));
  return {fused(k, -0x1.1a62633145c07p-54, rest), to_bits(shifted)};
#else
  const Angle angle = reduce_angle(static_cast<double>(x));
  return {angle.r, angle.quadrant};
#endif
}

/// sin(r) and cos(r), to 2^-37.5 and 2^-42.9.
HYPERTAPE_ALWAYS_INLINE float sine_or_cosine(float x, Bits<double> turn) {
  const auto [r, quadrant] = reduce_angle(x);
  const double z = r * r;
  const double sine_tail = polynomial(z, -0x1.5555554c70f8dp-3, 0x1.11110869c19a1p-7, -0x1.a00f7ea4f6b85p-13,
                                      0x1.6cd1d2a1d85d9p-19);
  const double cosine_tail = polynomial(z, 0x1.5555554ed8f0bp-5, -0x1.6c16b8297359fp-10,
                                        0x1.a010de638691dp-16, -0x1.241e85423328dp-22);
  const double sine = fused(r * z, sine_tail, r);
  const double cosine = fused(z * z, cosine_tail, 1.0 - 0.5 * z);
  const Bits<double> place = quadrant + turn;
  const double value = (place & 1) ? cosine : sine;
  const auto signed_value = static_cast<float>(from_bits<double>(to_bits(value) ^ ((place & 2) << 62)));
  return math::abs(x) <= static_cast<float>(largest_angle) ? signed_value
                                                           : std::numeric_limits<float>::quiet_NaN();
}

}  // namespace detail

/// NaN beyond |x| = 2^30.
HYPERTAPE_ALWAYS_INLINE double sin(double x) {
  const detail::Angle angle = detail::reduce_angle(x);
  const double value = detail::sine_or_cosine(angle, angle.quadrant);
  const double inside = math::abs(x) < 0x1p-27 ? x : value;
  return math::abs(x) <= detail::largest_angle ? inside : std::numeric_limits<double>::quiet_NaN();
}
HYPERTAPE_ALWAYS_INLINE double cos(double x) {
  const detail::Angle angle = detail::reduce_angle(x);
  const double value = detail::sine_or_cosine(angle, angle.quadrant + 1);
  return math::abs(x) <= detail::largest_angle ? value : std::numeric_limits<double>::quiet_NaN();
}
HYPERTAPE_ALWAYS_INLINE float sin(float x) {
  const float value = detail::sine_or_cosine(x, 0);
  return math::abs(x) < 0x1p-13f ? x : value;
}
HYPERTAPE_ALWAYS_INLINE float cos(float x) { return detail::sine_or_cosine(x, 1); }

/// The angle of (x, y) in [-pi, pi], zeros and infinities as in C. With t = min/max of the magnitudes, or
/// (t - 1) / (t + 1) where t > tan(pi/8), it is m pi/4 plus or minus atan(t).
HYPERTAPE_ALWAYS_INLINE double atan2(double y, double x) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const double ax = math::abs(x), ay = math::abs(y);
  const bool steep = ay > ax;
  const double larger = steep ? ay : ax, smaller = steep ? ax : ay;
  const bool huge = larger > 0x1p1000, endless = larger == infinity;
  const double scale = huge ? 0x1p-100 : 1.0;
  const double finite_smaller = smaller == infinity ? 1.0 : 0.0;
  const double low = endless ? finite_smaller : smaller * scale, high = endless ? 1.0 : larger * scale;
  const bool turned = low > 0x1.a827999fcef32p-2 * high;  // tan(pi/8)
  const double below = turned ? high + low : high;
  const double t = (turned ? low - high : low) / (below == 0.0 ? 1.0 : below);

  const double z = t * t;
  // (atan(t) - t) / t^3 in z for |t| <= tan(pi/8): atan to 2^-59.4.
  const double tail = detail::polynomial(z, -0x1.555555555553dp-2, 0x1.99999999957bdp-3,
                                         -0x1.24924922a9e46p-3, 0x1.c71c70e4e37d9p-4, -0x1.745cf8be7b345p-4,
                                         0x1.3b111739ea59cp-4, -0x1.10eba49e824e0p-4, 0x1.df0e42151630bp-5,
                                         -0x1.9cce610a7afc1p-5, 0x1.37cb3b2ff45b8p-5, -0x1.2554cb2d3bea2p-6);
  const double arc = (t * z) * tail;
  const bool backward = (detail::to_bits(x) >> 63) != 0, reversed = steep != backward;
  const double eighths = turned ? 1.0 : 0.0;
  const double in_quarter = steep ? 2.0 - eighths : eighths;
  const double m = backward ? 4.0 - in_quarter : in_quarter;
  // pi/4 in two parts, the first of 50 bits: up to four of them are exact.
  constexpr double part = 0x1.921fb54442d18p-1, rest = 0x1.1a62633145c07p-55;
  const double small = (reversed ? -arc : arc) + m * rest;
  const double angle = m * part + ((reversed ? -t : t) + small);
  return ((x != x) | (y != y)) ? x + y : math::copysign(angle, y);
}
HYPERTAPE_ALWAYS_INLINE float atan2(float y, float x) {
  return static_cast<float>(math::atan2(static_cast<double>(y), static_cast<double>(x)));
}

/// x / (x^2 + y^2), without overflow on the way: with q the smaller and p the larger in magnitude, 1 or q/p
/// over p + q (q/p). NaN at the origin.
template <Real T>
HYPERTAPE_ALWAYS_INLINE T over_square_sum(T x, T y) {
  const bool steep = math::abs(y) > math::abs(x);
  const T larger = steep ? y : x, smaller = steep ? x : y;
  const T ratio = smaller / larger;
  return (steep ? ratio : T(1)) / (larger + smaller * ratio);
}

}  // namespace HYPERTAPE_ISA
}  // namespace hypertape::math
