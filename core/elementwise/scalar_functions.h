// The scalar functions beyond exp, log and tanh, under the rules of scalar_math.h: the same bits in vectors
// and alone, on AVX2 and AVX-512; no branches, no library. All vectorise from AVX2 on; SSE2, which has no
// 64-bit comparison of integers, runs pow, sin, cos and atan2 one by one.
//
// pow, sin, cos and atan2 of a float are computed in double and rounded once, the first three by shorter
// polynomials than those of a double; what nets spend their time in has coefficients of its own for floats.
//
// Largest errors in ulp over some 10^6 numbers, double and float (with fma too for expm1 to softplus and
// sin):
//
//   sqrt, floor, round    correctly rounded
//   expm1                 1.20, 1.11      relative, however small x is
//   log1p                 0.87, 0.83      relative, however small x is
//   rsqrt                 1.49, 1.48
//   sigmoid               2.3,  2.4       both tails, down to denormal results
//   softplus              1.6,  1.7       the lower tail too
//   pow                   0.68, 0.50      exact where the result is a number of the format
//   sin, cos              0.80, 0.50      scalar_angles.h; NaN beyond |x| = 2^30, where reducing it would
//                                         not be exact
//   atan2                 1.7,  0.50
//   erf                   1.4,  1.2       relative, however small x is
//   normal_cdf            5.6,  6.3       the lower tail too
//   normal_density        2.1,  2.0
//   gelu                  5.2,  6.6       where the probability is a normal number
//
// Polynomials are minimax fits (Remez exchange in 60 digits); comments give their relative errors.
#pragma once

#include <algorithm>

#include "core/elementwise/scalar_math.h"

