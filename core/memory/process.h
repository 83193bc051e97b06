// What all threads share: the counts, the open peak scopes and the pool of unused regions.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <type_traits>

#include <hypertape/core/memory.h>
#include "core/memory/classes.h"

namespace hypertape::detail::memory {

/// What an allocation adds to the counts; negative for a release.
struct Change {
  std::int64_t bytes;
  std::int64_t blocks;
};

struct Heap;
struct Region;

/// What threads share. Trivially destructible, since static objects may release blocks at any time before
/// exit.
struct Process {
  std::atomic<std::int64_t> live_bytes{0};   ///< as far as published
  std::atomic<std::int64_t> live_blocks{0};  ///< of those not counted by a heap
  std::atomic<std::int64_t> peak_bytes{0};   ///< since the last peak scope was opened
  std::atomic<std::int64_t> system_allocations{0};

  std::mutex mutex;  ///< guards all that follows
  std::int64_t earlier_peak_bytes = 0;
  std::int64_t mapped_bytes = 0;
  PeakScope* scopes = nullptr;
  Heap* heaps = nullptr;
  Heap* idle_heaps = nullptr;
  Region* pooled_segments = nullptr;
  std::array<Region*, class_count> pooled_blocks{};  ///< of more than 1 MiB, for each class
};
static_assert(std::is_trivially_destructible_v<Process>);

inline constinit Process process;

inline void raise_peak(std::int64_t level) {
  std::int64_t peak = process.peak_bytes.load(std::memory_order_relaxed);
  while (level > peak && !process.peak_bytes.compare_exchange_weak(peak, level, std::memory_order_relaxed)) {
  }
}

inline void count_bytes(std::int64_t bytes) {
  const std::int64_t before = process.live_bytes.fetch_add(bytes, std::memory_order_relaxed);
  if (bytes > 0) raise_peak(before + bytes);
}

/// Counts one block without a heap.
inline void count(Change change) {
  process.live_blocks.fetch_add(change.blocks, std::memory_order_relaxed);
  count_bytes(change.bytes);
}

inline Change allocated(std::size_t index) { return {static_cast<std::int64_t>(class_bytes(index)), 1}; }
inline Change released(std::size_t index) { return {-static_cast<std::int64_t>(class_bytes(index)), -1}; }

}  // namespace hypertape::detail::memory
