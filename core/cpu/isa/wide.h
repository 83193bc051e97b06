// Vectors of the level's width, for kernels that the compiler does not vectorise well by itself: those that
// fold a short row, and functions that every training step spends its time in.
//
// exp, tanh and sigmoid have the bits of math::exp, tanh and sigmoid of the same level: the same roundings in
// the same order, with what scalar code cannot say (bounds in one instruction, a power of two applied by
// another).
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "core/elementwise/scalar_functions.h"

// Unnamed, since each ISA's translation unit compiles a copy of its own that the linker must not merge.
namespace hypertape {
namespace {
namespace wide {

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
// A mask of all lanes: the forms without a mask read an undefined vector, which GCC 12 warns about.
template <int lanes>
inline constexpr __mmask16 every = static_cast<__mmask16>((1 << lanes) - 1);
#elif defined(__AVX2__)
inline constexpr int vector_bytes = 32;
#else
inline constexpr int vector_bytes = 16;
#endif

template <class T>
struct Pack {
  static constexpr int width = vector_bytes / static_cast<int>(sizeof(T));
  typedef T Vector __attribute__((vector_size(vector_bytes)));
  typedef math::detail::Bits<T> Bits __attribute__((vector_size(vector_bytes)));
  Vector v;

  HYPERTAPE_ALWAYS_INLINE static Pack all(T x) { return {x - Vector{}}; }
  HYPERTAPE_ALWAYS_INLINE static Pack load(const T* from) {
    Pack x;
    std::memcpy(&x.v, from, sizeof x.v);
    return x;
  }
  HYPERTAPE_ALWAYS_INLINE void store(T* to) const { std::memcpy(to, &v, sizeof v); }
  /// Without reading the line or keeping it; `to` is aligned to a vector. See finish_past_caches.
  HYPERTAPE_ALWAYS_INLINE void store_past_caches(T* to) const {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), reinterpret_cast<__m512i>(v));
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(v));
#elif defined(__SSE2__)
    _mm_stream_si128(reinterpret_cast<__m128i*>(to), reinterpret_cast<__m128i>(v));
#else
    store(to);
#endif
  }

  /// The first `count` elements, 0 to width; the others are `rest`, and their memory is not touched.
  HYPERTAPE_ALWAYS_INLINE static Pack load_part(const T* from, std::int64_t count, T rest) {
#if defined(__AVX512F__)
    const auto mask = (1u << count) - 1u;
    if constexpr (sizeof(T) == 4)
      return {_mm512_mask_loadu_ps(all(rest).v, static_cast<__mmask16>(mask), from)};
    else
      return {_mm512_mask_loadu_pd(all(rest).v, static_cast<__mmask8>(mask), from)};
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) {
      const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
      return {_mm256_blendv_ps(all(rest).v, _mm256_maskload_ps(from, mask), _mm256_castsi256_ps(mask))};
    } else {
      const __m256i mask = _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
      return {_mm256_blendv_pd(all(rest).v, _mm256_maskload_pd(from, mask), _mm256_castsi256_pd(mask))};
    }
#else
    T part[width];
    for (int i = 0; i < width; ++i) part[i] = i < count ? from[i] : rest;
    return load(part);
#endif
  }
  HYPERTAPE_ALWAYS_INLINE void store_part(T* to, std::int64_t count) const {
#if defined(__AVX512F__)
    const auto mask = (1u << count) - 1u;
    if constexpr (sizeof(T) == 4)
      _mm512_mask_storeu_ps(to, static_cast<__mmask16>(mask), v);
    else
      _mm512_mask_storeu_pd(to, static_cast<__mmask8>(mask), v);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4)
      _mm256_maskstore_ps(to,
                          _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                                             _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
                          v);
    else
      _mm256_maskstore_pd(to, _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3)),
                          v);
#else
    for (int i = 0; i < width; ++i)
      if (i < count) to[i] = v[i];
#endif
  }
};

/// Before another thread is told of what store_past_caches has written.
HYPERTAPE_ALWAYS_INLINE void finish_past_caches() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

