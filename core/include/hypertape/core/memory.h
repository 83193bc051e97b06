// The one allocator every tensor buffer, tensor header and tape node comes from: it caches and it counts.
//
// Small hyperparameter studies make and drop millions of blocks of a few hundred bytes, where the system
// allocator costs more than the arithmetic. So a thread keeps what it released in lists of its own, one per
// size class, and a repeated computation asks the system for nothing. The same place counts bytes, which is
// how the library knows what a tape or a checkpointed run really holds:
//
//     PeakScope scope;
//     auto gradient = grad(loss, parameters);
//     auto peak = scope.peak_bytes();  // most that was live at once inside, above the level before
//
// A block counts as its size class: multiples of 16 bytes up to 64, of 64 up to 512, then eight classes to
// each doubling, so above 512 bytes at most 12.5 % more than asked for.
//
// Any thread may release any block, also after the thread that allocated it has ended and while static
// objects are destroyed. Under the address sanitizer every block comes from and goes to the sanitizer's
// allocator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <stdexcept>

#include <hypertape/core/export.h>

namespace hypertape {

/// An uninitialised block of at least `bytes` bytes, never null (also for 0 bytes). It is aligned to 64
/// bytes, or to 16 when `bytes` is at most 48. Throws `Error` when the system has no such block; nothing has
/// changed then.
[[nodiscard]] HYPERTAPE_API void* allocate_bytes(std::size_t bytes);

/// Returns a block from `allocate_bytes` to the cache; null is allowed.
HYPERTAPE_API void release_bytes(void* block) noexcept;

/// Bytes that a request for `bytes` bytes counts as: its size class.
[[nodiscard]] HYPERTAPE_API std::size_t accounted_bytes(std::size_t bytes) noexcept;

/// Exact while no other thread allocates or releases.
struct MemoryStatistics {
  std::int64_t live_bytes = 0;    ///< Allocated and not yet released, in size classes.
  std::int64_t live_blocks = 0;   ///< Number of such blocks.
  std::int64_t cached_bytes = 0;  ///< Held from the system beyond the live bytes, touched or not.
  std::int64_t peak_bytes = 0;    ///< Highest `live_bytes` since the program started, to `peak_granularity`.
  std::int64_t system_allocations = 0;  ///< Requests made to the system since the program started.
};

[[nodiscard]] HYPERTAPE_API MemoryStatistics memory_statistics();

/// A thread tells the others of its blocks once they add up to more than this, so a recorded peak may be too
/// low by as much for each thread. Larger blocks are told at once.
inline constexpr std::int64_t peak_granularity = 4096;

namespace detail {
/// For lists of the standard library whose length is given from outside: the Error of an allocation that the
/// system refuses.
[[noreturn]] HYPERTAPE_API void fail_to_hold(std::int64_t count, std::size_t bytes_each);

template <class List>
List list_of(std::int64_t count) {
  try {
    return List(static_cast<std::size_t>(count));
  } catch (const std::bad_alloc&) {
  } catch (const std::length_error&) {
  }
  fail_to_hold(count, sizeof(typename List::value_type));
}

// In a forked child: the scopes of threads that it does not have lie where nobody is left to end them.
void keep_own_peak_scopes() noexcept;
}  // namespace detail

/// Watches how high `live_bytes` of the whole process rises during its own life. Scopes may nest and overlap,
/// on any threads; each sees its own maximum, an outer one also what happened in the inner.
class HYPERTAPE_API PeakScope {
 public:
  PeakScope();
  ~PeakScope();
  PeakScope(const PeakScope&) = delete;
  PeakScope& operator=(const PeakScope&) = delete;

  /// Highest level since construction, minus the level at construction: never negative.
  [[nodiscard]] std::int64_t peak_bytes() const;

 private:
  std::int64_t base_ = 0;
  std::int64_t highest_ = 0;
  PeakScope* next_ = nullptr;
  PeakScope* previous_ = nullptr;
  const void* thread_ = nullptr;  // which has made it

  friend void detail::keep_own_peak_scopes() noexcept;
};

/// Gives unused memory back to the system: all that is cached by the calling thread, by threads that have
/// ended, and in the common pool. What other running threads keep for themselves stays with them.
///
/// Without it the cache is bounded by the program's own need. Before the total held would grow above 1.25
/// times the highest live level plus 256 MiB, the common pool is emptied and the calling thread's free blocks
/// are collected; and a thread whose free bytes exceed both 256 MiB and 1.25 times what it ever used gives up
/// what it can.
HYPERTAPE_API void trim_memory();

}  // namespace hypertape
