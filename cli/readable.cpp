#include "readable.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace hypertape {
namespace {

unsigned byte_at(std::string_view bytes, std::size_t at) { return static_cast<unsigned char>(bytes[at]); }

// The bytes of the UTF-8 character at the beginning; 0 if there is none, or one for terminals.
std::size_t character_at(std::string_view bytes) {
  const unsigned first = byte_at(bytes, 0);
  if (first < 0x80) return first >= 0x20 && first != 0x7f ? 1 : 0;
  const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || bytes.size() < length) return 0;
  unsigned code = first & (0x7fU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte_at(bytes, i) & 0xc0) != 0x80) return 0;
    code = code << 6 | (byte_at(bytes, i) & 0x3f);
  }
  constexpr unsigned first_of[] = {0, 0, 0xa0, 0x800, 0x10000};  // below 0xa0 are controls
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  return code >= first_of[length] && code < 0x110000 && !surrogate ? length : 0;
}

}  // namespace

std::string formatted(const char* pattern, double number) {
  char text[64];
  // A NaN's sign means nothing, and x86 sets it.
  std::snprintf(text, sizeof text, pattern, std::isnan(number) ? std::abs(number) : number);
  return text;
}

std::string exact_text(double number) {
  if (std::isnan(number)) return "nan";
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

std::string printable(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    const std::size_t length = character_at(bytes);
    if (length > 0) {
      text += bytes.substr(0, length);
    } else {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", static_cast<unsigned>(byte_at(bytes, 0)));
      text += escaped;
    }
    bytes.remove_prefix(std::max<std::size_t>(1, length));
  }
  return text;
}

std::string bare_message(std::string_view message, std::string_view name) {
  if (message.starts_with('['))
    if (const std::size_t end = message.find("] "); end != message.npos) message.remove_prefix(end + 2);
  for (const std::string_view separator : {": ", "/"}) {
    if (!message.starts_with(name) || !message.substr(name.size()).starts_with(separator)) continue;
    message.remove_prefix(name.size() + separator.size());
    break;
  }
  return std::string(message);
}

}  // namespace hypertape
