// A heap: one thread's segments, cut into slabs of blocks of one size class, and its lists of free blocks.
//
// Allocating pops from a list and releasing pushes; neither is atomic. A block released by another thread is
// pushed onto its heap's lock-free stack, which the heap drains when it runs out of blocks. Heaps live for
// ever, so there is always somewhere to push to.
#pragma once

#include "core/memory/regions.h"

namespace hypertape::detail::memory {

inline constexpr std::int64_t heap_slack = 256 * static_cast<std::int64_t>(mebibyte);

/// A free block.
struct Block {
  Block* next;
};

/// The part of a slab not yet cut into blocks.
struct Uncut {
  std::byte* begin;
  std::byte* end;
};

struct Heap {
  // Written by the heap's thread alone, with plain instructions; atomic so that others may read.
  std::atomic<std::int64_t> unpublished_bytes{0};
  std::atomic<std::int64_t> live_blocks{0};  ///< allocated minus released by its threads; never published
  std::array<Block*, small_class_count> free{};
  std::array<Uncut, small_class_count> uncut{};
  Region* segments_with_space = nullptr;
  Region* full_segments = nullptr;
  std::int64_t mapped_bytes = 0;
  std::int64_t handed_out_bytes = 0;  ///< of this heap's blocks, up to what is unpublished
  std::int64_t highest_handed_out_bytes = 0;
  std::int64_t excess_left = 0;  ///< free bytes that the last sweep could not reclaim, or fewer
  Heap* next = nullptr;
  Heap* next_idle = nullptr;
  alignas(64) std::atomic<Block*> released_elsewhere{nullptr};
};

inline void push_free(Heap* heap, std::size_t index, Block* block) {
  block->next = heap->free[index];
  heap->free[index] = block;
}

/// Takes in the blocks of this heap that other threads released.
inline void drain(Heap* heap) {
  Block* block = heap->released_elsewhere.exchange(nullptr, std::memory_order_acquire);
  while (block != nullptr) {
    Block* next = block->next;
    const Region* segment = region_of(block);
    const std::size_t index = segment->slice_class[slice_of(segment, block)];
    heap->handed_out_bytes -= size_classes[index].bytes;
    push_free(heap, index, block);
    block = next;
  }
}

/// First slice of `length` adjacent free ones, or 0.
inline std::size_t find_slices(const Region* segment, std::size_t length) {
  std::uint64_t starts = segment->free_slices;
  for (std::size_t i = 1; i < length && starts != 0; ++i) starts &= starts >> 1;
  return starts == 0 ? 0 : static_cast<std::size_t>(std::countr_zero(starts));
}

constexpr std::uint64_t slice_mask(std::size_t start, std::size_t length) {
  return ((std::uint64_t{1} << length) - 1) << start;
}

inline Region* slab_segment(Heap* heap, std::size_t slices) {
  int tries = 32;  // many segments with a few slices each must not make every slab a long search
  for (Region* segment = heap->segments_with_space; segment != nullptr && tries > 0;
       segment = segment->next) {
    if (find_slices(segment, slices) != 0) return segment;
    --tries;
  }
  return nullptr;
}

inline void sweep(Heap* heap);

inline std::int64_t excess(const Heap* heap) { return heap->mapped_bytes - heap->handed_out_bytes; }

/// Sweeps when `bytes` more from the system would be over the budget and this heap has much to give.
inline void sweep_before_mapping(Heap* heap, std::size_t bytes) {
  if (excess(heap) <= heap->excess_left + heap_slack) return;
  {
    const std::lock_guard lock(process.mutex);
    if (process.mapped_bytes + static_cast<std::int64_t>(bytes) <= budget(bytes)) return;
  }
  sweep(heap);
}

/// Gives the class a fresh slab; false if there is no memory.
inline bool add_slab(Heap* heap, std::size_t index) {
  const std::size_t slices = size_classes[index].slices;
  Region* segment = slab_segment(heap, slices);
  if (segment == nullptr) {
    sweep_before_mapping(heap, segment_bytes);
    segment = slab_segment(heap, slices);
  }
  if (segment == nullptr) {
    const std::lock_guard lock(process.mutex);
    segment = take_region(process.pooled_segments, segment_bytes);
    if (segment == nullptr) return false;
    segment->owner = heap;
    segment->free_slices = all_slices;
    push(heap->segments_with_space, segment);
    heap->mapped_bytes += static_cast<std::int64_t>(segment_bytes);
  }
  const std::size_t start = find_slices(segment, slices);
  segment->free_slices &= ~slice_mask(start, slices);
  for (std::size_t slice = start; slice < start + slices; ++slice) {
    segment->slice_class[slice] = static_cast<std::uint8_t>(index);
    segment->slab_start[slice] = static_cast<std::uint8_t>(start);
  }
  if (segment->free_slices == 0) {
    unlink(heap->segments_with_space, segment);
    push(heap->full_segments, segment);
  }
  std::byte* begin = reinterpret_cast<std::byte*>(segment) + start * slice_bytes;
  heap->uncut[index] = {begin, begin + std::size_t{size_classes[index].capacity} * size_classes[index].bytes};
  return true;
}

/// Makes the class's free list non-empty; false if there is no memory.
inline bool refill(Heap* heap, std::size_t index) {
  drain(heap);
  if (heap->free[index] != nullptr) return true;
  Uncut& uncut = heap->uncut[index];
  if (uncut.begin == uncut.end && !add_slab(heap, index)) return false;
  // About a page at a time, so that memory is touched only as it is needed, and in order of address.
  const std::size_t bytes = size_classes[index].bytes;
  const std::size_t available = static_cast<std::size_t>(uncut.end - uncut.begin) / bytes;
  const std::size_t blocks = std::min(available, std::max<std::size_t>(page_bytes / bytes, 1));
  for (std::size_t i = blocks; i-- > 0;) {
    push_free(heap, index, reinterpret_cast<Block*>(uncut.begin + i * bytes));
  }
  uncut.begin += blocks * bytes;
  return true;
}

struct Slab {
  Region* segment;
  std::size_t start;
};

inline Slab slab_of(void* block) {
  Region* segment = region_of(block);
  return {segment, segment->slab_start[slice_of(segment, block)]};
}

inline bool is_unused(Slab slab) {
  const std::size_t index = slab.segment->slice_class[slab.start];
  return slab.segment->free_blocks[slab.start] == size_classes[index].capacity;
}

/// Frees the slices of the segment's unused slabs.
inline void reclaim_slabs(Region* segment) {
  for (std::size_t slice = 1; slice < slice_count;) {
    if ((segment->free_slices >> slice & 1) != 0) {
      ++slice;
      continue;
    }
    const std::size_t slices = size_classes[segment->slice_class[slice]].slices;
    if (is_unused({segment, slice})) segment->free_slices |= slice_mask(slice, slices);
    slice += slices;
  }
}

inline void reclaim_segments(Heap* heap) {
  Region* segment = heap->segments_with_space;
  Region* full = heap->full_segments;
  heap->segments_with_space = nullptr;
  heap->full_segments = nullptr;
  const std::lock_guard lock(process.mutex);
  for (; segment != nullptr || full != nullptr;) {
    Region*& list = segment != nullptr ? segment : full;
    Region* region = list;
    list = region->next;
    reclaim_slabs(region);
    if (region->free_slices == all_slices) {
      region->owner = nullptr;
      heap->mapped_bytes -= static_cast<std::int64_t>(segment_bytes);
      push(process.pooled_segments, region);
    } else {
      push(region->free_slices != 0 ? heap->segments_with_space : heap->full_segments, region);
    }
  }
}

/// Makes slabs without a live block available to all classes, and segments without one to all threads. Walks
/// all free blocks, so it runs only when they have become many.
inline void sweep(Heap* heap) {
  drain(heap);
  for (Region* list : {heap->segments_with_space, heap->full_segments}) {
    for (Region* segment = list; segment != nullptr; segment = segment->next) segment->free_blocks.fill(0);
  }
  for (std::size_t index = 0; index < small_class_count; ++index) {
    const auto count_free = [](void* block, std::size_t blocks) {
      const Slab slab = slab_of(block);
      auto& free_blocks = slab.segment->free_blocks[slab.start];
      free_blocks = static_cast<std::uint16_t>(free_blocks + blocks);
    };
    for (Block* block = heap->free[index]; block != nullptr; block = block->next) count_free(block, 1);
    const Uncut uncut = heap->uncut[index];
    if (uncut.begin != uncut.end) {
      count_free(uncut.begin, static_cast<std::size_t>(uncut.end - uncut.begin) / size_classes[index].bytes);
    }
  }
  for (std::size_t index = 0; index < small_class_count; ++index) {
    Block** link = &heap->free[index];
    while (*link != nullptr) {
      Block* block = *link;
      if (is_unused(slab_of(block))) {
        *link = block->next;
      } else {
        link = &block->next;
      }
    }
    Uncut& uncut = heap->uncut[index];
    if (uncut.begin != uncut.end && is_unused(slab_of(uncut.begin))) uncut = {nullptr, nullptr};
  }
  reclaim_segments(heap);
  heap->excess_left = excess(heap);
}

inline void publish_bytes(Heap* heap) {
  const std::int64_t bytes = heap->unpublished_bytes.load(std::memory_order_relaxed);
  heap->unpublished_bytes.store(0, std::memory_order_relaxed);
  heap->handed_out_bytes += bytes;
  heap->highest_handed_out_bytes = std::max(heap->highest_handed_out_bytes, heap->handed_out_bytes);
  heap->excess_left = std::min(heap->excess_left, excess(heap));
  count_bytes(bytes);
}

[[gnu::noinline]] inline void publish_and_sweep(Heap* heap) {
  publish_bytes(heap);
  // Keeping what was once used, unused rests of slabs included, lets a large tape be built again and again
  // without a sweep.
  const std::int64_t highest = heap->highest_handed_out_bytes;
  const std::int64_t slack = std::max(heap_slack, highest + highest / 4);
  if (excess(heap) > heap->excess_left + slack) sweep(heap);
}

inline void add_counts(Heap* heap, Change change) {
  const std::int64_t bytes = heap->unpublished_bytes.load(std::memory_order_relaxed) + change.bytes;
  heap->unpublished_bytes.store(bytes, std::memory_order_relaxed);
  heap->live_blocks.store(heap->live_blocks.load(std::memory_order_relaxed) + change.blocks,
                          std::memory_order_relaxed);
  if (bytes > peak_granularity || bytes < -peak_granularity) [[unlikely]]
    publish_and_sweep(heap);
}

}  // namespace hypertape::detail::memory
