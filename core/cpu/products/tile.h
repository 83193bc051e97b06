// The product kernels, written once for a vector type `S` that the including file describes: see
// core/cpu/products/kernels_avx512.cpp. To be included by those files only. Everything is in an unnamed
// namespace and nothing inline of the standard library is called: a shared inline function compiled for
// AVX-512 here could be the copy that the linker keeps for all.
//
// V is cut into panels of at most 4 vectors, rows into tiles, so that a tile's accumulators, the panel's
// vectors and one broadcast fill the registers.
#pragma once

#include <cstdint>
#include <utility>

#include "core/cpu/products/kernels.h"
#include "core/cpu/products/narrow.h"
#include "core/cpu/products/pack.h"

namespace hypertape::detail {
namespace {

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
  bool fetch_d;    // D comes from far
  const T* ahead;  // what will be read next: one line of it is fetched per 4 steps of k
  int64_t ahead_stride;
  int64_t ahead_run;   // lines until the next row of them,
  int64_t ahead_jump;  // which starts that far behind where the last one ended
  T* copy;             // if not null, a whole row from `ahead` on goes there instead
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
  T* copy = job.copy;
  constexpr int rows_fetched = 8;  // before they are copied
  const T* ahead = job.ahead;
  const int64_t ahead_stride = job.ahead_stride;
  int64_t ahead_run = job.ahead_run;
  // A row of D per 4 steps of k: all at once would take every place that the loads of W and V need.
  const T* fetched = job.d;
  const T* const last_fetched = job.fetch_d ? fetched + (Rows - 1) * job.d_stride : fetched;

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
    if (copy != nullptr) {
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) {
        __builtin_prefetch(ahead + rows_fetched * ahead_stride + j * S::lanes, 0, 3);
        S::store(copy + j * S::lanes, S::load(ahead + j * S::lanes));
      }
      copy += Vectors * S::lanes;
    } else {
      __builtin_prefetch(ahead, 0, 2);
    }
    ahead += ahead_stride;
    if (--ahead_run == 0) {
      ahead_run = job.ahead_run;
      ahead += job.ahead_jump;
    }
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) __builtin_prefetch(fetched + j * S::lanes, 1, 3);
    fetched += fetched != last_fetched ? job.d_stride : 0;
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
double run_cycles(int64_t rows, int64_t columns, int64_t k, double per_cycle) {
  double cycles = 0;
  for (int64_t left = divide_up(columns, S::lanes); left > 0;) {
    const int vectors = panel_vectors<S>(left);
    left -= vectors;
    const int64_t tiles_down = divide_up(rows, S::most_rows[vectors]);
    // A chain of dependent multiply-adds takes 4 cycles a link.
    const double work = static_cast<double>(rows) * vectors / per_cycle;
    const double latency = 4 * static_cast<double>(tiles_down);
    cycles +=
        (work > latency ? work : latency) * static_cast<double>(k) + 20 * static_cast<double>(tiles_down);
  }
  return cycles;
}

// Tiles that share the work of copying the next panel, or of fetching a line of each of its rows.
constexpr int tiles_ahead = 4;

// What a tile has to fetch while it computes: nothing.
template <class T>
void fetch_nothing(TileJob<T>& job) {
  job.copy = nullptr;
  job.ahead = job.v;
  job.ahead_stride = 0;
  job.ahead_run = INT64_MAX;
}

// Tiles that it takes to fetch `length` columns or rows of an operand, k deep.
template <class T>
int64_t fetches_of(const ProductOperand<T>& operand, int64_t length, int64_t k) {
  constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
  if (operand.along_k) return k < line ? 0 : divide_up(4 * length, line);  // k / 4 lines each
  return tiles_ahead * (length / line + 1);
}

// Part `number` of these is what a tile fetches while it computes.
template <class T>
void fetch_ahead(const ProductOperand<T>& operand, int64_t number, TileJob<T>& job) {
  constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
  job.copy = nullptr;
  if (operand.along_k) {
    job.ahead = operand.data + number * (line / 4) * operand.stride;
    job.ahead_stride = line;
    job.ahead_run = job.k / line;
    job.ahead_jump = operand.stride - job.ahead_run * line;
  } else {
    const int64_t row = number % tiles_ahead * (job.k / tiles_ahead);
    job.ahead = operand.data + number / tiles_ahead * line + row * operand.stride;
    job.ahead_stride = operand.stride;
    job.ahead_run = INT64_MAX;
  }
}

// One of the first tiles copies its part of the rows of the next panel while it computes.
template <class S>
void copy_ahead(const ProductOperand<typename S::Element>& panel, int vectors, int number,
                typename S::Element* copy, TileJob<typename S::Element>& job) {
  const int64_t row = number * (job.k / tiles_ahead);
  job.ahead = panel.data + row * panel.stride;
  job.ahead_stride = panel.stride;
  job.ahead_run = INT64_MAX;
  job.copy = copy + row * vectors * S::lanes;
}

