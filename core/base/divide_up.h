#pragma once

#include <cstdint>

namespace hypertape::detail {

/// The least number of pieces of b that hold a; a >= 0, b > 0.
inline constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace hypertape::detail
