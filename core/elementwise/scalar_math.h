// Branch-free scalar functions for elementwise bodies, written so that the compiler vectorises
// `for (i...) y[i] = math::exp(x[i])` on every instruction set, with the same bits in a vector, in a loop's
// tail and alone, and on AVX2 and AVX-512.
//
// What the same bits take: only + - * / and sqrt (each correctly rounded everywhere), -ffp-contract=off, no
// library call, and fma only where it is written, as detail::fused. The baseline has no fma, and multiplies
// and adds instead: its last bits differ, as those of its products do. Without fma, exp took 1.4 times as
// long in float and 1.7 times in double on AVX-512, and a correctly rounded substitute at the baseline would
// take ten times as long. What vectorising takes: all paths computed and selected, bit tricks by
// __builtin_bit_cast on integers as wide as the float, and no float <-> int conversion (for 64 bits AVX2 has
// none): an integer is read off the low mantissa bits after adding 1.5 * 2^52. Compile with -O3
// -fno-math-errno -fno-trapping-math.
//
// Largest errors in ulp, over every seventh float and some 10^7 doubles on each interval where they are
// largest:
//
//           with fma        without
//   exp     0.89, 0.89      0.90, 0.88
//   log     0.83, 0.83      0.84, 0.88
//   tanh    1.37, 1.40      1.20, 1.24
//
// All three are nondecreasing over the positive floats.
// Further functions: scalar_functions.h.
//
// Bodies are HYPERTAPE_ALWAYS_INLINE templates (a call in the loop stops vectorising) and call everything as
// `math::name(x)`, for T = float, double, Dual<...> or a class type whose functions ADL finds. A constant
// that multiplies or adds is written `math::scalar_of<T>(2) * x`, never `2.0 * x`: that would promote a
// float, and `T(2) * x` would give a Dual a tangent of 0 * x, NaN where x is infinite.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

// Names the instruction set in every symbol, so that the linker cannot merge copies compiled with different
// -m flags: a baseline caller could otherwise end up in an AVX-512 copy. Code compiled once per ISA uses it
// the same way.
#if defined(__AVX512F__)
#define HYPERTAPE_ISA isa_avx512
#elif defined(__AVX2__)
#define HYPERTAPE_ISA isa_avx2
#else
#define HYPERTAPE_ISA isa_baseline
#endif

#define HYPERTAPE_ALWAYS_INLINE [[gnu::always_inline]] inline

#define HYPERTAPE_INLINE_LAMBDA __attribute__((always_inline))

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define HYPERTAPE_FMA 1
#else
#define HYPERTAPE_FMA 0
#endif