template <class T>
HYPERTAPE_ALWAYS_INLINE Pack<T> operator+(Pack<T> a, Pack<T> b) {
  return {a.v + b.v};
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Pack<T> operator-(Pack<T> a, Pack<T> b) {
  return {a.v - b.v};
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Pack<T> operator*(Pack<T> a, Pack<T> b) {
  return {a.v * b.v};
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Pack<T> operator/(Pack<T> a, Pack<T> b) {
  return {a.v / b.v};
}

/// a b + c as math::detail::fused.
template <class T>
HYPERTAPE_ALWAYS_INLINE Pack<T> fused(Pack<T> a, Pack<T> b, Pack<T> c) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return {_mm512_fmadd_ps(a.v, b.v, c.v)};
  else
    return {_mm512_fmadd_pd(a.v, b.v, c.v)};
#elif defined(__AVX2__) && HYPERTAPE_FMA
  if constexpr (sizeof(T) == 4)
    return {_mm256_fmadd_ps(a.v, b.v, c.v)};
  else
    return {_mm256_fmadd_pd(a.v, b.v, c.v)};
#elif defined(__ARM_FEATURE_FMA)
  for (int i = 0; i < Pack<T>::width; ++i) c.v[i] = math::detail::fused<T>(a.v[i], b.v[i], c.v[i]);
  return c;
#else
  return a * b + c;
#endif
}

/// b where either is NaN or both are zero.
template <class T>
HYPERTAPE_ALWAYS_INLINE Pack<T> smaller(Pack<T> a, Pack<T> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return {_mm512_maskz_min_ps(every<16>, a.v, b.v)};
  else
    return {_mm512_maskz_min_pd(static_cast<__mmask8>(every<8>), a.v, b.v)};
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return {_mm256_min_ps(a.v, b.v)};
  else
    return {_mm256_min_pd(a.v, b.v)};
#else
  return {a.v < b.v ? a.v : b.v};
#endif
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Pack<T> larger(Pack<T> a, Pack<T> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return {_mm512_maskz_max_ps(every<16>, a.v, b.v)};
  else
    return {_mm512_maskz_max_pd(static_cast<__mmask8>(every<8>), a.v, b.v)};
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return {_mm256_max_ps(a.v, b.v)};
  else
    return {_mm256_max_pd(a.v, b.v)};
#else
  return {a.v > b.v ? a.v : b.v};
#endif
}

/// Bit i says whether elements i are equal; a NaN equals nothing.
template <class T>
HYPERTAPE_ALWAYS_INLINE unsigned equal_lanes(Pack<T> a, Pack<T> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ);
  else
    return _mm512_cmp_pd_mask(a.v, b.v, _CMP_EQ_OQ);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)));
  else
    return static_cast<unsigned>(_mm256_movemask_pd(_mm256_cmp_pd(a.v, b.v, _CMP_EQ_OQ)));
#else
  unsigned lanes = 0;
  for (int i = 0; i < Pack<T>::width; ++i) lanes |= static_cast<unsigned>(a.v[i] == b.v[i]) << i;
  return lanes;
#endif
}

template <class T>
HYPERTAPE_ALWAYS_INLINE typename Pack<T>::Bits bits_of(Pack<T> x) {
  return __builtin_bit_cast(typename Pack<T>::Bits, x.v);
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Pack<T> from_bits(typename Pack<T>::Bits bits) {
  return {__builtin_bit_cast(typename Pack<T>::Vector, bits)};
}

// A scalar polynomial's coefficients, met by a vector.
template <class T>
struct Horner {
  Pack<T> x;
  HYPERTAPE_ALWAYS_INLINE Pack<T> operator()(T c0) const { return Pack<T>::all(c0); }
  template <class... Rest>
  HYPERTAPE_ALWAYS_INLINE Pack<T> operator()(T c0, Rest... rest) const {
    return fused(x, (*this)(rest...), Pack<T>::all(c0));
  }
};

template <class T>
HYPERTAPE_ALWAYS_INLINE Pack<T> exp_tail(Pack<T> r) {
  return math::detail::exp_tail_coefficients<T>(Horner<T>{r});
}

/// Where x is below a bound, to be zeroed; not where it is NaN.
template <class T>
struct Lower {
#if defined(__AVX512F__)
  std::conditional_t<sizeof(T) == 4, __mmask16, __mmask8> others;
  HYPERTAPE_ALWAYS_INLINE Lower(Pack<T> x, T bound) {
    if constexpr (sizeof(T) == 4)
      others = _mm512_cmp_ps_mask(x.v, Pack<T>::all(bound).v, _CMP_NLT_UQ);
    else
      others = _mm512_cmp_pd_mask(x.v, Pack<T>::all(bound).v, _CMP_NLT_UQ);
  }
  HYPERTAPE_ALWAYS_INLINE Pack<T> zeroed(Pack<T> y) const {
    if constexpr (sizeof(T) == 4)
      return {_mm512_maskz_mov_ps(others, y.v)};
    else
      return {_mm512_maskz_mov_pd(others, y.v)};
  }
#else
  typename Pack<T>::Bits others;
  HYPERTAPE_ALWAYS_INLINE Lower(Pack<T> x, T bound) {
    others = __builtin_bit_cast(typename Pack<T>::Bits, ~(x.v < Pack<T>::all(bound).v));
  }
  HYPERTAPE_ALWAYS_INLINE Pack<T> zeroed(Pack<T> y) const { return from_bits<T>(bits_of(y) & others); }
#endif
};

/// x 2^k, rounded once; the mantissa of `shifted` ends in k + 2 bias.
template <class T>
HYPERTAPE_ALWAYS_INLINE Pack<T> times_power(Pack<T> x, [[maybe_unused]] Pack<T> k,
                                            [[maybe_unused]] Pack<T> shifted) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return {_mm512_maskz_scalef_ps(every<16>, x.v, k.v)};
  else
    return {_mm512_maskz_scalef_pd(static_cast<__mmask8>(every<8>), x.v, k.v)};
#else
  constexpr int mantissa_bits = math::detail::Format<T>::mantissa_bits;
  const typename Pack<T>::Bits exponent = bits_of(shifted), half = exponent >> 1;
  return (x * from_bits<T>(half << mantissa_bits)) * from_bits<T>((exponent - half) << mantissa_bits);
#endif
}

