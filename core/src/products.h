// Matrix products of the CPU.
#pragma once

#include <cstdint>
#include <string>

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

/// Which products run on which kernels, and why; one line.
std::string product_kernels_reason();

}  // namespace hypertape::detail
