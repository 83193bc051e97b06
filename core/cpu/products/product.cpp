#include "core/cpu/products/product.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <limits>
#include <string_view>

#include <hypertape/core/error.h>
#include <hypertape/core/parallel.h>
#include "core/base/warn_once.h"
#include "core/cpu/isa/features.h"
#include "core/cpu/products/blas.h"
#include "core/cpu/products/own.h"

namespace hypertape::detail {
namespace {

using std::int64_t;

// Fixed tiles on BLAS, each small enough for its 32-bit integers.
template <class T>
void product_on_blas(const ProductBatch& batch, bool transpose_a, bool transpose_b, int64_t m, int64_t n,
                     int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc,
                     bool accumulate) {
  constexpr int64_t tile_rows = 128;
  constexpr int64_t tile_columns = 512;
  constexpr int64_t tile_depth = int64_t{1} << 20;
  const int64_t down = divide_up(m, tile_rows);
  const int64_t across = divide_up(n, tile_columns);
  const SingleThreadBlas guard;
  const auto tile = [&](int64_t chunk) {
    const int64_t slice = chunk / (down * across), place = chunk % (down * across);
    const int64_t i = place % down * tile_rows;
    const int64_t j = place / down * tile_columns;
    const ProductBatch::Offsets start = batch.offsets(slice);
    for (int64_t p = 0; p < k; p += tile_depth) {
      blas_product(transpose_a, transpose_b, std::min(tile_rows, m - i), std::min(tile_columns, n - j),
                   std::min(tile_depth, k - p), a + start.a + (transpose_a ? p * lda + i : i * lda + p), lda,
                   b + start.b + (transpose_b ? j * ldb + p : p * ldb + j), ldb,
                   c + slice * m * ldc + i * ldc + j, ldc, accumulate || p > 0);
    }
  };
  parallel_chunks(batch.count() * down * across, tile);
}

enum class Backend { own, blas };

struct BackendChoice {
  Backend backend;
  std::string reason;
};

BackendChoice choose_backend() {
  const char* wish = std::getenv("HYPERTAPE_PRODUCTS");
  if (wish != nullptr && *wish != '\0') {
    const std::string_view word = wish;
    if (word != "own" && word != "blas") {
      fail("HYPERTAPE_PRODUCTS", "unknown word \"", word, "\"; use own or blas, or unset it");
    }
    return {word == "own" ? Backend::own : Backend::blas, "HYPERTAPE_PRODUCTS=" + std::string(word)};
  }
  if (active_isa() != Isa::baseline) {
    return {Backend::own, std::string("level ") + isa_name(active_isa()) +
                              " has kernels measured to be faster than OpenBLAS on layers of networks"};
  }
  return {Backend::blas, "the kernels for level baseline are made for small products only"};
}

const BackendChoice& backend_choice() {
  static const BackendChoice choice = choose_backend();
  return choice;
}

// Below this many multiply-adds a call of BLAS costs more than it saves.
constexpr double least_blas_work = 20000;

// Asked at the first product that needs to know, after initialize(). Threads that ask at once find the same;
// none waits for another, which a forked child might not have.
bool is_blas_slow() {
  static constinit std::atomic<int> known{-1};
  int slow = known.load(std::memory_order_relaxed);
  if (slow < 0) {
    const BlasState state = blas_state();
    slow = state.below_cpu && active_isa() != Isa::baseline ? 1 : 0;
    known.store(slow, std::memory_order_relaxed);
  }
  return slow == 1;
}

bool prefers_blas(double work, int64_t lda, int64_t ldb, int64_t ldc) {
  if (backend_choice().backend == Backend::own || work < least_blas_work) return false;
  if (std::max({lda, ldb, ldc}) >= std::numeric_limits<std::int32_t>::max()) return false;
  if (!is_blas_slow()) return true;
  warn_once("blas core",
            "[product] BLAS runs kernels for an older CPU than this one, so the library's own are used; call "
            "hypertape::initialize() at the start of main, or set OPENBLAS_CORETYPE");
  return false;
}

constinit thread_local int64_t multiply_adds_so_far = 0;

}  // namespace

int64_t multiply_adds() noexcept { return multiply_adds_so_far; }

template <class T>
void product(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const T* a, int64_t lda,
             const T* b, int64_t ldb, T* c, int64_t ldc, bool accumulate) {
  if (m <= 0 || n <= 0) return;
  if (k <= 0) {
    if (accumulate) return;
    for (int64_t i = 0; i < m; ++i) std::fill_n(c + i * ldc, n, T{0});
    return;
  }
  multiply_adds_so_far += m * n * k;
  const double work = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  if (prefers_blas(work, lda, ldb, ldc)) {
    product_on_blas({}, transpose_a, transpose_b, m, n, k, a, lda, b, ldb, c, ldc, accumulate);
    return;
  }
  own_product(transpose_a, transpose_b, m, n, k, a, lda, b, ldb, c, ldc, accumulate);
}

template void product<float>(bool, bool, int64_t, int64_t, int64_t, const float*, int64_t, const float*,
                             int64_t, float*, int64_t, bool);
template void product<double>(bool, bool, int64_t, int64_t, int64_t, const double*, int64_t, const double*,
                              int64_t, double*, int64_t, bool);

void ProductBatch::add_axis(int64_t extent, int64_t step_a, int64_t step_b) {
  if (extent == 1) return;
  if (rank > 0) {
    const auto last = static_cast<std::size_t>(rank - 1);
    if (steps_a[last] == step_a * extent && steps_b[last] == step_b * extent) {
      extents[last] *= extent;
      steps_a[last] = step_a;
      steps_b[last] = step_b;
      return;
    }
  }
  const auto axis = static_cast<std::size_t>(rank++);
  extents[axis] = extent;
  steps_a[axis] = step_a;
  steps_b[axis] = step_b;
}

int64_t ProductBatch::count() const {
  int64_t total = 1;
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(rank); ++axis) total *= extents[axis];
  return total;
}

