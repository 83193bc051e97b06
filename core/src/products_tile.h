// The product kernels, written once for a vector type `S` that the including file describes: see
// products_avx512.cpp. To be included by those files only. Everything is in an unnamed namespace and nothing
// inline of the standard library is called: a shared inline function compiled for AVX-512 here could be the
// copy that the linker keeps for all.
//
// V is cut into panels of at most 4 vectors, rows into tiles, so that a tile's accumulators, the panel's
// vectors and one broadcast fill the registers.
#pragma once

#include <cstdint>
#include <utility>

#include "products_kernels.h"

namespace hypertape::detail {
namespace {

using std::int64_t;

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T>
struct TileJob {
  int64_t k;
  const T* w;
  int64_t w_stride;
  const T* v;
  int64_t v_stride;
  T* d;
  int64_t d_stride;
  int last_lanes;  // elements of the last vector that are stored
  bool add;
};

// One tile of Rows x (Vectors vectors). The accumulators live in registers for the whole of k.
template <class S, int Rows, int Vectors, bool AlongK>
void tile(const TileJob<typename S::Element>& job) {
  using T = typename S::Element;
  using V = typename S::Vector;
  V sum[Rows][Vectors];
#pragma GCC unroll 32
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) sum[i][j] = S::zero();
  }

  // Along k, row i is at base[i / 3] + (i % 3) * stride: few enough pointers for the integer registers.
  constexpr int bases = AlongK ? (Rows + 2) / 3 : 1;
  const T* base[bases];
#pragma GCC unroll 32
  for (int g = 0; g < bases; ++g) base[g] = job.w + 3 * g * job.w_stride;
  const T* v = job.v;
  const int64_t w_stride = job.w_stride;
  const int64_t v_stride = job.v_stride;

  const auto step = [&](int q) __attribute__((always_inline)) {
    V vectors[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) vectors[j] = S::load(v + j * S::lanes);
    v += v_stride;
#pragma GCC unroll 32
    for (int i = 0; i < Rows; ++i) {
      const V w = S::broadcast(AlongK ? base[i / 3] + (i % 3) * w_stride + q : base[0] + i);
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] = S::multiply_add(w, vectors[j], sum[i][j]);
    }
    if constexpr (!AlongK) base[0] += w_stride;
  };
  const auto advance = [&](int steps) __attribute__((always_inline)) {
    if constexpr (AlongK) {
#pragma GCC unroll 32
      for (int g = 0; g < bases; ++g) base[g] += steps;
    }
  };
  int64_t p = job.k;
  for (; p >= 4; p -= 4) {
    step(0);
    step(1);
    step(2);
    step(3);
    advance(4);
  }
  for (; p > 0; --p) {
    step(0);
    advance(1);
  }

  T* d = job.d;
#pragma GCC unroll 32
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j + 1 < Vectors; ++j) {
      T* place = d + j * S::lanes;
      S::store(place, job.add ? S::add(S::load(place), sum[i][j]) : sum[i][j]);
    }
    S::store_part(d + (Vectors - 1) * S::lanes, sum[i][Vectors - 1], job.last_lanes, job.add);
    d += job.d_stride;
  }
}

constexpr int most_rows_of_all = 16;

template <class S>
struct TileTable {
  using Function = void (*)(const TileJob<typename S::Element>&);
  Function function[2][5][most_rows_of_all + 1] = {};

  template <bool AlongK, int Vectors, int... Row>
  constexpr void fill(std::integer_sequence<int, Row...>) {
    ((function[AlongK][Vectors][Row + 1] = &tile<S, Row + 1, Vectors, AlongK>), ...);
  }
  template <bool AlongK, int... Less>
  constexpr void fill_widths(std::integer_sequence<int, Less...>) {
    (fill<AlongK, Less + 1>(std::make_integer_sequence<int, S::most_rows[Less + 1]>()), ...);
  }
  constexpr TileTable() {
    fill_widths<false>(std::make_integer_sequence<int, S::most_vectors>());
    fill_widths<true>(std::make_integer_sequence<int, S::most_vectors>());
  }
};

template <class S>
constexpr TileTable<S> tiles{};

// Vectors of the next panel when `left` vectors are left.
template <class S>
int panel_vectors(int64_t left) {
  if (left <= S::most_vectors) return static_cast<int>(left);
  return left % S::usual_vectors == 1 && left > S::usual_vectors && S::usual_vectors < S::most_vectors
             ? S::usual_vectors + 1
             : S::usual_vectors;
}

