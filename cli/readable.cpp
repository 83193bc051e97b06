#include "readable.h"

#include <charconv>
#include <cstdio>

namespace hypertape {

std::string formatted(const char* pattern, double number) {
  char text[64];
  std::snprintf(text, sizeof text, pattern, number);
  return text;
}

std::string exact_text(double number) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, number).ptr;
  return {text, end};
}

std::string readable_bytes(std::int64_t bytes) {
  if (bytes < 1000) return std::to_string(bytes) + " B";
  const char* const units[] = {"kB", "MB", "GB", "TB", "PB", "EB"};
  double amount = static_cast<double>(bytes) / 1000;
  std::size_t unit = 0;
  // 999.95 would be printed as 1000.0.
  for (; amount >= 999.95; ++unit) amount /= 1000;
  return formatted("%.1f ", amount) + units[unit];
}

std::string readable_count(std::int64_t count) {
  std::string digits = std::to_string(count);
  for (std::size_t place = digits.size(); place > 3 && digits[place - 4] != '-';) {
    place -= 3;
    digits.insert(place, ",");
  }
  return digits;
}

std::string counted(std::int64_t count, const char* noun) {
  return readable_count(count) + ' ' + noun + (count == 1 ? "" : "s");
}

std::string readable_seconds(double seconds) {
  const char* unit = " s";
  // 0.9995 would be printed as 1000 ms.
  if (seconds < 0.9995e-3) {
    seconds *= 1e6;
    unit = " us";
  } else if (seconds < 0.9995) {
    seconds *= 1e3;
    unit = " ms";
  }
  return formatted(seconds < 9.995 ? "%.2f" : seconds < 99.95 ? "%.1f" : "%.0f", seconds) + unit;
}

}  // namespace hypertape
