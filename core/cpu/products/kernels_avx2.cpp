// Product kernels for AVX2 with FMA; see core/cpu/products/tile.h.
#if defined(__x86_64__)

#include <immintrin.h>

#include "core/cpu/products/tile.h"

namespace hypertape::detail {
namespace {

// Twice as many set elements as a vector has: loading from `lanes - count` gives a mask of `count` lanes.
alignas(64) constexpr int mask_bits[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
alignas(64) constexpr long long long_mask_bits[8] = {-1, -1, -1, -1, 0, 0, 0, 0};

struct Float32 {
  using Element = float;
  using Vector = __m256;
  static constexpr int lanes = 8;
  static constexpr bool many_registers = false;
  static constexpr int most_vectors = 3;
  static constexpr int usual_vectors = 2;
  static constexpr int most_rows[] = {0, 12, 6, 4};

  static Vector zero() { return _mm256_setzero_ps(); }
  static Vector load(const float* from) { return _mm256_loadu_ps(from); }
  static Vector broadcast(const float* from) { return _mm256_broadcast_ss(from); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static void store(float* to, Vector x) { _mm256_storeu_ps(to, x); }
  static __m256i mask(int count) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(mask_bits + lanes - count));
  }
  static Vector load_part(const float* from, int count) { return _mm256_maskload_ps(from, mask(count)); }
  static void store_part(float* to, Vector x, int count, bool accumulate) {
    const __m256i m = mask(count);
    if (accumulate) x = _mm256_add_ps(_mm256_maskload_ps(to, m), x);
    _mm256_maskstore_ps(to, m, x);
  }

  static Vector load_quads(const float* const* from, int offset) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from[0] + offset)),
                                _mm_loadu_ps(from[1] + offset), 1);
  }
  static void transpose_quads(Vector* x) {
    const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(x[0], x[1]));
    const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(x[0], x[1]));
    const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(x[2], x[3]));
    const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(x[2], x[3]));
    x[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
    x[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
    x[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
    x[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
  }
};

struct Float64 {
  using Element = double;
  using Vector = __m256d;
  static constexpr int lanes = 4;
  static constexpr bool many_registers = false;
  static constexpr int most_vectors = 3;
  static constexpr int usual_vectors = 2;
  static constexpr int most_rows[] = {0, 12, 6, 4};

  static Vector zero() { return _mm256_setzero_pd(); }
  static Vector load(const double* from) { return _mm256_loadu_pd(from); }
  static Vector broadcast(const double* from) { return _mm256_broadcast_sd(from); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_pd(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm256_add_pd(a, b); }
  static void store(double* to, Vector x) { _mm256_storeu_pd(to, x); }
  static __m256i mask(int count) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(long_mask_bits + lanes - count));
  }
  static Vector load_part(const double* from, int count) { return _mm256_maskload_pd(from, mask(count)); }
  static void store_part(double* to, Vector x, int count, bool accumulate) {
    const __m256i m = mask(count);
    if (accumulate) x = _mm256_add_pd(_mm256_maskload_pd(to, m), x);
    _mm256_maskstore_pd(to, m, x);
  }

  static Vector load_quads(const double* const* from, int offset) {
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(from[0] + offset)),
                                _mm_loadu_pd(from[1] + offset), 1);
  }
  static void transpose_quads(Vector* x) {
    const Vector low = _mm256_unpacklo_pd(x[0], x[1]);
    x[1] = _mm256_unpackhi_pd(x[0], x[1]);
    x[0] = low;
  }
};

}  // namespace

const ProductKernels<float>& avx2_kernels_f32() { return kernels<Float32>; }
const ProductKernels<double>& avx2_kernels_f64() { return kernels<Float64>; }

}  // namespace hypertape::detail

#endif