// Rows [0, rows) of W, which starts at the strip's first row and this block of k, against all panels. `next`
// is where the strip after it starts, or null.
template <class S>
void run_strip(const BlockJob<typename S::Element>& block, ProductOperand<typename S::Element> w,
               int64_t rows, int64_t first_row, int64_t p, int64_t depth, const typename S::Element* next) {
  using T = typename S::Element;
  const ProductOperand<T> next_w{next, w.stride, w.along_k};
  const int64_t all = divide_up(block.columns, S::lanes);
  if (block.w_copy != nullptr) w = compact<S>(w, rows, depth, block.w_copy);
  const bool fresh = block.pack_now && first_row == 0;
  TileJob<T> job;
  job.k = depth;
  job.w_stride = w.stride;
  job.d_stride = block.d_stride;
  job.add = block.accumulate || p > 0;
  job.fetch_d = block.fetch_d;
  const int64_t fetches = next != nullptr ? fetches_of(next_w, rows, depth) : 0;
  int64_t fetched = 0;
  int64_t packed_before = 0;  // vectors
  bool copied = false;        // this panel, by the tiles of the one before
  for (int64_t first = 0; first < all;) {
    const int vectors = panel_vectors<S>(all - first);
    const int64_t column = first * S::lanes;
    const int64_t stored = block.columns - column;
    const bool whole = stored >= vectors * S::lanes;
    const bool packed = block.packing != PanelPacking::last || !whole;
    ProductOperand<T> v = block.v;
    v.data += v.along_k ? column * v.stride + p : p * v.stride + column;
    const int64_t panel_stride = vectors * S::lanes;
    T* panel = block.packed;
    if (packed) {
      if (block.packing != PanelPacking::one_by_one)
        panel += packed_before * S::lanes * block.k + p * panel_stride;
      packed_before += vectors;
    }
    if (packed && fresh && !copied) pack_panel<S>(v, vectors, smaller(stored, panel_stride), depth, panel);
    job.v = packed ? panel : v.data;
    job.v_stride = packed ? panel_stride : v.stride;
    job.last_lanes = whole ? S::lanes : static_cast<int>(stored - (vectors - 1) * S::lanes);
    const bool ahead = (fresh || !packed) && (first + vectors < all || block.columns_behind);
    // Tiles as equal as possible: a last tile of one row would wait for its own sums.
    const int height = static_cast<int>(rows);
    const int count = (height + S::most_rows[vectors] - 1) / S::most_rows[vectors];
    const int least = height / count;
    const int larger = height % count;
    const int64_t panels_left = (all - first) / S::usual_vectors;
    // Copied while the tiles compute, the next panel costs next to nothing.
    const ProductOperand<T> behind{v.data + panel_stride * (v.along_k ? v.stride : 1), v.stride, v.along_k};
    copied = ahead && !v.along_k && packed && block.packing == PanelPacking::all && count >= tiles_ahead &&
             stored >= 2 * panel_stride && panel_vectors<S>(all - first - vectors) == vectors;
    T* next_panel = copied ? panel + panel_stride * block.k : nullptr;
    if (copied) {
      const int64_t left = depth % tiles_ahead;
      pack_rows<S>(behind.data + (depth - left) * v.stride, v.stride, vectors, S::lanes, left,
                   next_panel + (depth - left) * panel_stride);
    }
    const auto& functions = tiles<S>.function[w.along_k][vectors];
    job.w = w.data;
    job.d = block.d + first_row * block.d_stride + column;
    for (int t = 0; t < count; ++t) {
      const int tile_rows = least + (t < larger ? 1 : 0);
      // The last tiles of the strip fetch the next one.
      if (copied && t < tiles_ahead)
        copy_ahead<S>(behind, vectors, t, next_panel, job);
      else if (fetched < fetches && panels_left * count - t <= fetches)
        fetch_ahead(next_w, fetched++, job);
      else if (ahead && !copied && t < fetches_of(behind, panel_stride, depth))
        fetch_ahead(behind, t, job);
      else
        fetch_nothing(job);
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
  const auto first_row = [&](int64_t strip) { return block.rows * strip / strips; };
  const auto start = [&](int64_t row, int64_t p) {
    return block.w.data + (block.w.along_k ? row * block.w.stride + p : p * block.w.stride + row);
  };
  for (int64_t p = 0; p < block.k; p += block.k_block) {
    const int64_t depth = smaller(block.k_block, block.k - p);
    for (int64_t strip = 0; strip < strips; ++strip) {
      const int64_t row = first_row(strip);
      const int64_t end = first_row(strip + 1);
      const typename S::Element* next = nullptr;
      if (strip + 1 < strips)
        next = start(end, p);
      else if (p + block.k_block < block.k)
        next = start(0, p + block.k_block);
      else
        next = block.w_after;
      run_strip<S>(block, {start(row, p), block.w.stride, block.w.along_k}, end - row, row, p, depth, next);
    }
  }
}

template <class S>
constexpr ProductKernels<typename S::Element> kernels{S::lanes,       &packed_size<S>,      &run<S>,
                                                      &run_narrow<S>, &store_transposed<S>, &run_cycles<S>};

}  // namespace
}  // namespace hypertape::detail
