// Drives the kernels of core/cpu/products/kernels.h: which operand is read as vectors, how the result is cut
// into blocks, what is packed. All of it depends on the shape, the strides, the instruction set and the
// number of threads alone, and none of it changes a bit of the result.
#include "core/cpu/products/own.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

#include <hypertape/core/parallel.h>
#include "core/cpu/isa/features.h"
#include "core/cpu/products/kernels.h"
#include "core/memory/scratch.h"

namespace hypertape::detail {
namespace {

using std::int64_t;

constexpr int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

// Memory that a thread keeps for its next product.
class KeptMemory {
 public:
  void* reserve(std::size_t bytes) {
    if (bytes > size_) {
      free();
      bytes += bytes / 4;
      memory_ = ::operator new(bytes, alignment, std::nothrow);
      if (memory_ == nullptr) fail_to_allocate(bytes);
      size_ = bytes;
    }
    return memory_;
  }
  void free() noexcept {
    ::operator delete(std::exchange(memory_, nullptr), alignment);
    size_ = 0;
  }

 private:
  static constexpr std::align_val_t alignment{64};
  void* memory_ = nullptr;
  std::size_t size_ = 0;
};

struct ThreadScratch {
  KeptMemory packed;
  KeptMemory result;
  KeptMemory w_copy;
  // What `packed` holds: neighbouring blocks of one call share it, and slices of a batch that share V.
  std::uint64_t call = 0;
  const void* source = nullptr;
  int64_t column = -1;
  int64_t depth = -1;
  bool known = false;
};
static_assert(std::is_trivially_destructible_v<ThreadScratch>);

// Never destroyed: other static and thread-local objects may multiply in their destructors. It is emptied by
// a key of the system's, after the destructors of a thread's objects; the main thread keeps it until the
// process ends.
constinit thread_local ThreadScratch scratch_of_thread;

void empty_scratch(void* scratch) noexcept {
  auto& its = *static_cast<ThreadScratch*>(scratch);
  for (KeptMemory* memory : {&its.packed, &its.result, &its.w_copy}) memory->free();
  its.call = 0;
  its.known = false;
}

ThreadScratch& thread_scratch() {
  ThreadScratch& scratch = scratch_of_thread;
  if (!scratch.known) {
    static const std::optional<pthread_key_t> key = []() -> std::optional<pthread_key_t> {
      pthread_key_t made;
      if (pthread_key_create(&made, empty_scratch) != 0) return std::nullopt;
      return made;
    }();
    if (key) pthread_setspecific(*key, &scratch);
    scratch.known = true;
  }
  return scratch;
}

std::atomic<std::uint64_t> last_call{0};

template <class T>
const ProductKernels<T>& kernels_for(Isa isa) {
  if constexpr (sizeof(T) == 4) {
#if defined(__x86_64__)
    if (isa == Isa::avx512) return avx512_kernels_f32();
    if (isa == Isa::avx2) return avx2_kernels_f32();
#endif
    return static_cast<void>(isa), baseline_kernels_f32();
  } else {
#if defined(__x86_64__)
    if (isa == Isa::avx512) return avx512_kernels_f64();
    if (isa == Isa::avx2) return avx2_kernels_f64();
#endif
    return static_cast<void>(isa), baseline_kernels_f64();
  }
}

template <class T>
const ProductKernels<T>& active_kernels() {
  static const ProductKernels<T>& kernels = kernels_for<T>(active_isa());
  return kernels;
}

// D = W V, where D is c or its transpose.
template <class T>
struct Plan {
  int64_t rows, columns, k, k_block, k_slab;
  ProductOperand<T> w, v;
  PanelPacking packing;
  bool copy_w;
  bool parallel;
  bool transposed;
  int64_t row_blocks, column_blocks, column_unit;
  T* c;
  int64_t c_stride;
  bool accumulate;
};

// The result depends on this one function of k; see core/cpu/products/kernels.h.
constexpr int64_t choose_k_block(int64_t k) {
  constexpr int64_t most = 512;
  return k <= most ? k : round_up(divide_up(k, divide_up(k, most)), 8);
}

template <class T>
double estimated_cycles(const ProductKernels<T>& kernels, int64_t rows, int64_t columns, int64_t k,
                        bool transpose_v, bool transpose_d) {
  const double packing = static_cast<double>(sizeof(T)) * (transpose_v ? 0.12 : 0.03);
  const double storing = transpose_d ? 0.15 * static_cast<double>(sizeof(T)) : 0;
  const double per_cycle = kernels.lanes * sizeof(T) == 64 ? wide_multiply_adds_per_cycle() : 2;
  return kernels.run_cycles(rows, columns, k, per_cycle) +
         packing * static_cast<double>(k) * static_cast<double>(columns) +
         storing * static_cast<double>(rows) * static_cast<double>(columns);
}

// How many blocks keep the threads busy: each worth the cost of a parallel call (0.5 us), more of them for
// products so large that many threads matter. Without threads, blocks serve the caches, and small ones only
// cost.
template <class T>
int64_t wanted_blocks(int64_t m, int64_t n, int64_t k) {
  const double work = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  constexpr double shared_block = sizeof(T) == 4 ? 1 << 15 : 3 << 13;
  const double small_block = thread_count() == 1 ? 8 * shared_block : shared_block;
  constexpr double large_block = 1 << 24;
  const double blocks = std::max(std::min(work / small_block, 16.0), work / large_block);
  return static_cast<int64_t>(std::clamp(blocks, 1.0, 1024.0));
}

// Copying costs a pass over an operand; reading it where it is may cost more.
template <class T>
void choose_copies(Plan<T>& plan) {
  constexpr auto size = static_cast<int64_t>(sizeof(T));
  constexpr int64_t page = 4096;  // lines that far apart share a set of the first-level cache
  constexpr int64_t most_bytes = 1 << 19;
  const int64_t v_bytes = plan.v.stride * size;
  const bool conflicts = v_bytes % page == 0 && plan.rows >= 16;
  const bool far = v_bytes * std::min(plan.k, plan.k_block) > most_bytes;
  const bool crooked = v_bytes % 64 != 0;
  plan.packing = plan.v.along_k || conflicts || ((far || crooked) && plan.rows >= 64) ? PanelPacking::all
                                                                                      : PanelPacking::last;
  // Many panels pay for copying rows that share a set, and a single one of floats, whose lines are read 16
  // times.
  const bool single = sizeof(T) == 4 && plan.columns <= plan.column_unit;
  const bool pays = single || plan.columns >= 4 * plan.column_unit;
  plan.copy_w = plan.w.stride * size % page == 0 && pays && plan.rows >= 8;
}

// Columns are cut first: rows cut further would pack V again. Where W is copied it is the other way round.
template <class T>
void choose_blocks(Plan<T>& plan, int64_t wanted) {
  // What few rows read must come from near; many rows pay for fetching it from the second-level cache.
  const int64_t packed_bytes = std::clamp<int64_t>(plan.rows << 13, 1 << 15, 1 << 21);
  const int64_t units = divide_up(plan.columns, plan.column_unit);
  const int64_t least_units = plan.rows <= strip_rows ? 4 : 6;
  const int64_t fitting =
      std::max<int64_t>(1, packed_bytes / (plan.k_slab * plan.column_unit * static_cast<int64_t>(sizeof(T))));
  plan.column_blocks =
      std::max(divide_up(units, fitting), plan.copy_w ? 1 : std::min(wanted, units / least_units));
  plan.column_blocks = std::clamp<int64_t>(plan.column_blocks, 1, units);
  // Copied rows are worth most while all of them are there: one strip is cut only where the threads need it.
  const int threads = thread_count();
  const bool whole =
      plan.copy_w && plan.rows <= strip_rows && (threads == 1 || plan.column_blocks >= 2 * threads);
  const int64_t most_row_blocks = whole ? 1 : divide_up(plan.rows, 48);
  plan.row_blocks = std::clamp<int64_t>(divide_up(wanted, plan.column_blocks), 1, most_row_blocks);
  // An even number of blocks halves well.
  if (plan.row_blocks > 1 && plan.column_blocks % 2 == 1) plan.row_blocks -= plan.row_blocks % 2;
}

template <class T>
Plan<T> make_plan(const ProductKernels<T>& kernels, bool transpose_a, bool transpose_b, int64_t m, int64_t n,
                  int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, bool accumulate, bool batch) {
  Plan<T> plan;
  // Blocks of k are added to c one by one, which a transposed result cannot do in the same order.
  plan.transposed =
      !(accumulate && k > choose_k_block(k)) && estimated_cycles(kernels, n, m, k, !transpose_a, true) <
                                                    estimated_cycles(kernels, m, n, k, transpose_b, false);
  plan.k = k;
  if (plan.transposed) {
    plan.rows = n;
    plan.columns = m;
    plan.w = {b, ldb, transpose_b};
    plan.v = {a, lda, !transpose_a};
  } else {
    plan.rows = m;
    plan.columns = n;
    plan.w = {a, lda, !transpose_a};
    plan.v = {b, ldb, transpose_b};
  }
  plan.k_block = choose_k_block(k);
  plan.k_slab = std::min(k, 4 * plan.k_block);
  plan.column_unit = 2 * kernels.lanes;

  const int64_t wanted = wanted_blocks<T>(m, n, k);
  plan.parallel = wanted > 1;
  choose_copies(plan);
  choose_blocks(plan, wanted);
  // One strip of rows reads a panel only once; a batch may share V among its slices.
  if (plan.packing == PanelPacking::all && plan.row_blocks == 1 && plan.rows <= strip_rows &&
      plan.v.along_k && !batch)
    plan.packing = PanelPacking::one_by_one;
  return plan;
}

// Finds the place for the panels of a block, and whether they are there already.
template <class T>
void find_panels(const ProductKernels<T>& kernels, std::uint64_t call, int64_t column, int64_t depth,
                 BlockJob<T>& job) {
  job.packed = nullptr;
  job.pack_now = true;
  const int64_t size = kernels.packed_size(job.columns, job.k, job.packing);
  if (size == 0) return;
  ThreadScratch& scratch = thread_scratch();
  job.pack_now = scratch.call != call || scratch.source != job.v.data || scratch.column != column ||
                 scratch.depth != depth || job.packing == PanelPacking::one_by_one;
  if (job.pack_now) scratch.call = 0;  // should memory run out, nothing is packed
  job.packed =
      static_cast<T*>(scratch.packed.reserve(job.pack_now ? static_cast<std::size_t>(size) * sizeof(T) : 0));
  scratch.call = call;
  scratch.source = job.v.data;
  scratch.column = column;
  scratch.depth = depth;
}

template <class T>
void run_block(const ProductKernels<T>& kernels, const Plan<T>& plan, std::uint64_t call, int64_t chunk) {
  const int64_t row_block = chunk % plan.row_blocks;
  const int64_t column_block = chunk / plan.row_blocks;
  const int64_t row = plan.rows * row_block / plan.row_blocks;
  const int64_t units = divide_up(plan.columns, plan.column_unit);
  const int64_t column = units * column_block / plan.column_blocks * plan.column_unit;
  const int64_t column_end =
      std::min(plan.columns, units * (column_block + 1) / plan.column_blocks * plan.column_unit);

  BlockJob<T> job;
  job.rows = plan.rows * (row_block + 1) / plan.row_blocks - row;
  job.columns = column_end - column;
  job.k_block = plan.k_block;
  job.packing = plan.packing;
  job.columns_behind = column_end < plan.columns;
  if (plan.transposed) {
    job.d_stride = compact_stride(job.columns, kernels.lanes);
    job.d = static_cast<T*>(
        thread_scratch().result.reserve(static_cast<std::size_t>(job.rows * job.d_stride) * sizeof(T)));
  } else {
    job.d_stride = plan.c_stride;
    job.d = plan.c + row * plan.c_stride + column;
  }
  constexpr int64_t near = 1 << 19;
  job.fetch_d = !plan.transposed && plan.rows * plan.columns * static_cast<int64_t>(sizeof(T)) > near;
  job.w_copy = nullptr;
  if (plan.copy_w) {
    const int64_t rows = std::min(job.rows, strip_rows);
    const int64_t most = std::max(rows * compact_stride(plan.k_block, kernels.lanes),
                                  plan.k_block * compact_stride(rows, kernels.lanes));
    job.w_copy = static_cast<T*>(thread_scratch().w_copy.reserve(static_cast<std::size_t>(most) * sizeof(T)));
  }
  for (int64_t depth = 0; depth < plan.k; depth += plan.k_slab) {
    job.k = std::min(plan.k_slab, plan.k - depth);
    const auto w_at = [&](int64_t i, int64_t p) {
      return plan.w.data + (plan.w.along_k ? i * plan.w.stride + p : p * plan.w.stride + i);
    };
    const int64_t next_row = row + job.rows, next_depth = depth + plan.k_slab;
    job.w = {w_at(row, depth), plan.w.stride, plan.w.along_k};
    job.w_after = next_depth < plan.k    ? w_at(row, next_depth)
                  : next_row < plan.rows ? w_at(next_row, 0)
                                         : nullptr;
    job.v = plan.v;
    job.v.data += plan.v.along_k ? column * plan.v.stride + depth : depth * plan.v.stride + column;
    find_panels(kernels, call, column, depth, job);
    job.accumulate = depth > 0 || (plan.accumulate && !plan.transposed);
    kernels.run(job);
  }
  if (plan.transposed) {
    kernels.store_transposed(job.d, job.d_stride, plan.c + column * plan.c_stride + row, plan.c_stride,
                             job.columns, job.rows, plan.accumulate);
  }
}

// Slices of a batch that together are worth a thread of their own.
int64_t slices_per_chunk(int64_t m, int64_t n, int64_t k) {
  constexpr double worthwhile = 1 << 15;  // multiply-adds
  const double work = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  return static_cast<int64_t>(std::max(worthwhile / work, 1.0));
}

CallSize call_size_of(double work) { return work <= 1 << 19 ? CallSize::brief : CallSize::any; }

// A product that takes less time than planning it.
constexpr double tiny_work = 8192;

template <class T>
void run_tiny(const ProductKernels<T>& kernels, bool transpose_a, bool transpose_b, int64_t m, int64_t n,
              int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc,
              bool accumulate) {
  BlockJob<T> job{m,
                  n,
                  k,
                  choose_k_block(k),
                  {a, lda, !transpose_a},
                  {b, ldb, transpose_b},
                  nullptr,
                  transpose_b ? PanelPacking::one_by_one : PanelPacking::last,
                  true,
                  c,
                  ldc,
                  accumulate,
                  false,
                  nullptr};
  // One strip or two: a panel is packed for the first and still there for the second only if there is one.
  if (m > strip_rows && transpose_b) job.packing = PanelPacking::all;
  if (const int64_t size = kernels.packed_size(n, k, job.packing); size != 0) {
    ThreadScratch& scratch = thread_scratch();
    scratch.call = 0;
    job.packed = static_cast<T*>(scratch.packed.reserve(static_cast<std::size_t>(size) * sizeof(T)));
  }
  kernels.run(job);
}

// Whether narrow products can take k: they need a vector's worth of indices in every block.
template <class T>
bool narrow_depth(const ProductKernels<T>& kernels, int64_t k) {
  const int64_t k_block = choose_k_block(k);
  return k - (divide_up(k, k_block) - 1) * k_block >= kernels.lanes;
}

// Every slice of a batch as a NarrowJob; the operands of `first` are those of the slice at offsets 0.
template <class T>
void run_narrow(const ProductKernels<T>& kernels, const ProductBatch& batch, bool w_is_a,
                const NarrowJob<T>& first, int64_t c_step) {
  constexpr int64_t worthwhile = 1 << 14;  // elements of V that are worth a thread of their own
  // Rows of V are read best in long pieces.
  const int64_t least_columns = first.v.along_k ? kernels.lanes : 2048;
  const int64_t wanted_columns = round_up(divide_up(worthwhile, first.k), int64_t{kernels.lanes});
  const int64_t slice_columns = std::min(first.columns, std::max(least_columns, wanted_columns));
  const int64_t pieces = divide_up(first.columns, slice_columns);
  const int64_t grain = std::max<int64_t>(1, worthwhile / (slice_columns * first.k));
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t slice = chunk / pieces;
      const int64_t column = chunk % pieces * slice_columns;
      const ProductBatch::Offsets start = batch.offsets(slice);
      NarrowJob<T> job = first;
      job.columns = std::min(slice_columns, first.columns - column);
      job.w.data += w_is_a ? start.a : start.b;
      job.v.data += (w_is_a ? start.b : start.a) + column * (job.v.along_k ? job.v.stride : 1);
      job.d += slice * c_step + column * job.d_across;
      kernels.run_narrow(job);
    }
  };
  const double elements = static_cast<double>(batch.count()) * static_cast<double>(first.columns * first.k);
  parallel_ranges(batch.count() * pieces, grain, run, call_size_of(4 * elements));
}

