// Products of few rows W with a V whose contiguous index is k, as a matrix times a vector has: V is
// transposed square by square in registers, on its way into the sums. See core/cpu/products/tile.h, whose
// rules hold here as well.
#pragma once

#include <cstdint>
#include <utility>

#include "core/cpu/products/kernels.h"
#include "core/cpu/products/pack.h"

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
      const T* v = job.v.data + first * job.v.stride + p;
      typename S::Vector sum[Rows];
      if (columns == S::lanes)
        narrow_sums<S, Rows, true>(w, v, job.v.stride, columns, depth, sum);
      else
        narrow_sums<S, Rows, false>(w, v, job.v.stride, columns, depth, sum);
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

// Adds Steps indices of k, in order, to the sums of `columns` columns, `sums_stride` apart for the rows.
template <class S, int Rows, int Steps>
void add_steps(const ProductOperand<typename S::Element>& w, const typename S::Element* v, int64_t v_stride,
               int64_t columns, typename S::Element* sums, int64_t sums_stride) {
  using V = typename S::Vector;
  const int64_t along = w.along_k ? 1 : w.stride;
  const int64_t down = w.along_k ? w.stride : 1;
  V factors[Rows][Steps];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int q = 0; q < Steps; ++q) factors[r][q] = S::broadcast(w.data + q * along + r * down);
  }
  const auto add = [&](int64_t j, auto load) __attribute__((always_inline)) {
    V sum[Rows];
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) sum[r] = S::load(sums + r * sums_stride + j);
#pragma GCC unroll 8
    for (int q = 0; q < Steps; ++q) {
      const V line = load(v + q * v_stride + j);
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) sum[r] = S::multiply_add(factors[r][q], line, sum[r]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) S::store(sums + r * sums_stride + j, sum[r]);
  };
  int64_t j = 0;
  for (; j + S::lanes <= columns; j += S::lanes)
    add(
        j, [](const typename S::Element* from) __attribute__((always_inline)) { return S::load(from); });
  if (j == columns) return;
  const int left = static_cast<int>(columns - j);
  add(
      j, [left](const typename S::Element* from)
             __attribute__((always_inline)) { return S::load_part(from, left); });
}

template <class S, int Rows>
void narrow_rows_across(const NarrowJob<typename S::Element>& job) {
  using T = typename S::Element;
  constexpr int64_t most = (1 << 14) / static_cast<int64_t>(sizeof(T)) / Rows / S::lanes * S::lanes;
  constexpr int steps = S::many_registers ? (Rows > 2 ? 4 : 8) : (Rows > 2 ? 2 : 4);
  alignas(64) T sums[Rows * most];
  for (int64_t first = 0; first < job.columns; first += most) {
    const int64_t columns = smaller(job.columns - first, most);
    for (int64_t block = 0; block < job.k; block += job.k_block) {
      const int64_t end = smaller(block + job.k_block, job.k);
      for (int r = 0; r < Rows; ++r) {
        for (int64_t j = 0; j < columns; j += S::lanes) S::store(sums + r * most + j, S::zero());
      }
      for (int64_t p = block; p < end;) {
        ProductOperand<T> w = job.w;
        w.data += w.along_k ? p : p * w.stride;
        const T* v = job.v.data + p * job.v.stride + first;
        const bool several = p + steps <= end;
        if (several)
          add_steps<S, Rows, steps>(w, v, job.v.stride, columns, sums, most);
        else
          add_steps<S, Rows, 1>(w, v, job.v.stride, columns, sums, most);
        p += several ? steps : 1;
      }
      const bool add = job.accumulate || block > 0;
      for (int r = 0; r < Rows; ++r) {
        const T* sum = sums + r * most;
        T* d = job.d + r * job.d_down + first * job.d_across;
        for (int64_t j = 0; j < columns; ++j) {
          *d = add ? *d + sum[j] : sum[j];
          d += job.d_across;
        }
      }
    }
  }
}

template <class S>
struct NarrowTable {
  using Function = void (*)(const NarrowJob<typename S::Element>&);
  Function along_k[most_narrow_rows + 1] = {};
  Function across[most_narrow_rows_across + 1] = {};
  template <int... Row>
  constexpr void fill_along_k(std::integer_sequence<int, Row...>) {
    ((along_k[Row + 1] = &narrow_rows<S, Row + 1>), ...);
  }
  template <int... Row>
  constexpr void fill_across(std::integer_sequence<int, Row...>) {
    ((across[Row + 1] = &narrow_rows_across<S, Row + 1>), ...);
  }
  constexpr NarrowTable() {
    fill_along_k(std::make_integer_sequence<int, most_narrow_rows>());
    fill_across(std::make_integer_sequence<int, most_narrow_rows_across>());
  }
};

template <class S>
constexpr NarrowTable<S> narrow_table{};

template <class S>
void run_narrow(const NarrowJob<typename S::Element>& job) {
  const NarrowTable<S>& table = narrow_table<S>;
  (job.v.along_k ? table.along_k[job.rows] : table.across[job.rows])(job);
}

}  // namespace
}  // namespace hypertape::detail
