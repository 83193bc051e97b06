// How much memory there is to take.
#pragma once

#include <cstdint>
#include <limits>

namespace hypertape {

inline constexpr std::int64_t unknown_memory = std::numeric_limits<std::int64_t>::max();

/// Bytes that this process can still take without swapping: what Linux calls available, or less where a
/// control group (a container) limits it, and what the library holds unused. `unknown_memory` where nothing
/// can be found out.
std::int64_t available_memory();

}  // namespace hypertape
