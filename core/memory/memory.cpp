// The allocator's threads: which heap serves which, and the counts they report.
//
// The layers below, from the system upwards: core/memory/classes.h, core/memory/process.h,
// core/memory/regions.h, core/memory/heap.h. A thread takes a heap with its first small block. The heap of an
// ended thread waits, with its live blocks, for the next thread that needs one.
#include <hypertape/core/memory.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <new>
#include <utility>

#include <hypertape/core/error.h>
#include "core/memory/faults.h"
#include "core/memory/process.h"
#include "core/memory/scratch.h"
#include "core/threads/thread_tag.h"

#if defined(__SANITIZE_ADDRESS__)
#define HYPERTAPE_PASS_THROUGH 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HYPERTAPE_PASS_THROUGH 1
#endif
#endif

#if defined(HYPERTAPE_PASS_THROUGH)
#include <sanitizer/asan_interface.h>
#else
#include "core/memory/heap.h"
#endif

namespace hypertape {

using namespace detail::memory;

void detail::fail_to_allocate(std::size_t bytes) {
  fail("allocate", "the system has no block of ", bytes,
       " bytes; use a smaller batch, fewer recorded steps or a checkpoint");
}

void detail::fail_to_hold(std::int64_t count, std::size_t bytes_each) {
  fail("allocate", "the system has no block for ", count, " elements of ", bytes_each,
       " bytes; use smaller tensors or fewer steps");
}

namespace {

using detail::fail_to_allocate;

// How many allocations of this thread may still succeed; negative: as many as there are.
constexpr std::int64_t unlimited = -1;
constinit thread_local std::int64_t allocations_left = unlimited;
constinit thread_local std::int64_t failures_left = 0;  // and how many then fail
constinit thread_local bool fault_struck = false;

// Counts an allocation that is about to be made; throws if it is to fail.
void count_down(std::size_t bytes) {
  if (allocations_left == unlimited) return;
  if (allocations_left == 0) {
    fault_struck = true;
    if (--failures_left == 0) allocations_left = std::numeric_limits<std::int64_t>::max();
    fail_to_allocate(bytes);
  }
  --allocations_left;
}

}  // namespace

std::size_t accounted_bytes(std::size_t bytes) noexcept {
  return bytes > largest_request ? bytes : class_bytes(class_of(bytes));
}

#if defined(HYPERTAPE_PASS_THROUGH)

namespace {

// The sanitizer sees the requested size, not the class; the class is noted in a poisoned line before the
// block.
constexpr std::size_t prefix_bytes = 64;
constexpr std::size_t largest_sanitized_request = std::size_t{1} << 38;  // it aborts when asked for too much

void publish_bytes() {}
Change heap_counts() { return {0, 0}; }

}  // namespace

void* allocate_bytes(std::size_t bytes) {
  count_down(bytes);
  if (bytes > largest_sanitized_request) fail_to_allocate(bytes);
  const std::size_t index = class_of(bytes);
  void* start = ::operator new (prefix_bytes + bytes, std::align_val_t{64}, std::nothrow);
  if (start == nullptr) fail_to_allocate(bytes);
  *static_cast<std::size_t*>(start) = index;
  ASAN_POISON_MEMORY_REGION(start, prefix_bytes);
  process.system_allocations.fetch_add(1, std::memory_order_relaxed);
  count(allocated(index));
  return static_cast<std::byte*>(start) + prefix_bytes;
}

void release_bytes(void* block) noexcept {
  if (block == nullptr) return;
  void* start = static_cast<std::byte*>(block) - prefix_bytes;
  ASAN_UNPOISON_MEMORY_REGION(start, prefix_bytes);
  count(released(*static_cast<std::size_t*>(start)));
  ::operator delete (start, std::align_val_t{64});
}

void trim_memory() {}

detail::AllocationFaults::AllocationFaults(std::int64_t successes, std::int64_t failures) noexcept {
  fault_struck = false;
  failures_left = failures;
  allocations_left = successes;
}
detail::AllocationFaults::~AllocationFaults() { allocations_left = unlimited; }

#else

namespace {

// Owns no block and has none: a thread without a heap takes the slow paths without a test of its own.
constinit Heap no_heap;

// One word of static thread storage is all that the fast paths need; initial-exec makes it a plain load.
constinit thread_local Heap* current_heap __attribute__((tls_model("initial-exec"))) = &no_heap;
constinit thread_local bool thread_has_ended = false;

/// Makes the calling thread's bytes known to all.
void publish_bytes() {
  if (current_heap != &no_heap) publish_bytes(current_heap);
}

/// What the heaps have counted and not published; expects the process mutex to be held.
Change heap_counts() {
  Change sum{0, 0};
  for (const Heap* heap = process.heaps; heap != nullptr; heap = heap->next) {
    sum.bytes += heap->unpublished_bytes.load(std::memory_order_relaxed);
    sum.blocks += heap->live_blocks.load(std::memory_order_relaxed);
  }
  return sum;
}

/// A heap that serves no thread; null if there is no memory.
Heap* take_heap() {
  const std::lock_guard lock(process.mutex);
  Heap* heap = process.idle_heaps;
  if (heap != nullptr) {
    process.idle_heaps = heap->next_idle;
    return heap;
  }
  process.system_allocations.fetch_add(1, std::memory_order_relaxed);
  void* pages = map_pages(sizeof(Heap));
  if (pages == nullptr) return nullptr;
  heap = new (pages) Heap;
  heap->next = process.heaps;
  process.heaps = heap;
  return heap;
}

void give_back_heap(Heap* heap) {
  publish_bytes(heap);
  const std::lock_guard lock(process.mutex);
  heap->next_idle = process.idle_heaps;
  process.idle_heaps = heap;
}

/// Ends a thread's use of its heap. Destructors of other thread-local objects may run after it.
struct HeapUse {
  Heap* heap = nullptr;
  ~HeapUse() {
    current_heap = &no_heap;
    thread_has_ended = true;
    sweep(heap);
    give_back_heap(heap);
  }
};

void* allocate_from(Heap* heap, std::size_t index) {
  if (heap->free[index] == nullptr && !refill(heap, index)) return nullptr;
  Block* block = heap->free[index];
  heap->free[index] = block->next;
  add_counts(heap, allocated(index));
  return block;
}

void* allocate_large(std::size_t bytes) {
  if (bytes > largest_request) return nullptr;
  const std::size_t index = class_of(bytes);
  const std::size_t needed = (large_offset + class_bytes(index) + page_bytes - 1) / page_bytes * page_bytes;
  if (current_heap != &no_heap) sweep_before_mapping(current_heap, needed);
  Region* region = nullptr;
  {
    const std::lock_guard lock(process.mutex);
    region = take_region(process.pooled_blocks[index], needed);
  }
  if (region == nullptr) return nullptr;
  region->owner = nullptr;
  region->large_class = index;
  count(allocated(index));
  return reinterpret_cast<std::byte*>(region) + large_offset;
}

[[gnu::noinline]] void* allocate_slowly(std::size_t bytes) {
  count_down(bytes);
  void* block = nullptr;
  if (bytes > largest_small) {
    block = allocate_large(bytes);
  } else if (current_heap != &no_heap) {
    block = allocate_from(current_heap, class_of(bytes));
  } else if (Heap* heap = take_heap(); heap != nullptr) {
    block = allocate_from(heap, class_of(bytes));
    if (thread_has_ended || allocations_left != unlimited) {
      give_back_heap(heap);
    } else {
      thread_local HeapUse use;
      use.heap = heap;
      current_heap = heap;
    }
  }
  if (block == nullptr) fail_to_allocate(bytes);
  return block;
}

[[gnu::noinline]] void release_slowly(Region* region, Block* block) noexcept {
  Heap* owner = region->owner;
  if (owner == nullptr) {
    count(released(region->large_class));
    const std::lock_guard lock(process.mutex);
    push(process.pooled_blocks[region->large_class], region);
    return;
  }
  const std::size_t index = region->slice_class[slice_of(region, block)];
  block->next = owner->released_elsewhere.load(std::memory_order_relaxed);
  while (!owner->released_elsewhere.compare_exchange_weak(block->next, block, std::memory_order_release,
                                                          std::memory_order_relaxed)) {
  }
  if (current_heap == &no_heap) {
    count(released(index));
  } else {
    // It was not this heap that handed the block out, as publishing will assume.
    current_heap->handed_out_bytes += size_classes[index].bytes;
    add_counts(current_heap, released(index));
  }
}

}  // namespace

void* allocate_bytes(std::size_t bytes) {
  if (bytes <= largest_small) [[likely]] {
    Heap* heap = current_heap;
    const std::size_t index = bytes <= table_limit ? class_table[(bytes + 15) / 16] : class_of(bytes);
    Block* block = heap->free[index];
    if (block != nullptr) [[likely]] {
      heap->free[index] = block->next;
      add_counts(heap, {static_cast<std::int64_t>(size_classes[index].bytes), 1});
      return block;
    }
  }
  return allocate_slowly(bytes);
}

void release_bytes(void* pointer) noexcept {
  if (pointer == nullptr) return;
  Region* region = region_of(pointer);
  auto* block = static_cast<Block*>(pointer);
  Heap* heap = current_heap;
  if (region->owner != heap) [[unlikely]]
    return release_slowly(region, block);
  const std::size_t index = region->slice_class[slice_of(region, block)];
  push_free(heap, index, block);
  add_counts(heap, {-static_cast<std::int64_t>(size_classes[index].bytes), -1});
}

void trim_memory() {
  if (current_heap != &no_heap) {
    publish_bytes(current_heap);
    sweep(current_heap);
  }
  Heap* idle = nullptr;
  {
    const std::lock_guard lock(process.mutex);
    idle = std::exchange(process.idle_heaps, nullptr);
  }
  while (idle != nullptr) {
    Heap* heap = std::exchange(idle, idle->next_idle);
    sweep(heap);
    give_back_heap(heap);
  }
  const std::lock_guard lock(process.mutex);
  shrink_pool(0);
}

detail::AllocationFaults::AllocationFaults(std::int64_t successes, std::int64_t failures) noexcept
    : heap_(std::exchange(current_heap, &no_heap)) {
  fault_struck = false;
  failures_left = failures;
  allocations_left = successes;
}

detail::AllocationFaults::~AllocationFaults() {
  allocations_left = unlimited;
  current_heap = static_cast<Heap*>(heap_);
}

#endif

bool detail::AllocationFaults::struck() const noexcept { return fault_struck; }

MemoryStatistics memory_statistics() {
  const std::lock_guard lock(process.mutex);
  const Change heaps = heap_counts();
  MemoryStatistics statistics;
  statistics.live_bytes = process.live_bytes.load(std::memory_order_relaxed) + heaps.bytes;
  statistics.live_blocks = process.live_blocks.load(std::memory_order_relaxed) + heaps.blocks;
  statistics.cached_bytes = std::max<std::int64_t>(process.mapped_bytes - statistics.live_bytes, 0);
  statistics.peak_bytes =
      std::max({process.earlier_peak_bytes, process.peak_bytes.load(std::memory_order_relaxed),
                statistics.live_bytes});
  statistics.system_allocations = process.system_allocations.load(std::memory_order_relaxed);
  return statistics;
}

void detail::keep_own_peak_scopes() noexcept {
  PeakScope* kept = nullptr;
  for (PeakScope *scope = process.scopes, *next; scope != nullptr; scope = next) {
    next = scope->next_;
    if (scope->thread_ != thread_tag()) continue;
    if (kept == nullptr)
      process.scopes = scope;
    else
      kept->next_ = scope;
    scope->previous_ = kept;
    kept = scope;
  }
  if (kept == nullptr)
    process.scopes = nullptr;
  else
    kept->next_ = nullptr;
}

PeakScope::PeakScope() : thread_(detail::thread_tag()) {
  publish_bytes();
  const std::lock_guard lock(process.mutex);
  base_ = process.live_bytes.load(std::memory_order_relaxed);
  highest_ = base_;
  // The peak restarts from here, so what it was belongs to the scopes already open.
  const std::int64_t peak = process.peak_bytes.exchange(base_, std::memory_order_relaxed);
  raise_peak(process.live_bytes.load(std::memory_order_relaxed));
  process.earlier_peak_bytes = std::max(process.earlier_peak_bytes, peak);
  for (PeakScope* scope = process.scopes; scope != nullptr; scope = scope->next_) {
    scope->highest_ = std::max(scope->highest_, peak);
  }
  next_ = process.scopes;
  if (next_ != nullptr) next_->previous_ = this;
  process.scopes = this;
}

PeakScope::~PeakScope() {
  const std::lock_guard lock(process.mutex);
  (previous_ != nullptr ? previous_->next_ : process.scopes) = next_;
  if (next_ != nullptr) next_->previous_ = previous_;
}

std::int64_t PeakScope::peak_bytes() const {
  publish_bytes();
  const std::lock_guard lock(process.mutex);
  return std::max(highest_, process.peak_bytes.load(std::memory_order_relaxed)) - base_;
}

}  // namespace hypertape
