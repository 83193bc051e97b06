// Memory that a kernel needs while it runs.
#pragma once

#include <hypertape/core/memory.h>

namespace hypertape::detail {

/// The Error of every allocation that the system refuses.
[[noreturn]] void fail_to_allocate(std::size_t bytes);

/// Elements from the pool, so that they are accounted; no block for none.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t size)
      : data_(size == 0 ? nullptr
                        : static_cast<T*>(allocate_bytes(static_cast<std::size_t>(size) * sizeof(T)))) {}
  ~Scratch() { release_bytes(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const noexcept { return data_; }

 private:
  T* data_;
};

}  // namespace hypertape::detail