namespace hypertape::math {
inline namespace HYPERTAPE_ISA {
namespace detail {

/// An unevaluated sum, `low` at most about half an ulp of `high`.
struct Pair {
  double high, low;
};

/// c0 + c1 x + c2 x^2 + ... of 5 to 16 coefficients, by pairs and pairs of pairs (Estrin): some more
/// operations, but half as many that wait for each other, where these decide.
HYPERTAPE_ALWAYS_INLINE double short_polynomial(double x, auto... coefficients) {
  constexpr std::size_t most = 16, count = sizeof...(coefficients);
  static_assert(count > 4 && count <= most);
  const double c[most] = {coefficients...};
  const double square = x * x, fourth = square * square;
  const auto pair = [&](std::size_t i)
                        HYPERTAPE_INLINE_LAMBDA { return i + 1 < count ? fused(x, c[i + 1], c[i]) : c[i]; };
  const auto four = [&](std::size_t i) HYPERTAPE_INLINE_LAMBDA {
    return i + 2 < count ? fused(square, pair(i + 2), pair(i)) : pair(i);
  };
  const auto eight = [&](std::size_t i) HYPERTAPE_INLINE_LAMBDA {
    return i + 4 < count ? fused(fourth, four(i + 4), four(i)) : four(i);
  };
  return count > 8 ? fused(fourth * fourth, eight(8), eight(0)) : eight(0);
}

/// a + b exactly, for |a| >= |b| or a = 0.
HYPERTAPE_ALWAYS_INLINE Pair quick_two_sum(double a, double b) {
  const double sum = a + b;
  return {sum, b - (sum - a)};
}
/// a + b exactly.
HYPERTAPE_ALWAYS_INLINE Pair two_sum(double a, double b) {
  const double sum = a + b, part = sum - a;
  return {sum, (a - (sum - part)) + (b - part)};
}
/// a b exactly (Dekker, where there is no fma), for magnitudes between 2^-900 and 2^990.
HYPERTAPE_ALWAYS_INLINE Pair two_product(double a, double b) {
  const double product = a * b;
#if HYPERTAPE_FMA
  return {product, fused(a, b, -product)};
#else
  constexpr double splitter = 0x1p27 + 1.0;
  const double a_scaled = splitter * a, b_scaled = splitter * b;
  const double a_high = a_scaled - (a_scaled - a), a_low = a - a_high;
  const double b_high = b_scaled - (b_scaled - b), b_low = b - b_high;
  return {product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low};
#endif
}

/// exp(x.high + x.low), as math::exp but with 1 + r added exactly; -746 <= x.high <= 710.
HYPERTAPE_ALWAYS_INLINE double exp_of(Pair x) {
  using F = Format<double>;
  constexpr double magic = F::round_magic + 2.0 * F::bias;
  const double shifted = fused(x.high, F::log2_e, magic);
  const double k = shifted - magic;
  const double high = fused(k, -F::ln2_high, x.high);
  const double rounded = fused(k, -F::ln2_low, high);
  const auto [r, r_error] = quick_two_sum(rounded, ((high - rounded) - k * F::ln2_low) + x.low);
  // (exp(r) - 1 - r - r^2/2) / r^3 for |r| <= ln(2)/2: exp to 2^-64.
  const double tail = short_polynomial(r, 0x1.555555555555bp-3, 0x1.555555555555ap-5, 0x1.111111110ebfcp-7,
                                       0x1.6c16c16c14215p-10, 0x1.a01a01b3a5250p-13, 0x1.a01a01b1bf68ep-16,
                                       0x1.71ddefbff8f1ep-19, 0x1.27e4c33ed92f9p-22, 0x1.af6c8d09df50cp-26,
                                       0x1.1f991020fdc0dp-29);
  const Pair leading = quick_two_sum(1.0, r);
  const double sum = leading.high + (leading.low + (r_error + (r * r) * (0.5 + r * tail)));

  const Bits<double> exponent = to_bits(shifted), half = exponent >> 1;
  return (sum * from_bits<double>(half << F::mantissa_bits)) *
         from_bits<double>((exponent - half) << F::mantissa_bits);
}

/// log(x) to 2^-66 of its size, for 0 < x < infinity: as math::log, with s = f / (2 + f) and the terms
/// 2 s + 2/3 s^3 in pairs.
HYPERTAPE_ALWAYS_INLINE Pair log_of(double x) {
  using F = Format<double>;
  const auto [f, k] = split_exponent(x);
  const Pair under = quick_two_sum(2.0, f);
  const double inverse = 1.0 / under.high, s = f * inverse;
  const Pair back = two_product(s, under.high);
  const double s_low = (((f - back.high) - back.low) - s * under.low) * inverse;

  const Pair square = two_product(s, s);
  const double z = square.high, z_low = square.low + 2.0 * s * s_low;
  // (2 atanh(s) - 2 s - 2/3 s^3) / s^5 in z = s^2: log to 2^-73.5.
  const double tail = short_polynomial(z, 0x1.9999999999996p-2, 0x1.249249249302ep-2, 0x1.c71c71c58107dp-3,
                                       0x1.745d18321586ap-3, 0x1.3b1362c2f85d3p-3, 0x1.1120b41b32b06p-3,
                                       0x1.de33a0ba0a822p-4, 0x1.eb0fef4e14170p-4);
  constexpr double third = 0x1.5555555555555p-1, third_low = 0x1.5555555555555p-55;  // 2/3
  Pair factor = quick_two_sum(third, z * tail);
  factor.low += third_low;
  const Pair cubic = two_product(z, factor.high);
  Pair total = quick_two_sum(2.0, cubic.high);
  total.low += cubic.low + (z * factor.low + z_low * factor.high);
  const Pair fraction = two_product(s, total.high);
  const double fraction_low = fraction.low + (s * total.low + s_low * total.high);

  const Pair sum = quick_two_sum(k * F::ln2_high, fraction.high);  // |fraction| <= 1/2 ln 2
  return quick_two_sum(sum.high, sum.low + (fraction_low + k * F::ln2_low));
}

/// log(1 + x) for -1 < x < infinity; loses the sign of -0.
template <Real T>
HYPERTAPE_ALWAYS_INLINE T log1p_of(T x) {
  using F = Format<T>;
  const T u = T(1) + x, part = u - x;
  const T lost = (x - (u - part)) + (T(1) - part);
  const auto [fraction, k] = split_exponent(u);
  const bool near = k == T(0);  // then 1 + fraction + lost is 1 + x itself
  const T f = near ? x : fraction;
  const T correction = near ? T(0) : lost / u;

  const T s = f / (T(2) + f);
  const T z = s * s;
  const T half_square = T(0.5) * f * f;
  const T rest = fused(s, fused(z, log_tail(z), half_square), fused(k, F::ln2_low, correction));
  return fused(k, F::ln2_high, f - (half_square - rest));
}

/// Whether x >= 0 is an integer.
template <Real T>
HYPERTAPE_ALWAYS_INLINE bool is_integer(T x) {
  constexpr T magic = T(1) / std::numeric_limits<T>::epsilon();
  return (x >= magic) | ((x + magic) - magic == x);
}

/// x^y from |x|^y, which matters for 0 < |x| < infinity and |y| <= 2^65 only: beyond, all but 1 over- or
/// underflows. The rest as in C.
template <Real T>
HYPERTAPE_ALWAYS_INLINE T signed_power(T x, T y, T power) {
  constexpr T infinity = std::numeric_limits<T>::infinity();
  constexpr int sign_bit = 8 * static_cast<int>(sizeof(T)) - 1;
  const T base = math::abs(x), exponent = math::abs(y);
  const bool ends = (base == T(0)) | (base == infinity) | (exponent > T(0x1p65));
  const T end = (base > T(1)) == (y > T(0)) ? infinity : T(0);
  const T inside = ends ? end : power;
  const T magnitude = base == T(1) ? T(1) : inside;
  const bool integer = is_integer(exponent), odd = integer & !is_integer(T(0.5) * exponent);
  const bool negative = (to_bits(x) >> sign_bit) != 0;
  const T value = (negative & odd) ? -magnitude : magnitude;
  const bool complex = (x < T(0)) & !integer & (base < infinity);
  const T real = complex ? std::numeric_limits<T>::quiet_NaN() : value;
  const T passed = ((x != x) | (y != y)) ? x + y : real;
  return ((x == T(1)) | (y == T(0))) ? T(1) : passed;
}

/// base^y for floats 0 < base < infinity, before the rounding to a float: to 2^-37 of it.
HYPERTAPE_ALWAYS_INLINE double float_power(float base, float y) {
  using F = Format<double>;
  const auto [f, exponent] = split_normal(static_cast<double>(base));  // no float is a denormal double
  const double s = f / (2.0 + f), z = s * s;
  // 2 atanh(s) / (s ln 2) in z for |s| <= 3 - sqrt(8): to 2^-45.1.
  const double logarithm =
      fused(s,
            polynomial(z, 0x1.71547652b8251p+1, 0x1.ec709dc53c9c5p-1, 0x1.2776c292fc63ap-1,
                       0x1.a61a2f0212b76p-2, 0x1.47954c97fafefp-2, 0x1.21b17bb807049p-2),
            exponent);

  // Beyond these bounds the power rounds to zero or infinity.
  const double product = static_cast<double>(y) * logarithm;
  const double above = product < -160.0 ? -160.0 : product, x = above > 130.0 ? 130.0 : above;
  constexpr double magic = F::round_magic + F::bias;
  const double shifted = x + magic;
  const double r = x - (shifted - magic);
  // (2^r - 1) / r for |r| <= 1/2: 2^r to 2^-40.2.
  const double slope =
      polynomial(r, 0x1.62e42fef89c65p-1, 0x1.ebfbdff8ee2cfp-3, 0x1.c6b08dcef1f0ep-5, 0x1.3b2ab5ed248c8p-7,
                 0x1.5d874ce15dd76p-10, 0x1.430aa8d04a1cbp-13, 0x1.00d86cba0ae65p-16, 0x1.61c4d815af1d2p-20);
  return fused(r, slope, 1.0) * from_bits<double>(to_bits(shifted) << F::mantissa_bits);
}

/// Phi(-v) exp(v^2/2) of the normal distribution, 0 <= v <= 40, to 2^-55.9.
HYPERTAPE_ALWAYS_INLINE double scaled_normal_tail(double v) {
  const double q = 1.0 / (v + 3.0);
  const double t = (v - 3.0) * q;
  return q * polynomial(
                 t, 0x1.754a751a56f4ap-1, -0x1.04c7295a48f35p-1, 0x1.d71387c654ce0p-3, -0x1.832dbf6991ad2p-5,
                 -0x1.56d8e3d8000d3p-7, 0x1.c8f52c317eab3p-8, 0x1.0d608c95a5d7dp-10, -0x1.12285ecef7fa7p-10,
                 -0x1.0d09eb7cdee05p-12, 0x1.43c9dc9596708p-13, 0x1.4a907605134edp-14, -0x1.bc730b6082655p-17,
                 -0x1.5b1b5d89b55fep-16, -0x1.d85dd2d42f650p-19, 0x1.e89c862f4f06bp-19, 0x1.2f78f489ea8b7p-19,
                 0x1.bbb5035899d94p-28, -0x1.429937ba5e9dap-21, -0x1.2204168fc78dep-22, 0x1.b65b56140d3dap-25,
                 0x1.89eb4ebbe5537p-24, 0x1.4f309a3cf7bb4p-26, -0x1.8709c2cd70869p-27, -0x1.759a07d9a88d6p-28,
                 -0x1.cdac41887c87cp-32);
}

/// |x|, at most `limit`; NaN stays.
template <Real T>
HYPERTAPE_ALWAYS_INLINE T bounded(T x, T limit) {
  const T magnitude = math::abs(x);
  return magnitude > limit ? limit : magnitude;
}
/// Here exp(-v^2/2) is the smallest number, and Phi and the density are zero.
template <Real T>
inline constexpr T normal_end = sizeof(T) == 8 ? T(38.6) : T(14.5);

/// exp(-v^2/2): the square keeps its rounding error, which the exponential would magnify.
HYPERTAPE_ALWAYS_INLINE double bell(double v) {
  const Pair square = two_product(v, v);
  return exp_of({-0.5 * square.high, -0.5 * square.low});
}

/// factor exp(x + low), for -106 <= x <= 0, 0.01 <= factor <= 1 and low beside x's last bit. All is done
/// 2^64 too large, within the normal range, so that a denormal result is rounded once, by the last product.
HYPERTAPE_ALWAYS_INLINE float scaled_exp(float factor, float x, float low) {
  using F = Format<float>;
  constexpr float magic = F::round_magic + float(F::bias + 64);
  const float shifted = fused(x, F::log2_e, magic);
  const float k = shifted - magic;
  const float high = fused(k, -F::ln2_high, x);
#if HYPERTAPE_FMA
  const float r = fused(k, -F::ln2_low, high) + low;
  const float slope = fused(r, fused(r, exp_tail(r), 0.5f), 1.0f);
  const float sum = fused(r, slope, 1.0f);
#else
  const float lower = k * F::ln2_low - low;
  const float r = high - lower;
  const float r_error = (high - r) - lower;
  const float sum = 1.0f + (r + (r_error + (r * r) * (0.5f + r * exp_tail(r))));
#endif
  return (factor * sum) * from_bits<float>(to_bits(shifted) << F::mantissa_bits) * 0x1p-64f;
}

/// factor exp(-v^2/2)
HYPERTAPE_ALWAYS_INLINE float bell(float factor, float v) {
  const float half = -0.5f * v, square = half * v;
#if HYPERTAPE_FMA
  const float lost = fused(half, v, -square);
#else
  constexpr float splitter = 0x1p12f + 1.0f;
  const float scaled = splitter * v, high = scaled - (scaled - v), low = v - high;
  const float lost = ((-0.5f * high * high - square) - high * low) - 0.5f * low * low;
#endif
  return scaled_exp(factor, square, lost);
}

/// Phi(-v) of the normal distribution, 0 <= v <= normal_end.
HYPERTAPE_ALWAYS_INLINE double normal_tail(double v) { return bell(v) * scaled_normal_tail(v); }
HYPERTAPE_ALWAYS_INLINE float normal_tail(float v) {
  // Phi(-v) exp(v^2/2) for 0 <= v <= 14.5, to 2^-26.2.
  return bell(
      polynomial(v, 0x1p-1f, 0x1.c0d0d2p-2f, 0x1.7744a0p-3f, 0x1.4cdef4p-5f, 0x1.0dc554p-8f) /
          polynomial(v, 1.0f, 0x1.acaa9ap+0f, 0x1.33d792p+0f, 0x1.e0bdc8p-2f, 0x1.a137dap-4f, 0x1.521a8ap-7f),
      v);
}

}  // namespace detail

/// Nearest integer, halves to even.
template <Real T>
HYPERTAPE_ALWAYS_INLINE T round(T x) {
  constexpr T magic = T(1) / std::numeric_limits<T>::epsilon();
  const T magnitude = math::abs(x);
  const T nearest = math::copysign((magnitude + magic) - magic, x);
  return magnitude < magic ? nearest : x;
}

template <Real T>
HYPERTAPE_ALWAYS_INLINE T floor(T x) {
  const T nearest = math::round(x);
  return nearest > x ? nearest - T(1) : nearest;
}

template <Real T>
HYPERTAPE_ALWAYS_INLINE T rsqrt(T x) {
  return T(1) / math::sqrt(x);
}

/// exp(x) - 1 = 2 (2^(k-1) - 1/2 + 2^(k-1) (exp(r) - 1)): halved, so that 2^1024 does not appear.
template <Real T>
HYPERTAPE_ALWAYS_INLINE T expm1(T x) {
  using F = detail::Format<T>;
  constexpr T lowest = sizeof(T) == 8 ? T(-60) : T(-30), tiny = std::numeric_limits<T>::epsilon() / 4;
  const T low_clamped = x < lowest ? lowest : x;
  const T clamped = low_clamped > F::exp_highest ? F::exp_highest : low_clamped;
  constexpr T magic = F::round_magic + T(F::bias);
  const T shifted = detail::fused(clamped, F::log2_e, magic);
  const T k = shifted - magic;
  const T high = detail::fused(k, -F::ln2_high, clamped);
  const T low = k * F::ln2_low;
  const T r = high - low;
  const T r_error = (high - r) - low;
  const T rest = detail::fused(r * r, detail::fused(r, detail::exp_tail(r), T(0.5)), r_error);
  const T scale = detail::from_bits<T>((detail::to_bits(shifted) - 1) << F::mantissa_bits);
  // The two leading terms nearly cancel for k = 1: their sum keeps its rounding error.
  const T first = scale - T(0.5), second = scale * r;
  const T sum = first + second;
  const T value = (sum + ((second - (sum - first)) + scale * rest)) * T(2);
  return math::abs(x) < tiny ? x : value;
}

/// log(1 + x): the logarithm of the rounded sum u, corrected by what the rounding lost over u.
template <Real T>
HYPERTAPE_ALWAYS_INLINE T log1p(T x) {
  constexpr T infinity = std::numeric_limits<T>::infinity();
  const T outside = x == T(-1) ? -infinity : std::numeric_limits<T>::quiet_NaN();
  const T special = x <= T(-1) ? outside : x;
  const bool ordinary = (x > T(-1)) & (x < infinity) & (x != T(0));
  return ordinary ? detail::log1p_of(x) : special;
}

/// 1 / (1 + exp(-x)), with the exponential of -|x| so that neither tail is lost.
template <Real T>
HYPERTAPE_ALWAYS_INLINE T sigmoid(T x) {
  const T e = math::exp(-math::abs(x));
  return (x < T(0) ? e : T(1)) / (T(1) + e);
}

/// sigmoid'(x) = sigmoid(x) sigmoid(-x)
template <Real T>
HYPERTAPE_ALWAYS_INLINE T sigmoid_slope(T x) {
  const T e = math::exp(-math::abs(x)), sum = T(1) + e;
  return (e / sum) / sum;
}

/// log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|))
template <Real T>
HYPERTAPE_ALWAYS_INLINE T softplus(T x) {
  const T e = math::exp(-math::abs(x));
  return (x > T(0) ? x : T(0)) + detail::log1p_of(e);
}

/// x^y as C defines it; 1 where x is 1 or y is 0, even beside NaN.
HYPERTAPE_ALWAYS_INLINE double pow(double x, double y) {
  const detail::Pair logarithm = detail::log_of(math::abs(x));
  const detail::Pair product = detail::two_product(y, logarithm.high);
  // Within these bounds the exponential over- and underflows by itself.
  const double high = math::max(-746.0, math::min(710.0, product.high));
  const double low = math::abs(product.high) < 800.0 ? product.low + y * logarithm.low : 0.0;
  const double power = detail::exp_of({high, low});
  return detail::signed_power(x, y, power);
}
HYPERTAPE_ALWAYS_INLINE float pow(float x, float y) {
  return detail::signed_power(x, y, static_cast<float>(detail::float_power(math::abs(x), y)));
}

/// x + x p(x^2) below 1, then 1 - erfc(x).
HYPERTAPE_ALWAYS_INLINE double erf(double x) {
  const double magnitude = detail::bounded(x, 28.0), z = magnitude * magnitude;
  // erf(x)/x - 1 in x^2 for |x| <= 1: erf to 2^-56.9.
  const double near =
      x + x * detail::polynomial(z, 0x1.06eba8214db68p-3, -0x1.812746b0379bdp-2, 0x1.ce2f21a040d1ap-4,
                                 -0x1.b82ce311fa978p-6, 0x1.565bccf92a848p-8, -0x1.c02db03d998b4p-11,
                                 0x1.f9a2baa072f3dp-14, -0x1.f4ca4cc7f1655p-17, 0x1.b97fcc3a6f3e6p-20,
                                 -0x1.5c06f222d9c44p-23, 0x1.d7197d6af8480p-27, -0x1.aba93bd8f8c93p-31);
  constexpr double sqrt2 = 0x1.6a09e667f3bcdp+0;
  const double tail = 2.0 * math::exp(-z) * detail::scaled_normal_tail(magnitude * sqrt2);
  return magnitude < 1.0 ? near : math::copysign(1.0 - tail, x);
}
/// x + x p(x^2) below 1, then 1 - exp(q(x)) with q the logarithm of erfc, which needs no division.
HYPERTAPE_ALWAYS_INLINE float erf(float x) {
  const float magnitude = detail::bounded(x, 4.0f), z = magnitude * magnitude;
  // erf(x)/x - 1 in x^2 for |x| <= 1: erf to 2^-28.7.
  const float near =
      x + x * detail::polynomial(z, 0x1.06eba8p-3f, -0x1.81273ep-2f, 0x1.ce2cf8p-4f, -0x1.b7f90ep-6f,
                                 0x1.5405b2p-8f, -0x1.a3f702p-11f, 0x1.496a32p-14f);
  // log(erfc(x)) for 1 <= x <= 4: erf to 2^-29.1.
  const float logarithm =
      detail::polynomial(magnitude, -0x1.66145ap-12f, -0x1.2088eep+0f, -0x1.46bae2p-1f, -0x1.a65376p-4f,
                         0x1.65cbcep-6f, -0x1.825ba8p-9f, 0x1.86de52p-13f);
  const float tail = detail::scaled_exp(1.0f, logarithm, 0.0f);
  return magnitude < 1.0f ? near : math::copysign(1.0f - tail, x);
}

/// (1 + erf(x / sqrt(2))) / 2: the normal distribution's cumulative probability.
template <Real T>
HYPERTAPE_ALWAYS_INLINE T normal_cdf(T x) {
  const T tail = detail::normal_tail(detail::bounded(x, detail::normal_end<T>));
  return x < T(0) ? tail : T(1) - tail;
}
/// exp(-x^2/2) / sqrt(2 pi)
HYPERTAPE_ALWAYS_INLINE double normal_density(double x) {
  return detail::bell(detail::bounded(x, detail::normal_end<double>)) * 0x1.9884533d43651p-2;
}
HYPERTAPE_ALWAYS_INLINE float normal_density(float x) {
  return detail::bell(0x1.988454p-2f, detail::bounded(x, detail::normal_end<float>));
}
/// x normal_cdf(x) = max(x, 0) - |x| normal_cdf(-|x|), where no infinity meets a zero; -0 where it vanishes
/// below.
template <Real T>
HYPERTAPE_ALWAYS_INLINE T gelu(T x) {
  // Floats are bounded as integers, which are in the order of positive numbers: comparing with a constant,
  // the compiler would split what follows. A NaN is lost by that, and comes back with x.
  constexpr T end = detail::normal_end<T>;
  T v;
  if constexpr (sizeof(T) == 4)
    v = detail::from_bits<T>(std::min(detail::to_bits(math::abs(x)), detail::to_bits(end)));
  else
    v = detail::bounded(x, end);
  return detail::fused(-v, detail::normal_tail(v), x < T(0) ? -T(0) : x);
}

}  // namespace HYPERTAPE_ISA
}  // namespace hypertape::math
