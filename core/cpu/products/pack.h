// Copies of operands and results, transposed or not, for a vector type `S`: see core/cpu/products/tile.h,
// whose rules hold here as well.
#pragma once

#include <cstdint>

#include "core/cpu/products/kernels.h"

namespace hypertape::detail {
namespace {

using std::int64_t;

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Columns 0..lanes-1 of `lanes` source rows, the missing rows replaced by the last: out[c][r] = source[r][c].
// A vector is loaded in pieces of 16 bytes, each from its own row, which leaves squares to transpose.
template <class S, bool Whole>
inline __attribute__((always_inline)) void transpose_block(const typename S::Element* source, int64_t stride,
                                                           int64_t rows,
                                                           typename S::Vector (&out)[S::lanes]) {
  using T = typename S::Element;
  constexpr int side = 16 / static_cast<int>(sizeof(T));
  constexpr int quads = S::lanes / side;
  const int64_t quad_stride = stride * side;
#pragma GCC unroll 4
  for (int r = 0; r < side; ++r) {
    const T* from[quads];
#pragma GCC unroll 4
    for (int quad = 0; quad < quads; ++quad) {
      from[quad] = Whole ? source + r * stride + quad * quad_stride
                         : source + smaller(r + quad * side, rows - 1) * stride;
    }
#pragma GCC unroll 8
    for (int c = 0; c < S::lanes; c += side) out[c + r] = S::load_quads(from, c);
  }
#pragma GCC unroll 8
  for (int c = 0; c < S::lanes; c += side) S::transpose_quads(out + c);
}

template <class S>
int64_t packed_size(int64_t columns, int64_t k, PanelPacking packing) {
  if (packing == PanelPacking::all) return divide_up(columns, S::lanes) * S::lanes * k;
  return packing == PanelPacking::last && columns % S::lanes == 0 ? 0 : S::most_vectors * S::lanes * k;
}

// One vector wide strip of a panel from a V whose contiguous index is k.
template <class S>
void pack_transposed(const typename S::Element* source, int64_t stride, int64_t columns, int64_t k,
                     typename S::Element* packed, int64_t packed_stride) {
  if (k < S::lanes) {
    for (int64_t p = 0; p < k; ++p) {
      for (int64_t j = 0; j < S::lanes; ++j) {
        packed[p * packed_stride + j] = source[smaller(j, columns - 1) * stride + p];
      }
    }
    return;
  }
  for (int64_t p = 0; p < k; p += S::lanes) {
    const int64_t begin = smaller(p, k - S::lanes);  // the last block overlaps the one before
    typename S::Vector block[S::lanes];
    if (columns >= S::lanes) {
      transpose_block<S, true>(source + begin, stride, columns, block);
    } else {
      transpose_block<S, false>(source + begin, stride, columns, block);
    }
    typename S::Element* target = packed + begin * packed_stride;
#pragma GCC unroll 16
    for (int r = 0; r < S::lanes; ++r) {
      S::store(target, block[r]);
      target += packed_stride;
    }
  }
}

// Rows [0, rows) of one panel from a V whose contiguous index runs along the columns.
template <class S>
void pack_rows(const typename S::Element* source, int64_t stride, int vectors, int last_lanes, int64_t rows,
               typename S::Element* packed) {
  for (int64_t p = 0; p < rows; ++p) {
    for (int j = 0; j + 1 < vectors; ++j) S::store(packed + j * S::lanes, S::load(source + j * S::lanes));
    const int last = (vectors - 1) * S::lanes;
    S::store(packed + last, S::load_part(source + last, last_lanes));
    packed += vectors * S::lanes;
    source += stride;
  }
}

// Rows [0, rows) of a panel of `vectors` vectors of which `wanted` columns exist.
template <class S>
void pack_panel(const ProductOperand<typename S::Element>& v, int vectors, int64_t wanted, int64_t rows,
                typename S::Element* packed) {
  if (!v.along_k) {
    const int last_lanes = static_cast<int>(wanted - (vectors - 1) * S::lanes);
    pack_rows<S>(v.data, v.stride, vectors, last_lanes, rows, packed);
    return;
  }
  for (int j = 0; j < vectors; ++j) {
    const int64_t first = j * S::lanes;
    pack_transposed<S>(v.data + first * v.stride, v.stride, smaller(wanted - first, S::lanes), rows,
                       packed + first, vectors * S::lanes);
  }
}

// Copies the strip's rows and depth of W to a stride without harm to the caches.
template <class S>
ProductOperand<typename S::Element> compact(const ProductOperand<typename S::Element>& w, int64_t rows,
                                            int64_t depth, typename S::Element* copy) {
  const int64_t lines = w.along_k ? rows : depth;
  const int64_t length = w.along_k ? depth : rows;
  const int64_t stride = compact_stride(length, S::lanes);
  for (int64_t line = 0; line < lines; ++line) {
    const typename S::Element* source = w.data + line * w.stride;
    typename S::Element* target = copy + line * stride;
    int64_t e = 0;
    for (; e + S::lanes <= length; e += S::lanes) S::store(target + e, S::load(source + e));
    if (e < length)
      S::store_part(target + e, S::load_part(source + e, static_cast<int>(length - e)),
                    static_cast<int>(length - e), false);
  }
  return {copy, stride, w.along_k};
}

template <class S>
void store_transposed(const typename S::Element* d, int64_t d_stride, typename S::Element* c,
                      int64_t c_stride, int64_t rows, int64_t columns, bool accumulate) {
  for (int64_t i = 0; i < rows; i += S::lanes) {
    for (int64_t j = 0; j < columns; j += S::lanes) {
      const int64_t stored = smaller(columns - j, S::lanes);
      const int64_t rows_here = smaller(rows - i, S::lanes);
      typename S::Element* place = c + i * c_stride + j;
      typename S::Vector block[S::lanes];
      if (stored == S::lanes) {
        transpose_block<S, true>(d + j * d_stride + i, d_stride, stored, block);
      } else {
        transpose_block<S, false>(d + j * d_stride + i, d_stride, stored, block);
      }
      if (rows_here == S::lanes && stored == S::lanes && !accumulate) {
#pragma GCC unroll 16
        for (int r = 0; r < S::lanes; ++r) {
          S::store(place, block[r]);
          place += c_stride;
        }
      } else {
#pragma GCC unroll 16
        for (int r = 0; r < S::lanes; ++r) {
          if (r < rows_here) S::store_part(place, block[r], static_cast<int>(stored), accumulate);
          place += c_stride;
        }
      }
    }
  }
}

}  // namespace
}  // namespace hypertape::detail
