// Matrix products of the CPU.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include <hypertape/core/shape.h>

namespace hypertape::detail {

/// c = op(a) op(b), plus c if `accumulate`; all row-major, op(x) = x' if its flag is set. op(a) is m x k,
/// op(b) is k x n, c is m x n and overlaps neither; k = 0 gives zeros (or leaves c as it is). The leading
/// dimensions lda, ldb and ldc are the elements between two rows as stored.
///
/// The bits of c do not depend on the number of threads, on alignment, or on leading dimensions. With the
/// library's own kernels an element of c depends on nothing but its row of op(a), its column of op(b) and k:
/// stacking rows or columns, or passing a transpose, keeps the bits (BLAS does not keep them).
template <class T>
void product(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, const T* a,
             std::int64_t lda, const T* b, std::int64_t ldb, T* c, std::int64_t ldc, bool accumulate);

extern template void product<float>(bool, bool, std::int64_t, std::int64_t, std::int64_t, const float*,
                                    std::int64_t, const float*, std::int64_t, float*, std::int64_t, bool);
extern template void product<double>(bool, bool, std::int64_t, std::int64_t, std::int64_t, const double*,
                                     std::int64_t, const double*, std::int64_t, double*, std::int64_t, bool);

/// Multiply-adds of the products that this thread has asked for so far.
std::int64_t multiply_adds() noexcept;

/// The leading axes of a batch of products. Slice s, counted row-major, finds its operands some elements
/// further on, 0 where all slices share one; its result is the s-th of matrices without gaps.
struct ProductBatch {
  int rank = 0;
  std::array<std::int64_t, max_rank> extents{}, steps_a{}, steps_b{};

  /// Axes are added outermost first; neighbours that both operands lay out as one run are merged.
  void add_axis(std::int64_t extent, std::int64_t step_a, std::int64_t step_b);
  std::int64_t count() const;

  struct Offsets {
    std::int64_t a = 0, b = 0;
  };
  Offsets offsets(std::int64_t slice) const;
};

/// One product() for every slice, each with the bits of a product() of its own; c has no gaps.
template <class T>
void product_batch(const ProductBatch& batch, bool transpose_a, bool transpose_b, std::int64_t m,
                   std::int64_t n, std::int64_t k, const T* a, std::int64_t lda, const T* b, std::int64_t ldb,
                   T* c, bool accumulate);

extern template void product_batch<float>(const ProductBatch&, bool, bool, std::int64_t, std::int64_t,
                                          std::int64_t, const float*, std::int64_t, const float*,
                                          std::int64_t, float*, bool);
extern template void product_batch<double>(const ProductBatch&, bool, bool, std::int64_t, std::int64_t,
                                           std::int64_t, const double*, std::int64_t, const double*,
                                           std::int64_t, double*, bool);

/// Whether an operand may be passed as the transpose of what is stored without a change of bits: not where
/// BLAS is at work.
bool transposes_keep_bits();

/// Which products run on which kernels, and why; one line.
std::string product_kernels_reason();

}  // namespace hypertape::detail
