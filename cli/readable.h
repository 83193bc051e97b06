// Numbers, and names from outside, for people.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace hypertape {

/// 12345678 -> "12.3 MB", in powers of 1000.
std::string readable_bytes(std::int64_t bytes);

/// 28210 -> "28,210".
std::string readable_count(std::int64_t count);

/// 1, "step" -> "1 step"; 2100, "step" -> "2,100 steps".
std::string counted(std::int64_t count, const char* noun);

/// 0.0123 -> "12.3 ms": three digits, in seconds, milliseconds or microseconds.
std::string readable_seconds(double seconds);

/// The shortest text that reads back as the same number, whatever the locale.
std::string exact_text(double number);

/// A number in a printf format for one double.
std::string formatted(const char* pattern, double number);

/// Any bytes, such as a file's name, as UTF-8 on one line: control characters and bytes that are not UTF-8
/// become \x1b and the like.
std::string printable(std::string_view bytes);

/// "[read npz] file: it is empty", "file" -> "it is empty": for a message that names the file already.
std::string bare_message(std::string_view message, std::string_view name);

}  // namespace hypertape