/// math::exp, bit for bit.
template <class T>
HYPERTAPE_ALWAYS_INLINE Pack<T> exp(Pack<T> x) {
  using F = math::detail::Format<T>;
  using P = Pack<T>;
  // Far below, the result is 0 without an underflow, which would take a hundred cycles: rows end in
  // -infinity.
  const Lower<T> lower(x, F::exp_lowest);
  const P bounded = lower.zeroed(smaller(P::all(F::exp_highest), x));  // the constant first: NaN stays
  const P magic = P::all(F::round_magic + T(2 * F::bias));
  const P shifted = fused(bounded, P::all(F::log2_e), magic);
  const P k = shifted - magic;
  const P high = fused(k, P::all(-F::ln2_high), bounded);
#if HYPERTAPE_FMA
  const P r = fused(k, P::all(-F::ln2_low), high);
  const P slope = fused(r, fused(r, exp_tail(r), P::all(T(0.5))), P::all(T(1)));
  const P sum = fused(r, slope, P::all(T(1)));
#else
  const P low = k * P::all(F::ln2_low);
  const P r = high - low;
  const P r_error = (high - r) - low;
  const P sum = P::all(T(1)) + (r + (r_error + (r * r) * (P::all(T(0.5)) + r * exp_tail(r))));
#endif
  return lower.zeroed(times_power(sum, k, shifted));
}

/// |x| and the sign bit alone.
template <class T>
HYPERTAPE_ALWAYS_INLINE Pack<T> abs(Pack<T> x) {
  return from_bits<T>(bits_of(x) & (~math::detail::Bits<T>(0) >> 1));
}
template <class T>
HYPERTAPE_ALWAYS_INLINE typename Pack<T>::Bits sign_bits(Pack<T> x) {
  return bits_of(x) & ~(~math::detail::Bits<T>(0) >> 1);
}

/// math::tanh, bit for bit.
template <class T>
HYPERTAPE_ALWAYS_INLINE Pack<T> tanh(Pack<T> x) {
  using F = math::detail::Format<T>;
  using P = Pack<T>;
  const P one = P::all(T(1)), magnitude = abs(x);
  const P bounded = smaller(P::all(F::tanh_is_one), magnitude);
  const P doubled = bounded + bounded;
  const P magic = P::all(F::round_magic + T(F::bias));
  const P shifted = fused(doubled, P::all(F::log2_e), magic);
  const P k = shifted - magic;
  const P scale = from_bits<T>(bits_of(shifted) << F::mantissa_bits);
#if HYPERTAPE_FMA
  const P r = sizeof(T) == 4 ? fused(k, P::all(-F::ln2), doubled)
                             : fused(k, P::all(-F::ln2_low), fused(k, P::all(-F::ln2_high), doubled));
  const P slope = fused(r, fused(r, exp_tail(r), P::all(T(0.5))), one);
  const P exp_plus_one = fused(scale, fused(r, slope, one), one);
#else
  const P r = (doubled - k * P::all(F::ln2_high)) - k * P::all(F::ln2_low);
  const P series = r + (r * r) * (P::all(T(0.5)) + r * exp_tail(r));
  const P exp_plus_one = (scale + one) + scale * series;
#endif

  const P z = bounded * bounded;
  const auto tail = math::detail::tanh_tail_coefficients<T>(Horner<T>{z});
  const auto near = magnitude.v < P::all(T(0.625)).v;
  const P numerator{near ? ((bounded * z) * tail.numerator).v : P::all(T(-2)).v};
  const P denominator{near ? tail.denominator.v : exp_plus_one.v};
  const P leading{near ? bounded.v : one.v};
  return from_bits<T>(bits_of(abs(leading + numerator / denominator)) | sign_bits(x));
}

