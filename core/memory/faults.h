// Allocations that fail on purpose, so that tests can see what is left behind when memory runs out.
#pragma once

#include <cstdint>
#include <limits>

namespace hypertape::detail {

/// While alive, the calling thread's allocations succeed `successes` times and then fail like the system's,
/// `failures` times, after which they succeed again. The thread's heap is set aside meanwhile, so that every
/// allocation takes the slow path, where they are counted: without faults nothing is slower. May not be
/// nested.
class AllocationFaults {
 public:
  explicit AllocationFaults(std::int64_t successes,
                            std::int64_t failures = std::numeric_limits<std::int64_t>::max()) noexcept;
  ~AllocationFaults();
  AllocationFaults(const AllocationFaults&) = delete;
  AllocationFaults& operator=(const AllocationFaults&) = delete;
  /// Whether an allocation has failed.
  bool struck() const noexcept;

 private:
  [[maybe_unused]] void* heap_ = nullptr;  // under the address sanitizer there is no heap of ours
};

}  // namespace hypertape::detail
