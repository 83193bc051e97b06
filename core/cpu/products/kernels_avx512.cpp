// Product kernels for AVX-512; see core/cpu/products/tile.h.
#if defined(__x86_64__)

#include <immintrin.h>

#include "core/cpu/products/tile.h"

namespace hypertape::detail {
namespace {

struct Float32 {
  using Element = float;
  using Vector = __m512;
  static constexpr int lanes = 16;
  static constexpr bool many_registers = true;
  static constexpr int most_vectors = 4;
  static constexpr int usual_vectors = 2;
  static constexpr int most_rows[] = {0, 16, 14, 9, 6};

  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector load(const float* from) { return _mm512_loadu_ps(from); }
  static Vector broadcast(const float* from) { return _mm512_set1_ps(*from); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static void store(float* to, Vector x) { _mm512_storeu_ps(to, x); }
  static __mmask16 mask(int count) { return static_cast<__mmask16>((1U << count) - 1U); }
  static Vector load_part(const float* from, int count) { return _mm512_maskz_loadu_ps(mask(count), from); }
  static void store_part(float* to, Vector x, int count, bool accumulate) {
    const __mmask16 m = mask(count);
    if (accumulate) x = _mm512_add_ps(_mm512_maskz_loadu_ps(m, to), x);
    _mm512_mask_storeu_ps(to, m, x);
  }

  static Vector load_quads(const float* const* from, int offset) {
    Vector x = _mm512_castps128_ps512(_mm_loadu_ps(from[0] + offset));
    x = _mm512_insertf32x4(x, _mm_loadu_ps(from[1] + offset), 1);
    x = _mm512_insertf32x4(x, _mm_loadu_ps(from[2] + offset), 2);
    return _mm512_insertf32x4(x, _mm_loadu_ps(from[3] + offset), 3);
  }
  static void transpose_quads(Vector* x) {
    const Vector a = low_pairs(x[0], x[1]);
    const Vector b = high_pairs(x[0], x[1]);
    const Vector c = low_pairs(x[2], x[3]);
    const Vector d = high_pairs(x[2], x[3]);
    x[0] = __builtin_shufflevector(a, c, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
    x[1] = __builtin_shufflevector(a, c, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    x[2] = __builtin_shufflevector(b, d, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
    x[3] = __builtin_shufflevector(b, d, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  }

 private:
  // gcc 12 warns about its own header when these are written as _mm512_unpacklo_ps and _mm512_unpackhi_ps.
  static Vector low_pairs(Vector a, Vector b) {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
  }
  static Vector high_pairs(Vector a, Vector b) {
    return __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  }
};

struct Float64 {
  using Element = double;
  using Vector = __m512d;
  static constexpr int lanes = 8;
  static constexpr bool many_registers = true;
  static constexpr int most_vectors = 4;
  static constexpr int usual_vectors = 2;
  static constexpr int most_rows[] = {0, 16, 14, 9, 6};

  static Vector zero() { return _mm512_setzero_pd(); }
  static Vector load(const double* from) { return _mm512_loadu_pd(from); }
  static Vector broadcast(const double* from) { return _mm512_set1_pd(*from); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_pd(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm512_add_pd(a, b); }
  static void store(double* to, Vector x) { _mm512_storeu_pd(to, x); }
  static __mmask8 mask(int count) { return static_cast<__mmask8>((1U << count) - 1U); }
  static Vector load_part(const double* from, int count) { return _mm512_maskz_loadu_pd(mask(count), from); }
  static void store_part(double* to, Vector x, int count, bool accumulate) {
    const __mmask8 m = mask(count);
    if (accumulate) x = _mm512_add_pd(_mm512_maskz_loadu_pd(m, to), x);
    _mm512_mask_storeu_pd(to, m, x);
  }

  static Vector load_quads(const double* const* from, int offset) {
    Vector x = _mm512_castpd128_pd512(_mm_loadu_pd(from[0] + offset));
    x = _mm512_insertf64x2(x, _mm_loadu_pd(from[1] + offset), 1);
    x = _mm512_insertf64x2(x, _mm_loadu_pd(from[2] + offset), 2);
    return _mm512_insertf64x2(x, _mm_loadu_pd(from[3] + offset), 3);
  }
  static void transpose_quads(Vector* x) {
    const Vector low = __builtin_shufflevector(x[0], x[1], 0, 8, 2, 10, 4, 12, 6, 14);
    x[1] = __builtin_shufflevector(x[0], x[1], 1, 9, 3, 11, 5, 13, 7, 15);
    x[0] = low;
  }
};

}  // namespace

const ProductKernels<float>& avx512_kernels_f32() { return kernels<Float32>; }
const ProductKernels<double>& avx512_kernels_f64() { return kernels<Float64>; }

}  // namespace hypertape::detail

#endif