/// math::sigmoid, bit for bit.
template <class T>
HYPERTAPE_ALWAYS_INLINE Pack<T> sigmoid(Pack<T> x) {
  using P = Pack<T>;
  const P e = exp(from_bits<T>(bits_of(x) | ~(~math::detail::Bits<T>(0) >> 1)));
  const P upper{x.v < P::all(T(0)).v ? e.v : P::all(T(1)).v};
  return upper / (P::all(T(1)) + e);
}

/// Sixteen neighbours: the lanes of sums, whatever the width of a vector is.
template <class T>
struct Lanes {
  static constexpr int count = 16, packs = count / Pack<T>::width;
  Pack<T> part[packs];

  HYPERTAPE_ALWAYS_INLINE static Lanes all(T x) {
    Lanes lanes;
#pragma GCC unroll 8
    for (int p = 0; p < packs; ++p) lanes.part[p] = Pack<T>::all(x);
    return lanes;
  }
  HYPERTAPE_ALWAYS_INLINE static Lanes load(const T* from) {
    Lanes lanes;
#pragma GCC unroll 8
    for (int p = 0; p < packs; ++p) lanes.part[p] = Pack<T>::load(from + p * Pack<T>::width);
    return lanes;
  }
  HYPERTAPE_ALWAYS_INLINE void store(T* to) const {
#pragma GCC unroll 8
    for (int p = 0; p < packs; ++p) part[p].store(to + p * Pack<T>::width);
  }
  HYPERTAPE_ALWAYS_INLINE static std::int64_t in_pack(std::int64_t n, int p) {
    const std::int64_t left = n - p * Pack<T>::width;
    return left < 0 ? 0 : (left > Pack<T>::width ? Pack<T>::width : left);
  }
  /// The first `n` elements, fewer than 16; the others are `rest`.
  HYPERTAPE_ALWAYS_INLINE static Lanes load_part(const T* from, std::int64_t n, T rest) {
    Lanes lanes;
#pragma GCC unroll 8
    for (int p = 0; p < packs; ++p)
      lanes.part[p] = Pack<T>::load_part(from + p * Pack<T>::width, in_pack(n, p), rest);
    return lanes;
  }
  HYPERTAPE_ALWAYS_INLINE void store_part(T* to, std::int64_t n) const {
#pragma GCC unroll 8
    for (int p = 0; p < packs; ++p) part[p].store_part(to + p * Pack<T>::width, in_pack(n, p));
  }
};

/// f of the packs of some lanes.
template <class T, class F, class... Others>
HYPERTAPE_ALWAYS_INLINE Lanes<T> each(const F& f, const Lanes<T>& a, const Others&... others) {
  Lanes<T> result;
#pragma GCC unroll 8
  for (int p = 0; p < Lanes<T>::packs; ++p) result.part[p] = f(a.part[p], others.part[p]...);
  return result;
}
template <class T>
HYPERTAPE_ALWAYS_INLINE Lanes<T> operator+(const Lanes<T>& a, const Lanes<T>& b) {
  return each([](auto x, auto y) { return x + y; }, a, b);
}

template <class Vector, int... i>
HYPERTAPE_ALWAYS_INLINE auto halves(const Vector& v, std::integer_sequence<int, i...>) {
  struct {
    decltype(__builtin_shufflevector(v, v, i...)) low, high;
  } parts{__builtin_shufflevector(v, v, i...), __builtin_shufflevector(v, v, (i + int(sizeof...(i)))...)};
  return parts;
}
// The two halves of a vector of `width` elements joined, and so on down to one.
template <class T, int width, class Vector, class Join>
HYPERTAPE_ALWAYS_INLINE T fold_vector(const Vector& v, const Join& join) {
  if constexpr (width == 2) {
    return join(v[0], v[1]);
  } else {
    const auto [low, high] = halves(v, std::make_integer_sequence<int, width / 2>());
    return fold_vector<T, width / 2>(join(low, high), join);
  }
}

/// The lanes in one: i with i + 8, then with i + 4, i + 2, i + 1.
template <class T, class Join>
HYPERTAPE_ALWAYS_INLINE T fold(Lanes<T> lanes, const Join& join) {
#pragma GCC unroll 8
  for (int half = Lanes<T>::packs / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int p = 0; p < half; ++p) lanes.part[p].v = join(lanes.part[p].v, lanes.part[p + half].v);
  return fold_vector<T, Pack<T>::width>(lanes.part[0].v, join);
}
template <class T>
HYPERTAPE_ALWAYS_INLINE T sum_of(const Lanes<T>& lanes) {
  return fold(lanes, [](auto a, auto b) { return a + b; });
}
/// Ignores NaN where it stands beside a number on its right; +-0 may be either.
template <class T>
HYPERTAPE_ALWAYS_INLINE T largest_of(const Lanes<T>& lanes) {
  return fold(lanes, [](auto a, auto b) { return a > b ? a : b; });
}

}  // namespace wide
}  // namespace
}  // namespace hypertape