template <class T>
void run_slices(const ProductKernels<T>& kernels, const ProductBatch& batch, bool transpose_a,
                bool transpose_b, int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b,
                int64_t ldb, T* c, int64_t ldc, int64_t c_step, bool accumulate) {
  Plan<T> plan =
      make_plan(kernels, transpose_a, transpose_b, m, n, k, a, lda, b, ldb, accumulate, batch.rank > 0);
  plan.c_stride = ldc;
  plan.accumulate = accumulate;
  const std::uint64_t call = last_call.fetch_add(1, std::memory_order_relaxed) + 1;
  const int64_t blocks = plan.row_blocks * plan.column_blocks;
  const auto run = [&](int64_t first, int64_t last) {
    Plan<T> own = plan;
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t slice = chunk / blocks;
      const ProductBatch::Offsets start = batch.offsets(slice);
      own.w.data = plan.transposed ? b + start.b : a + start.a;
      own.v.data = plan.transposed ? a + start.a : b + start.b;
      own.c = c + slice * c_step;
      run_block(kernels, own, call, chunk % blocks);
    }
  };
  const int64_t slices_each = slices_per_chunk(m, n, k);
  const double work = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  parallel_ranges(batch.count() * blocks, plan.parallel ? 1 : slices_each * blocks, run,
                  call_size_of(work * static_cast<double>(batch.count())));
}

