// Whether operations read certain tensors, without recording anything: the tensors carry a node whose scope
// is masked, which an operation that looks at its operands' links meets.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include <hypertape/autodiff/ops.h>
#include "autodiff/tape/node.h"

namespace hypertape::detail {

class ReadWatch {
 public:
  explicit ReadWatch(std::size_t count);
  ReadWatch(const ReadWatch&) = delete;
  ReadWatch& operator=(const ReadWatch&) = delete;

  /// The same values, of any dtype; an operation of them is noted under `index`. Plain for every derivative.
  Tensor watched(const Tensor& plain, std::size_t index) const;
  bool was_read(std::size_t index) const noexcept {
    return std::atomic_ref((*read_)[index]).load(std::memory_order_relaxed) != 0;
  }
  /// The same values without the watch, for whatever outlives it; counts as read.
  static Tensor released(const Tensor& tensor) {
    links_of(tensor);
    return stop_gradient(tensor);
  }

 private:
  std::uint64_t scope_;
  ScopeMask mask_;
  std::shared_ptr<std::vector<std::uint8_t>> read_;
};

}  // namespace hypertape::detail
