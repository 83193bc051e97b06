// Numbers for people.
#pragma once

#include <cstdint>
#include <string>

namespace hypertape {

/// 12345678 -> "12.3 MB", in powers of 1000.
std::string readable_bytes(std::int64_t bytes);

/// 28210 -> "28,210".
std::string readable_count(std::int64_t count);

/// A number in a printf format for one double.
std::string formatted(const char* pattern, double number);

}  // namespace hypertape
