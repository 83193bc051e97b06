// Numbers for people.
#pragma once

#include <cstdint>
#include <string>

namespace hypertape {

/// 12345678 -> "12.3 MB", in powers of 1000.
std::string readable_bytes(std::int64_t bytes);

/// 28210 -> "28,210".
std::string readable_count(std::int64_t count);

/// The shortest text that reads back as the same number, whatever the locale.
std::string exact_text(double number);

/// A number in a printf format for one double.
std::string formatted(const char* pattern, double number);

}  // namespace hypertape