ProductBatch::Offsets ProductBatch::offsets(int64_t slice) const {
  Offsets offsets;
  for (int axis = rank - 1; axis >= 0; --axis) {
    const auto at = static_cast<std::size_t>(axis);
    const int64_t index = axis == 0 ? slice : slice % extents[at];
    slice /= extents[at];
    offsets.a += index * steps_a[at];
    offsets.b += index * steps_b[at];
  }
  return offsets;
}

template <class T>
void product_batch(const ProductBatch& batch, bool transpose_a, bool transpose_b, int64_t m, int64_t n,
                   int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, bool accumulate) {
  const int64_t count = batch.count();
  if (count <= 0 || m <= 0 || n <= 0) return;
  if (count == 1) return product(transpose_a, transpose_b, m, n, k, a, lda, b, ldb, c, n, accumulate);
  if (k <= 0) {
    if (!accumulate) std::fill_n(c, count * m * n, T{0});
    return;
  }
  multiply_adds_so_far += count * m * n * k;
  const double work = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  if (prefers_blas(work, lda, ldb, n)) {
    product_on_blas(batch, transpose_a, transpose_b, m, n, k, a, lda, b, ldb, c, n, accumulate);
    return;
  }
  // Rows that follow each other through the slices are one tall product: the bits of an element of the own
  // kernels do not depend on the other rows.
  if (!transpose_a && batch.rank == 1 && batch.steps_b[0] == 0 && batch.steps_a[0] == m * lda) {
    own_product(false, transpose_b, count * m, n, k, a, lda, b, ldb, c, n, accumulate);
    return;
  }
  own_product_batch(batch, transpose_a, transpose_b, m, n, k, a, lda, b, ldb, c, accumulate);
}

template void product_batch<float>(const ProductBatch&, bool, bool, int64_t, int64_t, int64_t, const float*,
                                   int64_t, const float*, int64_t, float*, bool);
template void product_batch<double>(const ProductBatch&, bool, bool, int64_t, int64_t, int64_t, const double*,
                                    int64_t, const double*, int64_t, double*, bool);

bool transposes_keep_bits() { return backend_choice().backend == Backend::own; }

std::string product_kernels_reason() {
  const BackendChoice& choice = backend_choice();
  if (choice.backend == Backend::own) return "own kernels for all products: " + choice.reason;
  return "BLAS, own kernels for small products: " + choice.reason;
}

}  // namespace hypertape::detail
