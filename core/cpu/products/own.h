// Products on the library's own kernels.
#pragma once

#include <cstdint>

#include "core/base/divide_up.h"
#include "core/cpu/products/product.h"

namespace hypertape::detail {

/// product() for k > 0, m > 0, n > 0 on the kernels of the active instruction set.
template <class T>
void own_product(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
                 const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T* c, std::int64_t ldc,
                 bool accumulate);

/// The same for every slice of a batch; threads share slices and blocks alike.
template <class T>
void own_product_batch(const ProductBatch& batch, bool transpose_a, bool transpose_b, std::int64_t m,
                       std::int64_t n, std::int64_t k, const T* a, std::int64_t lda, const T* b,
                       std::int64_t ldb, T* c, bool accumulate);

}  // namespace hypertape::detail