// Products with a result of few columns, or a few columns more than whole vectors, and likewise few rows.
template <class T>
void run_any(const ProductBatch& batch, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
             const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc, int64_t c_step,
             bool accumulate) {
  const double work = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  const ProductKernels<T>& kernels = active_kernels<T>();
  const int64_t lanes = kernels.lanes;
  const int64_t few = std::min<int64_t>(lanes / 2, most_narrow_rows);
  const int64_t k_block = choose_k_block(k);
  const auto narrow_columns = [&](int64_t first) {
    const T* from = b + (transpose_b ? first * ldb : first);
    const ProductOperand<T> w{from, ldb, transpose_b}, v{a, lda, !transpose_a};
    run_narrow(kernels, batch, false,
               NarrowJob<T>{n - first, m, k, k_block, w, v, c + first, 1, ldc, accumulate}, c_step);
  };
  const auto is_narrow = [&](int64_t rows, int64_t columns, bool along_k) {
    if (along_k) return rows <= few && columns >= lanes && narrow_depth(kernels, k);
    return rows <= most_narrow_rows_across && columns >= 4 * lanes && work > tiny_work;
  };
  if (is_narrow(n, m, !transpose_a)) return narrow_columns(0);
  if (is_narrow(m, n, transpose_b)) {
    const ProductOperand<T> w{a, lda, !transpose_a}, v{b, ldb, transpose_b};
    run_narrow(kernels, batch, true, NarrowJob<T>{m, n, k, k_block, w, v, c, ldc, 1, accumulate}, c_step);
    return;
  }
  if (work <= tiny_work) {
    parallel_ranges(batch.count(), slices_per_chunk(m, n, k), [&](int64_t first, int64_t last) {
      for (int64_t slice = first; slice < last; ++slice) {
        const ProductBatch::Offsets start = batch.offsets(slice);
        run_tiny(kernels, transpose_a, transpose_b, m, n, k, a + start.a, lda, b + start.b, ldb,
                 c + slice * c_step, ldc, accumulate);
      }
    });
    return;
  }
  // A last vector with few columns costs as much as a whole one.
  const int64_t left = n % lanes;
  const bool split = n > lanes && left > 0 && left <= 3 * lanes / 8 && m >= 3 * lanes &&
                     (transpose_a ? left <= most_narrow_rows_across : narrow_depth(kernels, k));
  run_slices(kernels, batch, transpose_a, transpose_b, m, split ? n - left : n, k, a, lda, b, ldb, c, ldc,
             c_step, accumulate);
  if (split) narrow_columns(n - left);
}

}  // namespace

