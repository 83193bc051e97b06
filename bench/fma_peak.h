// The most multiply-adds a core can do: chains of fused multiply-adds on registers alone.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>

#include <hypertape/core/parallel.h>
#include "core/cpu/isa/features.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hypertape::bench {
namespace detail {

// More independent chains than two units need to hide a latency of 4 or 5 cycles.
inline constexpr int chains = 16;
inline constexpr std::int64_t peak_rounds = 2000;

#if defined(__x86_64__)
__attribute__((target("avx512f"))) inline float spin_avx512(float start, float factor) {
  __m512 sums[chains];
  for (int j = 0; j < chains; ++j) sums[j] = _mm512_set1_ps(start + static_cast<float>(j));
  const __m512 by = _mm512_set1_ps(factor);
  for (std::int64_t i = 0; i < peak_rounds; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < chains; ++j) sums[j] = _mm512_fmadd_ps(sums[j], by, by);
  float total = 0.0F;
  for (int j = 0; j < chains; ++j) total += _mm512_cvtss_f32(sums[j]);
  return total;
}

// 12 chains: with 16 registers, more would spill.
inline constexpr int avx2_chains = 12;
__attribute__((target("avx2,fma"))) inline float spin_avx2(float start, float factor) {
  __m256 sums[avx2_chains];
  for (int j = 0; j < avx2_chains; ++j) sums[j] = _mm256_set1_ps(start + static_cast<float>(j));
  const __m256 by = _mm256_set1_ps(factor);
  for (std::int64_t i = 0; i < peak_rounds; ++i)
#pragma GCC unroll 12
    for (int j = 0; j < avx2_chains; ++j) sums[j] = _mm256_fmadd_ps(sums[j], by, by);
  float total = 0.0F;
  for (int j = 0; j < avx2_chains; ++j) total += _mm256_cvtss_f32(sums[j]);
  return total;
}
#endif

// Multiply and add apart, on the compiler's 16-byte vectors.
inline float spin_baseline(float start, float factor) {
  using Vector = float __attribute__((vector_size(16)));
  Vector sums[12];
  for (int j = 0; j < 12; ++j) sums[j] = Vector{} + (start + static_cast<float>(j));
  const Vector by = Vector{} + factor;
  for (std::int64_t i = 0; i < peak_rounds; ++i)
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) sums[j] = sums[j] * by + by;
  float total = 0.0F;
  for (int j = 0; j < 12; ++j) total += sums[j][0];
  return total;
}

// Runs one spin; returns its float32 operations (a multiply-add counts two).
inline double spin() {
  volatile float start = 0.5F, factor = 0.25F;
#if defined(__x86_64__)
  switch (hypertape::detail::hardware_isa()) {
    case hypertape::detail::Isa::avx512:
      benchmark::DoNotOptimize(spin_avx512(start, factor));
      return 2.0 * 16 * chains * peak_rounds;
    case hypertape::detail::Isa::avx2:
      benchmark::DoNotOptimize(spin_avx2(start, factor));
      return 2.0 * 8 * avx2_chains * peak_rounds;
    default:
      break;
  }
#endif
  benchmark::DoNotOptimize(spin_baseline(start, factor));
  return 2.0 * 4 * 12 * peak_rounds;
}

}  // namespace detail

/// float32 operations per call of run_peak() on `threads` threads; float64 has half as many.
inline double operations_at_peak(int threads) { return detail::spin() * 8 * threads; }

/// Keeps every thread at the peak for a fraction of a millisecond.
inline void run_peak(int threads) {
  parallel_chunks(threads, [](std::int64_t) {
    for (int i = 0; i < 8; ++i) detail::spin();
  });
}

}  // namespace hypertape::bench
