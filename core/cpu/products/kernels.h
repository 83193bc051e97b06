// What the product driver (core/cpu/products/product.cpp) asks of the kernels of one instruction set.
//
// All kernels compute blocks of D = W V, with W (rows x k) read one element at a time and broadcast, and
// V (k x columns) read as vectors along the columns. Every element of D is the same chain of operations in
// every kernel and every block, whatever the block's size and place:
//
//     for each block of k_block indices p, in order:   s = 0;  s = fma(w[i][p], v[p][j], s) for p in order
//                                                      d = s for the first block, else d + s
//
// so its bits depend on k and on the two operands' row and column alone.
#pragma once

#include <cstdint>

namespace hypertape::detail {

/// A strided matrix whose one index is contiguous: along k, or along the matrix's other dimension.
template <class T>
struct ProductOperand {
  const T* data;
  std::int64_t stride;  ///< elements between neighbours along the other index
  bool along_k;         ///< k is the contiguous index
};

/// Which panels of V are copied to memory without gaps before the tiles read them.
enum class PanelPacking {
  last,        ///< the last one if its last vector is not whole; V is read along the columns where it is
  all,         ///< all, kept for all rows
  one_by_one,  ///< all, each into the place of the one before: for a single strip of rows
};

template <class T>
struct BlockJob {
  std::int64_t rows, columns, k, k_block;
  ProductOperand<T> w;  ///< starts at the block's first row
  ProductOperand<T> v;  ///< starts at the block's first column
  T* packed;            ///< place for the panels
  PanelPacking packing;
  bool pack_now;  ///< the panels are to be written; else they are there
  T* d;
  std::int64_t d_stride;
  bool accumulate;
  bool fetch_d;  ///< D is too large for the caches that are near: fetch a tile's part while computing it
  T* w_copy;     ///< where to copy a strip of W first, compact_stride() apart; null: W is read where it is
  bool columns_behind = false;  ///< V goes on behind the last column, for a block that follows
  const T* w_after = nullptr;   ///< where the W of the block that follows starts, or null
};

constexpr int most_narrow_rows = 8;         // where V is read along k
constexpr int most_narrow_rows_across = 4;  // where it is not

/// D = W V for few rows. Where V is read along k, every block of k has at least `lanes` indices.
template <class T>
struct NarrowJob {
  std::int64_t rows, columns, k, k_block;  ///< rows from 1 to most_narrow_rows, or _across
  ProductOperand<T> w, v;
  T* d;
  std::int64_t d_down, d_across;  ///< elements between D's rows and between its columns
  bool accumulate;
};

/// Rows of W that are worked through at once, against all of V: they stay in the second-level cache.
constexpr std::int64_t strip_rows = 140;

/// A stride of whole vectors but of an odd number of them, so that lines do not share a cache set.
constexpr std::int64_t compact_stride(std::int64_t length, std::int64_t lanes) {
  return ((length + lanes - 1) / lanes | 1) * lanes;
}

template <class T>
struct ProductKernels {
  int lanes;  ///< elements of a vector

  /// Elements of the panels of `columns` columns.
  std::int64_t (*packed_size)(std::int64_t columns, std::int64_t k, PanelPacking packing);

  /// Computes a block.
  void (*run)(const BlockJob<T>& job);
  void (*run_narrow)(const NarrowJob<T>& job);

  /// c (rows x columns) = d', plus c if accumulate; d's stride is at least `rows` rounded up to whole
  /// vectors.
  void (*store_transposed)(const T* d, std::int64_t d_stride, T* c, std::int64_t c_stride, std::int64_t rows,
                           std::int64_t columns, bool accumulate);

  /// Estimated cycles of run() for a block in which V is read `rows` times over, with so many multiply-adds
  /// or loads of vectors begun in each.
  double (*run_cycles)(std::int64_t rows, std::int64_t columns, std::int64_t k, double per_cycle);
};

// One pair per instruction set, each defined in a file of its own that is compiled for it.
const ProductKernels<float>& baseline_kernels_f32();
const ProductKernels<double>& baseline_kernels_f64();
const ProductKernels<float>& avx2_kernels_f32();
const ProductKernels<double>& avx2_kernels_f64();
const ProductKernels<float>& avx512_kernels_f32();
const ProductKernels<double>& avx512_kernels_f64();

}  // namespace hypertape::detail
