// Products of few rows W with a V whose contiguous index is k, as a matrix times a vector has: V is
// transposed square by square in registers, on its way into the sums. See products_tile.h, whose rules hold
// here as well.
#pragma once

#include <cstdint>
#include <utility>

#include "products_kernels.h"
#include "products_pack.h"

namespace hypertape::detail {
namespace {

// Sums over k in [0, depth) for `columns` <= lanes columns of V, depth >= lanes.
template <class S, int Rows, bool Whole>
inline __attribute__((always_inline)) void narrow_sums(const ProductOperand<typename S::Element>& w,
                                                       const typename S::Element* v, int64_t v_stride,
                                                       int64_t columns, int64_t depth,
                                                       typename S::Vector (&sum)[Rows]) {
  const int64_t along = w.along_k ? 1 : w.stride;
  const int64_t down = w.along_k ? w.stride : 1;
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) sum[r] = S::zero();
  typename S::Vector block[S::lanes];
  int64_t p = 0;
  for (; p + S::lanes <= depth; p += S::lanes) {
    transpose_block<S, Whole>(v + p, v_stride, columns, block);
    const typename S::Element* factor = w.data + p * along;
#pragma GCC unroll 16
    for (int c = 0; c < S::lanes; ++c) {
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r)
        sum[r] = S::multiply_add(S::broadcast(factor + r * down), block[c], sum[r]);
      factor += along;
    }
  }
  if (p == depth) return;
  // The last square overlaps the one before, whose indices are left out.
  transpose_block<S, Whole>(v + depth - S::lanes, v_stride, columns, block);
  typename S::Element left[S::lanes * S::lanes];
#pragma GCC unroll 16
  for (int c = 0; c < S::lanes; ++c) S::store(left + c * S::lanes, block[c]);
  for (; p < depth; ++p) {
    const typename S::Vector line = S::load(left + (p - depth + S::lanes) * S::lanes);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
      sum[r] = S::multiply_add(S::broadcast(w.data + p * along + r * down), line, sum[r]);
  }
}

template <class S, int Rows>
void narrow_rows(const NarrowJob<typename S::Element>& job) {
  using T = typename S::Element;
  for (int64_t first = 0; first < job.columns; first += S::lanes) {
    const int64_t columns = smaller(job.columns - first, S::lanes);
    for (int64_t p = 0; p < job.k; p += job.k_block) {
      const int64_t depth = smaller(job.k_block, job.k - p);
      ProductOperand<T> w = job.w;
      w.data += w.along_k ? p : p * w.stride;
      const T* v = job.v + first * job.v_stride + p;
      typename S::Vector sum[Rows];
      if (columns == S::lanes)
        narrow_sums<S, Rows, true>(w, v, job.v_stride, columns, depth, sum);
      else
        narrow_sums<S, Rows, false>(w, v, job.v_stride, columns, depth, sum);
      const bool add = job.accumulate || p > 0;
      for (int r = 0; r < Rows; ++r) {
        T* d = job.d + r * job.d_down + first * job.d_across;
        if (job.d_across == 1) {
          S::store_part(d, sum[r], static_cast<int>(columns), add);
          continue;
        }
        T values[S::lanes];
        S::store(values, sum[r]);
        for (int64_t c = 0; c < columns; ++c) {
          *d = add ? *d + values[c] : values[c];
          d += job.d_across;
        }
      }
    }
  }
}

template <class S>
struct NarrowTable {
  void (*function[most_narrow_rows + 1])(const NarrowJob<typename S::Element>&) = {};
  template <int... Row>
  constexpr void fill(std::integer_sequence<int, Row...>) {
    ((function[Row + 1] = &narrow_rows<S, Row + 1>), ...);
  }
  constexpr NarrowTable() { fill(std::make_integer_sequence<int, most_narrow_rows>()); }
};

template <class S>
constexpr NarrowTable<S> narrow_table{};

template <class S>
void run_narrow(const NarrowJob<typename S::Element>& job) {
  narrow_table<S>.function[job.rows](job);
}

}  // namespace
}  // namespace hypertape::detail
