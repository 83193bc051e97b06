// Strided views that operations on shapes share.
#pragma once

#include <algorithm>
#include <array>

#include "core/backend/backend.h"

namespace hypertape::detail {

using Strides = std::array<std::int64_t, max_rank>;

inline Strides strides_of(const Header& header) {
  Strides strides{};
  std::copy_n(header.strides(), header.rank, strides.begin());
  return strides;
}

}  // namespace hypertape::detail
