#include "option_values.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <hypertape/core/error.h>
#include "nearest.h"

namespace hypertape {
namespace {

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream text = detail::text_stream();
  (text << ... << parts);
  throw std::invalid_argument(text.str());
}

// The whole text as a number.
template <class T>
bool convert(std::string_view text, T& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::size_t start = 0;
  while (true) {
    const std::size_t comma = text.find(',', start);
    parts.push_back(text.substr(start, comma - start));
    if (comma == text.npos) return parts;
    start = comma + 1;
  }
}

std::string join(std::span<const char* const> choices) {
  std::string text;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) text += i + 1 < choices.size() ? ", " : " or ";
    text += choices[i];
  }
  return text;
}

}  // namespace

std::int64_t parse_integer(const std::string& text, std::int64_t least, std::int64_t most) {
  std::int64_t number = 0;
  if (!convert(text, number) || number < least || number > most)
    refuse("must be a whole number from ", least, " to ", most, ", not \"", text, '"');
  return number;
}

double parse_number(const std::string& text, double least, double most) {
  double number = 0.0;
  // The comparison is false for NaN.
  if (!convert(text, number) || !(number >= least && number <= most))
    refuse("must be a number from ", least, " to ", most, ", not \"", text, '"');
  return number;
}

std::int64_t parse_bytes(const std::string& text) {
  constexpr std::pair<std::string_view, double> units[] = {{"kB", 1e3},  {"MB", 1e6}, {"GB", 1e9},
                                                           {"TB", 1e12}, {"B", 1.0},  {"", 1.0}};
  constexpr double most = 1e18;
  for (const auto& [unit, factor] : units) {
    if (!text.ends_with(unit)) continue;
    double number = 0.0;
    if (convert(std::string_view(text).substr(0, text.size() - unit.size()), number)) {
      const double bytes = std::floor(number * factor);
      if (bytes >= 1.0 && bytes <= most) return static_cast<std::int64_t>(bytes);
    }
    break;
  }
  refuse("must be an amount of memory such as 40MB or 1.5GB, not \"", text, '"');
}

std::vector<std::int64_t> parse_integers(const std::string& text, std::int64_t least, std::int64_t most) {
  constexpr std::size_t most_parts = 100;
  const std::vector<std::string> parts = split(text);
  if (parts.size() > most_parts)
    refuse("must be at most ", most_parts, " numbers between commas, not ", parts.size());
  std::vector<std::int64_t> numbers;
  for (const std::string& part : parts) {
    std::int64_t number = 0;
    if (!convert(part, number) || number < least || number > most)
      refuse("must be whole numbers from ", least, " to ", most, " between commas, such as 50,50, not \"",
             text, '"');
    numbers.push_back(number);
  }
  return numbers;
}

std::size_t parse_choice(const std::string& text, std::span<const char* const> choices) {
  const auto found =
      std::find_if(choices.begin(), choices.end(), [&](const char* choice) { return text == choice; });
  if (found == choices.end())
    refuse("must be ", join(choices), ", not \"", text, '"',
           suggestion(text, {choices.begin(), choices.end()}));
  return static_cast<std::size_t>(found - choices.begin());
}

std::vector<std::string> parse_choices(const std::string& text, std::span<const char* const> choices) {
  std::vector<bool> chosen(choices.size(), false);
  for (const std::string& part : split(text)) {
    const std::size_t choice = parse_choice(part, choices);
    if (chosen[choice]) refuse("must name each once, but ", part, " is there twice");
    chosen[choice] = true;
  }
  std::vector<std::string> names;
  for (std::size_t i = 0; i < choices.size(); ++i)
    if (chosen[i]) names.emplace_back(choices[i]);
  return names;
}

}  // namespace hypertape