template <class S>
double run_cycles(int64_t rows, int64_t columns, int64_t k) {
  double cycles = 0;
  for (int64_t left = divide_up(columns, S::lanes); left > 0;) {
    const int vectors = panel_vectors<S>(left);
    left -= vectors;
    const int64_t tiles_down = divide_up(rows, S::most_rows[vectors]);
    // Two multiply-adds or loads per cycle; a chain of dependent ones takes 4 cycles a link.
    const double work = static_cast<double>(rows) * vectors / 2;
    const double latency = 4 * static_cast<double>(tiles_down);
    cycles +=
        (work > latency ? work : latency) * static_cast<double>(k) + 20 * static_cast<double>(tiles_down);
  }
  return cycles;
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

// Rows [0, rows) of W, which starts at the strip's first row and this block of k, against all panels.
template <class S>
void run_strip(const BlockJob<typename S::Element>& block, ProductOperand<typename S::Element> w,
               int64_t rows, int64_t first_row, int64_t p, int64_t depth) {
  using T = typename S::Element;
  const int64_t all = divide_up(block.columns, S::lanes);
  if (block.w_copy != nullptr) w = compact<S>(w, rows, depth, block.w_copy);
  TileJob<T> job;
  job.k = depth;
  job.w_stride = w.stride;
  job.d_stride = block.d_stride;
  job.add = block.accumulate || p > 0;
  int64_t packed_before = 0;  // vectors
  for (int64_t first = 0; first < all;) {
    const int vectors = panel_vectors<S>(all - first);
    const int64_t column = first * S::lanes;
    const int64_t stored = block.columns - column;
    const bool whole = stored >= vectors * S::lanes;
    if (block.pack_all || !whole) {
      job.v_stride = vectors * S::lanes;
      job.v = block.packed + packed_before * S::lanes * block.k + p * job.v_stride;
      packed_before += vectors;
    } else {
      job.v_stride = block.v.stride;
      job.v = block.v.data + p * block.v.stride + column;
    }
    job.last_lanes = whole ? S::lanes : static_cast<int>(stored - (vectors - 1) * S::lanes);
    // Tiles as equal as possible: a last tile of one row would wait for its own sums.
    const int height = static_cast<int>(rows);
    const int count = (height + S::most_rows[vectors] - 1) / S::most_rows[vectors];
    const int least = height / count;
    const int larger = height % count;
    const auto& functions = tiles<S>.function[w.along_k][vectors];
    job.w = w.data;
    job.d = block.d + first_row * block.d_stride + column;
    for (int t = 0; t < count; ++t) {
      const int tile_rows = least + (t < larger ? 1 : 0);
      functions[tile_rows](job);
      job.w += tile_rows * (w.along_k ? w.stride : 1);
      job.d += tile_rows * block.d_stride;
    }
    first += vectors;
  }
}

template <class S>
void run(const BlockJob<typename S::Element>& block) {
  const int64_t strips = divide_up(block.rows, strip_rows);
  for (int64_t p = 0; p < block.k; p += block.k_block) {
    const int64_t depth = smaller(block.k_block, block.k - p);
    for (int64_t strip = 0; strip < strips; ++strip) {
      const int64_t row = block.rows * strip / strips;
      const int64_t end = block.rows * (strip + 1) / strips;
      ProductOperand<typename S::Element> w = block.w;
      w.data += w.along_k ? row * w.stride + p : p * w.stride + row;
      run_strip<S>(block, w, end - row, row, p, depth);
    }
  }
}

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
int64_t packed_size(int64_t columns, int64_t k, bool pack_all) {
  if (pack_all) return divide_up(columns, S::lanes) * S::lanes * k;
  return columns % S::lanes == 0 ? 0 : S::most_vectors * S::lanes * k;
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

template <class S>
void pack(const ProductOperand<typename S::Element>& v, int64_t columns, int64_t k, bool pack_all,
          typename S::Element* packed) {
  const int64_t all = divide_up(columns, S::lanes);
  for (int64_t first = 0; first < all;) {
    const int vectors = panel_vectors<S>(all - first);
    const int64_t column = first * S::lanes;
    first += vectors;
    const int64_t stride = vectors * S::lanes;
    const int64_t wanted = smaller(columns - column, stride);
    if (!pack_all && wanted == stride) continue;
    if (v.along_k) {
      for (int j = 0; j < vectors; ++j) {
        const int64_t strip = column + j * S::lanes;
        pack_transposed<S>(v.data + strip * v.stride, v.stride, smaller(columns - strip, S::lanes), k,
                           packed + j * S::lanes, stride);
      }
    } else {
      pack_rows<S>(v.data + column, v.stride, vectors, static_cast<int>(wanted - (vectors - 1) * S::lanes), k,
                   packed);
    }
    packed += stride * k;
  }
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

template <class S>
constexpr ProductKernels<typename S::Element> kernels{S::lanes, &packed_size<S>,      &pack<S>,
                                                      &run<S>,  &store_transposed<S>, &run_cycles<S>};

}  // namespace
}  // namespace hypertape::detail
