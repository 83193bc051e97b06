// System memory: regions aligned to 4 MiB, so that masking a block's address finds the header of its region.
//
// A segment is a region of 4 MiB, cut into 64 slices of 64 KiB of which the first holds the header. A block
// of more than 1 MiB has a region of its own. Regions not in use wait in the process's pool.
#pragma once

#include <sys/mman.h>

#include "core/memory/process.h"

namespace hypertape::detail::memory {

inline constexpr std::size_t region_alignment = 4 * mebibyte;
inline constexpr std::size_t segment_bytes = region_alignment;
inline constexpr std::size_t slice_count = segment_bytes / slice_bytes;
inline constexpr std::uint64_t all_slices = ~std::uint64_t{1};  // but the header's
inline constexpr std::size_t page_bytes = 4 * kibibyte;
inline constexpr std::size_t large_offset = 64;
inline constexpr std::int64_t process_slack = 256 * static_cast<std::int64_t>(mebibyte);

/// Header at the start of each region.
struct Region {
  Heap* owner;  ///< null for a large block and for a pooled segment
  Region* next;
  Region* previous;
  std::uint64_t free_slices;  ///< bit i set: slice i is in no slab
  std::size_t bytes;
  std::size_t large_class;
  alignas(64) std::array<std::uint8_t, slice_count> slice_class;
  std::array<std::uint8_t, slice_count> slab_start;    ///< first slice of the slab that this slice is in
  std::array<std::uint16_t, slice_count> free_blocks;  ///< of the slab starting here; valid during a sweep
};
static_assert(sizeof(Region) <= page_bytes && small_class_count <= 256);

inline Region* region_of(void* block) {
  return reinterpret_cast<Region*>(reinterpret_cast<std::uintptr_t>(block) & ~(region_alignment - 1));
}

inline std::size_t slice_of(const Region* segment, const void* block) {
  return static_cast<std::size_t>(static_cast<const std::byte*>(block) -
                                  reinterpret_cast<const std::byte*>(segment)) /
         slice_bytes;
}

inline void push(Region*& list, Region* region) {
  region->previous = nullptr;
  region->next = list;
  if (list != nullptr) list->previous = region;
  list = region;
}

inline void unlink(Region*& list, Region* region) {
  (region->previous != nullptr ? region->previous->next : list) = region->next;
  if (region->next != nullptr) region->next->previous = region->previous;
}

// The functions below expect the process mutex to be held.

inline void* map_pages(std::size_t bytes) {
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return pages == MAP_FAILED ? nullptr : pages;
}

inline Region* map_region(std::size_t bytes) {
  process.system_allocations.fetch_add(1, std::memory_order_relaxed);
  void* pages = map_pages(bytes + region_alignment);
  if (pages == nullptr) return nullptr;
  auto* begin = static_cast<std::byte*>(pages);
  const std::size_t before = (0 - reinterpret_cast<std::uintptr_t>(pages)) & (region_alignment - 1);
  if (before != 0) munmap(begin, before);
  if (before != region_alignment) munmap(begin + before + bytes, region_alignment - before);
  process.mapped_bytes += static_cast<std::int64_t>(bytes);
  // Large pages, by which products of 1024 x 1024 gain 1 to 4 %; not for less, which would fill few of them.
  if (bytes > segment_bytes) madvise(begin + before, bytes, MADV_HUGEPAGE);
  auto* region = reinterpret_cast<Region*>(begin + before);
  region->bytes = bytes;
  return region;
}

/// Returns one region of the list to the system.
inline void unmap_first(Region*& list) {
  Region* region = list;
  list = region->next;
  process.mapped_bytes -= static_cast<std::int64_t>(region->bytes);
  munmap(region, region->bytes);
}

/// Empties the pool, largest blocks first, until at most `bytes` are held from the system.
inline void shrink_pool(std::int64_t bytes) {
  for (std::size_t index = class_count; index-- > small_class_count;) {
    while (process.pooled_blocks[index] != nullptr && process.mapped_bytes > bytes) {
      unmap_first(process.pooled_blocks[index]);
    }
  }
  while (process.pooled_segments != nullptr && process.mapped_bytes > bytes)
    unmap_first(process.pooled_segments);
}

/// What may be held from the system when `bytes` more are needed: a quarter more than was ever live, and
/// some.
inline std::int64_t budget(std::size_t bytes) {
  const std::int64_t level =
      process.live_bytes.load(std::memory_order_relaxed) + static_cast<std::int64_t>(bytes);
  const std::int64_t need =
      std::max({level, process.earlier_peak_bytes, process.peak_bytes.load(std::memory_order_relaxed)});
  return need + need / 4 + process_slack;
}

/// A region from the pool's list or from the system; null if neither has one.
inline Region* take_region(Region*& pool, std::size_t bytes) {
  if (pool != nullptr) {
    Region* region = pool;
    pool = region->next;
    return region;
  }
  shrink_pool(budget(bytes) - static_cast<std::int64_t>(bytes));
  Region* region = map_region(bytes);
  if (region == nullptr) {
    shrink_pool(0);
    region = map_region(bytes);
  }
  return region;
}

}  // namespace hypertape::detail::memory