template <class T>
void own_product(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const T* a, int64_t lda,
                 const T* b, int64_t ldb, T* c, int64_t ldc, bool accumulate) {
  run_any<T>({}, transpose_a, transpose_b, m, n, k, a, lda, b, ldb, c, ldc, 0, accumulate);
}

template <class T>
void own_product_batch(const ProductBatch& batch, bool transpose_a, bool transpose_b, int64_t m, int64_t n,
                       int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, bool accumulate) {
  run_any(batch, transpose_a, transpose_b, m, n, k, a, lda, b, ldb, c, n, m * n, accumulate);
}

template void own_product_batch<float>(const ProductBatch&, bool, bool, int64_t, int64_t, int64_t,
                                       const float*, int64_t, const float*, int64_t, float*, bool);
template void own_product_batch<double>(const ProductBatch&, bool, bool, int64_t, int64_t, int64_t,
                                        const double*, int64_t, const double*, int64_t, double*, bool);

template void own_product<float>(bool, bool, int64_t, int64_t, int64_t, const float*, int64_t, const float*,
                                 int64_t, float*, int64_t, bool);
template void own_product<double>(bool, bool, int64_t, int64_t, int64_t, const double*, int64_t,
                                  const double*, int64_t, double*, int64_t, bool);

}  // namespace hypertape::detail
