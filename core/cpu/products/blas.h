// The one place that touches BLAS and its controls.
#pragma once

#include <cstdint>
#include <string>

namespace hypertape::detail {

struct BlasState {
  std::string name;         ///< "OpenBLAS 0.3.21", or "CBLAS" for a library without OpenBLAS's controls
  std::string core;         ///< kernels it runs, e.g. "SkylakeX"; empty when unknown
  std::string core_reason;  ///< why it runs them
  bool below_cpu;           ///< it runs kernels for an older CPU than this one
};

/// Reads the BLAS library's present state.
BlasState blas_state();

/// initialize()'s part for BLAS.
void select_blas_core();

// Around a fork. In the child the guards of other threads are gone.
void lock_blas_for_fork();
void unlock_blas_after_fork(bool in_child) noexcept;

/// Sets one BLAS thread while any guard lives: the first in saves the embedder's number, the last out
/// restores it. Without this the bits of a product would depend on that number.
class SingleThreadBlas {
 public:
  SingleThreadBlas();
  ~SingleThreadBlas();
  SingleThreadBlas(const SingleThreadBlas&) = delete;
  SingleThreadBlas& operator=(const SingleThreadBlas&) = delete;
};

/// product() on BLAS, within the sizes of its 32-bit integers. The caller holds a SingleThreadBlas.
void blas_product(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
                  const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float* c,
                  std::int64_t ldc, bool accumulate);
void blas_product(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
                  const double* a, std::int64_t lda, const double* b, std::int64_t ldb, double* c,
                  std::int64_t ldc, bool accumulate);

}  // namespace hypertape::detail
