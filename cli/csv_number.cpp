#include "csv_number.h"

#include <charconv>
#include <cstdlib>
#include <system_error>

namespace hypertape {

std::string_view trim(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

std::optional<double> parse_number(std::string_view field) {
  field = trim(field);
  // from_chars takes no plus sign.
  if (field.size() > 1 && field[0] == '+' && field[1] != '-') field.remove_prefix(1);
  double value = 0.0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (end != field.data() + field.size() || error == std::errc::invalid_argument) return std::nullopt;
  // from_chars does not say on which side of the range the number lies; strtod does.
  if (error == std::errc::result_out_of_range) return std::strtod(std::string(field).c_str(), nullptr);
  return value;
}

std::string shown(std::string_view field) {
  constexpr std::size_t longest = 40;
  std::string text = "'";
  for (const char c : field.substr(0, longest)) {
    const bool printable = c >= ' ' && c <= '~';
    text += printable ? c : '?';
  }
  text += field.size() > longest ? "...'" : "'";
  return text;
}

}  // namespace hypertape
