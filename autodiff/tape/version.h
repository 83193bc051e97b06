// Whether a tensor that a derivative keeps still has the elements that it had.
#pragma once

#include "core/tensor/header.h"

namespace hypertape::detail {

/// Raised by every explicit mutation of the elements; 0 for an absent tensor.
inline std::uint32_t version_of(const Tensor& tensor) noexcept {
  return tensor.defined() ? tensor.header()->storage->version.load(std::memory_order_relaxed) : 0;
}

}  // namespace hypertape::detail