namespace hypertape::math {
inline namespace HYPERTAPE_ISA {

template <class T>
concept Real = std::same_as<T, float> || std::same_as<T, double>;

/// A type that is no number itself: its functions are found by ADL.
template <class T>
concept RealLike = std::is_class_v<T>;

template <class T>
struct ScalarOf {
  using type = double;
};
template <Real T>
struct ScalarOf<T> {
  using type = T;
};

/// The type of a C++ constant beside a T: float for float and Dual<float>, else double.
template <class T>
using scalar_of = typename ScalarOf<T>::type;

namespace detail {

template <class T>
struct Format;

template <>
struct Format<double> {
  using Bits = std::uint64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr Bits bias = 1023;
  static constexpr Bits one = 0x3ff0000000000000, sqrt_half = 0x3fe6a09e667f3bcd;
  static constexpr double round_magic = 0x1.8p52;
  static constexpr double log2_e = 0x1.71547652b82fep+0, ln2 = 0x1.62e42fefa39efp-1;
  // 42 and 16 bits: k * ln2_high is exact for every exponent k.
  static constexpr double ln2_high = 0x1.62e42fefa38p-1, ln2_low = 0x1.ef35793c7673p-45;
  static constexpr double exp_lowest = -746.0, exp_highest = 710.0;
  static constexpr double tanh_is_one = 20.0;
};

template <>
struct Format<float> {
  using Bits = std::uint32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr Bits bias = 127;
  static constexpr Bits one = 0x3f800000, sqrt_half = 0x3f3504f3;
  static constexpr float round_magic = 0x1.8p23f;
  static constexpr float log2_e = 0x1.715476p+0f, ln2 = 0x1.62e43p-1f;
  static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
  static constexpr float exp_lowest = -104.0f, exp_highest = 89.0f;
  static constexpr float tanh_is_one = 10.0f;
};

template <Real T>
using Bits = typename Format<T>::Bits;

template <Real T>
HYPERTAPE_ALWAYS_INLINE constexpr Bits<T> to_bits(T x) {
  return __builtin_bit_cast(Bits<T>, x);
}

template <Real T>
HYPERTAPE_ALWAYS_INLINE constexpr T from_bits(Bits<T> bits) {
  return __builtin_bit_cast(T, bits);
}

/// a b + c, rounded once where the instruction set can.
template <Real T>
HYPERTAPE_ALWAYS_INLINE constexpr T fused(T a, T b, T c) {
#if HYPERTAPE_FMA
  if constexpr (std::same_as<T, float>)
    return __builtin_fmaf(a, b, c);
  else
    return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

/// c0 + c1 x + c2 x^2 + ...
template <Real T>
HYPERTAPE_ALWAYS_INLINE constexpr T polynomial(T, T c0) {
  return c0;
}
template <Real T, class... Rest>
HYPERTAPE_ALWAYS_INLINE constexpr T polynomial(T x, T c0, Rest... rest) {
  return fused(x, polynomial(x, rest...), c0);
}

// Minimax coefficients, each by a Remez exchange on the interval and with the error weight of its use
// (tanh: least squares with Lawson weights). The comments give the relative error of the exact coefficients.

/// (exp(r) - 1 - r - r^2/2) / r^3 for |r| <= ln(2)/2: exp to 2^-57.4 (double), 2^-28.0 (float). `evaluate` is
/// given the coefficients.
template <Real T>
HYPERTAPE_ALWAYS_INLINE auto exp_tail_coefficients(const auto& evaluate) {
  if constexpr (std::same_as<T, double>)
    return evaluate(0x1.5555555555501p-3, 0x1.55555555531eap-5, 0x1.11111111289acp-7, 0x1.6c16c17ccd7bap-10,
                    0x1.a01a011bd2c26p-13, 0x1.a019ab09a393ep-16, 0x1.71df55b31e3p-19, 0x1.289fb13ba3c86p-22,
                    0x1.ad1fd8d38b8c3p-26);
  else
    return evaluate(0x1.5554a4p-3f, 0x1.555688p-5f, 0x1.122fcp-7f, 0x1.6b6e18p-10f);
}
template <Real T>
HYPERTAPE_ALWAYS_INLINE T exp_tail(T r) {
  return exp_tail_coefficients<T>([r](auto... c) HYPERTAPE_INLINE_LAMBDA { return polynomial(r, c...); });
}

/// (2 atanh(s) - 2 s) / s^3 in z = s^2 for |s| <= 3 - sqrt(8): log to 2^-59.5 (double), 2^-30.2 (float).
HYPERTAPE_ALWAYS_INLINE double log_tail(double z) {
  return polynomial(z, 0x1.5555555555593p-1, 0x1.999999997fb31p-2, 0x1.2492494217a1ep-2, 0x1.c71c51e7f7a88p-3,
                    0x1.7466462c67ad6p-3, 0x1.39a0f5079f6cdp-3, 0x1.2f0d8e56e4273p-3);
}
HYPERTAPE_ALWAYS_INLINE float log_tail(float z) {
  return polynomial(z, 0x1.55557ap-1f, 0x1.995e9cp-2f, 0x1.31e678p-2f);
}

template <class T>
struct Ratio {
  T numerator, denominator;
};

/// (tanh(x)/x - 1) / x^2 in z = x^2 for |x| <= 0.625: tanh to 2^-60.5 (double), 2^-27.7 (float).
template <Real T>
HYPERTAPE_ALWAYS_INLINE auto tanh_tail_coefficients(const auto& evaluate) {
  using Value = decltype(evaluate(T(1)));
  if constexpr (std::same_as<T, double>)
    return Ratio<Value>{evaluate(-0x1.5555555555554p-2, -0x1.4fd1a4b2dc4c1p-6, -0x1.a1846dd88cep-13),
                        evaluate(1.0, 0x1.d890e87b22d6cp-2, 0x1.7d8f867dc5383p-6, 0x1.b0ee0cbf547b4p-13)};
  else
    return Ratio<Value>{evaluate(-0x1.555544p-2f, -0x1.94180cp-10f), evaluate(1.0f, 0x1.9e529cp-2f)};
}
template <Real T>
HYPERTAPE_ALWAYS_INLINE Ratio<T> tanh_tail(T z) {
  return tanh_tail_coefficients<T>([z](auto... c) HYPERTAPE_INLINE_LAMBDA { return polynomial(z, c...); });
}

/// x = 2^exponent (1 + fraction) with sqrt(1/2) <= 1 + fraction < sqrt(2), for 0 < x < infinity.
template <Real T>
struct Split {
  T fraction, exponent;
};

/// The same of 2^(bias - offset) x, which is no denormal number.
template <Real T>
HYPERTAPE_ALWAYS_INLINE Split<T> split_normal(T x, T offset = T(Format<T>::bias)) {
  using F = Format<T>;
  constexpr Bits<T> mantissa = (Bits<T>(1) << F::mantissa_bits) - 1;
  // Moving the bits up by 1 - sqrt(1/2) makes the exponent field step at sqrt(1/2) instead of 1.
  const Bits<T> moved = to_bits(x) + (F::one - F::sqrt_half);
  const T fraction = from_bits<T>((moved & mantissa) + F::sqrt_half) - T(1);
  constexpr T integer_magic = F::round_magic;
  const T exponent =
      (from_bits<T>((moved >> F::mantissa_bits) | to_bits(integer_magic)) - integer_magic) - offset;
  return {fraction, exponent};
}

template <Real T>
HYPERTAPE_ALWAYS_INLINE Split<T> split_exponent(T x) {
  using F = Format<T>;
  constexpr T smallest_normal = std::numeric_limits<T>::min();
  constexpr T denormal_scale = from_bits<T>((F::bias + Bits<T>(F::mantissa_bits) + 2) << F::mantissa_bits);

  const bool denormal = x < smallest_normal;
  const T normal = denormal ? x * denormal_scale : x;
  const T exponent_offset = denormal ? T(F::bias) + T(F::mantissa_bits + 2) : T(F::bias);
  return split_normal(normal, exponent_offset);
}

}  // namespace detail

/// condition ? a : b, both computed.
template <Real T>
HYPERTAPE_ALWAYS_INLINE constexpr T select(bool condition, T a, T b) {
  return condition ? a : b;
}

/// x > 0 ? a : b; b where x is NaN.
template <Real T>
HYPERTAPE_ALWAYS_INLINE constexpr T where_positive(T x, T a, T b) {
  return x > T(0) ? a : b;
}

/// The larger; b in a tie, NaN if either is.
template <Real T>
HYPERTAPE_ALWAYS_INLINE constexpr T max(T a, T b) {
  return a != a ? a : (a > b ? a : b);
}

/// The smaller; b in a tie, NaN if either is.
template <Real T>
HYPERTAPE_ALWAYS_INLINE constexpr T min(T a, T b) {
  return a != a ? a : (a < b ? a : b);
}

template <Real T>
HYPERTAPE_ALWAYS_INLINE T abs(T x) {
  return detail::from_bits<T>(detail::to_bits(x) & (~detail::Bits<T>(0) >> 1));
}

template <Real T>
HYPERTAPE_ALWAYS_INLINE T copysign(T magnitude, T sign) {
  constexpr detail::Bits<T> rest = ~detail::Bits<T>(0) >> 1;
  return detail::from_bits<T>((detail::to_bits(magnitude) & rest) | (detail::to_bits(sign) & ~rest));
}

/// -1, 0 or 1; NaN for NaN. The derivative of abs.
template <Real T>
HYPERTAPE_ALWAYS_INLINE constexpr T sign(T x) {
  return x > T(0) ? T(1) : (x < T(0) ? T(-1) : x);
}

template <Real T>
HYPERTAPE_ALWAYS_INLINE constexpr T square(T x) {
  return x * x;
}

template <Real T>
HYPERTAPE_ALWAYS_INLINE T sqrt(T x) {
  if constexpr (std::same_as<T, float>) {
    return __builtin_sqrtf(x);
  } else {
    return __builtin_sqrt(x);
  }
}

/// exp(x) = 2^k exp(r), x = k ln 2 + r.
template <Real T>
HYPERTAPE_ALWAYS_INLINE T exp(T x) {
  using F = detail::Format<T>;
  constexpr T magic = F::round_magic + T(2 * F::bias);
  const T shifted = detail::fused(x, F::log2_e, magic);
  const T k = shifted - magic;
  const T high = detail::fused(k, -F::ln2_high, x);
#if HYPERTAPE_FMA
  const T r = detail::fused(k, -F::ln2_low, high);
  const T slope = detail::fused(r, detail::fused(r, detail::exp_tail(r), T(0.5)), T(1));
  const T sum = detail::fused(r, slope, T(1));
#else
  const T low = k * F::ln2_low;
  const T r = high - low;
  const T r_error = (high - r) - low;
  const T sum = T(1) + (r + (r_error + (r * r) * (T(0.5) + r * detail::exp_tail(r))));
#endif

  // 2^k as a product of two powers: it may be outside the normal range while the result is inside, and a
  // denormal result is rounded once, by the last product. The mantissa of `shifted` ends in k + 2 bias, whose
  // halves are the two biased exponents; what stands above is shifted out.
  const detail::Bits<T> exponent = detail::to_bits(shifted);
  const detail::Bits<T> half = exponent >> 1;
  const T scale = detail::from_bits<T>(half << F::mantissa_bits);
  const T other_scale = detail::from_bits<T>((exponent - half) << F::mantissa_bits);
  const T inside = (sum * scale) * other_scale;
  // Selected at the end: bounding x instead makes the compiler split the paths, with three comparisons more.
  const T above = x > F::exp_highest ? std::numeric_limits<T>::infinity() : inside;
  return x < F::exp_lowest ? T(0) : above;
}

/// log(x) = k ln 2 + log(1 + f), sqrt(1/2) <= 1 + f < sqrt(2), and with s = f / (2 + f)
/// log(1 + f) = 2 atanh(s) = f - f^2/2 + s (f^2/2 + s^2 tail(s^2)): the leading terms are nearly exact.
template <Real T>
HYPERTAPE_ALWAYS_INLINE T log(T x) {
  using F = detail::Format<T>;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  const auto [f, k] = detail::split_exponent(x);

  const T s = f / (T(2) + f);
  const T z = s * s;
  const T half_square = T(0.5) * f * f;
  const T correction = detail::fused(s, detail::fused(z, detail::log_tail(z), half_square), k * F::ln2_low);
  const T finite = detail::fused(k, F::ln2_high, f - (half_square - correction));

  const T nonpositive = x == T(0) ? -infinity : std::numeric_limits<T>::quiet_NaN();
  const T special = x <= T(0) ? nonpositive : x;
  const bool ordinary = (x > T(0)) & (x < infinity);
  return ordinary ? finite : special;
}

/// With a = |x|: a + a^3 p(a^2)/q(a^2) up to 0.625, then 1 - 2/(exp(2a) + 1); one division serves both.
template <Real T>
HYPERTAPE_ALWAYS_INLINE T tanh(T x) {
  using F = detail::Format<T>;
  constexpr T magic = F::round_magic + T(F::bias);
  const T magnitude = math::abs(x);

  const T clamped = magnitude > F::tanh_is_one ? F::tanh_is_one : magnitude;
  const T doubled = clamped + clamped;
  const T shifted = detail::fused(doubled, F::log2_e, magic);
  const T k = shifted - magic;
  const T scale = detail::from_bits<T>(detail::to_bits(shifted) << F::mantissa_bits);
#if HYPERTAPE_FMA
  // What a float's ln 2 in one part does to r, k times 2^-29, is small beside the share of the exponential.
  const T r = sizeof(T) == 4 ? detail::fused(k, -F::ln2, doubled)
                             : detail::fused(k, -F::ln2_low, detail::fused(k, -F::ln2_high, doubled));
  const T slope = detail::fused(r, detail::fused(r, detail::exp_tail(r), T(0.5)), T(1));
  const T exp_plus_one = detail::fused(scale, detail::fused(r, slope, T(1)), T(1));
#else
  const T r = (doubled - k * F::ln2_high) - k * F::ln2_low;
  const T series = r + (r * r) * (T(0.5) + r * detail::exp_tail(r));
  const T exp_plus_one = (scale + T(1)) + scale * series;
#endif

  const T z = clamped * clamped;
  const detail::Ratio<T> tail = detail::tanh_tail(z);
  const bool small = magnitude < T(0.625);
  const T numerator = small ? (clamped * z) * tail.numerator : T(-2);
  const T denominator = small ? tail.denominator : exp_plus_one;
  const T leading = small ? clamped : T(1);
  return math::copysign(leading + numerator / denominator, x);
}

// Class types: the function that ADL finds, more specialised or no template, wins over these.
template <RealLike T>
HYPERTAPE_ALWAYS_INLINE auto exp(const T& x) {
  return exp(x);
}
template <RealLike T>
HYPERTAPE_ALWAYS_INLINE auto log(const T& x) {
  return log(x);
}
template <RealLike T>
HYPERTAPE_ALWAYS_INLINE auto tanh(const T& x) {
  return tanh(x);
}
template <RealLike T>
HYPERTAPE_ALWAYS_INLINE auto sqrt(const T& x) {
  return sqrt(x);
}
template <RealLike T>
HYPERTAPE_ALWAYS_INLINE auto abs(const T& x) {
  return abs(x);
}
template <RealLike T>
HYPERTAPE_ALWAYS_INLINE auto sign(const T& x) {
  return sign(x);
}
template <RealLike T>
HYPERTAPE_ALWAYS_INLINE auto square(const T& x) {
  return square(x);
}
template <RealLike T>
HYPERTAPE_ALWAYS_INLINE auto max(const T& a, const T& b) {
  return max(a, b);
}
template <RealLike T>
HYPERTAPE_ALWAYS_INLINE auto min(const T& a, const T& b) {
  return min(a, b);
}
template <class Condition, RealLike T>
HYPERTAPE_ALWAYS_INLINE auto select(const Condition& condition, const T& a, const T& b) {
  return select(condition, a, b);
}
template <RealLike T>
HYPERTAPE_ALWAYS_INLINE auto where_positive(const T& x, const T& a, const T& b) {
  return where_positive(x, a, b);
}

}  // namespace HYPERTAPE_ISA
}  // namespace hypertape::math
