#include "csv_header.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "csv_number.h"

namespace hypertape {
namespace {

// "12", but not "12.0" or "-1".
std::optional<std::int64_t> plain_count(std::string_view field) {
  field = trim(field);
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), number);
  if (error != std::errc() || end != field.data() + field.size() || number < 0) return std::nullopt;
  return number;
}

// Without `left_out`.
bool is_increasing(const CsvScanner& row, std::size_t left_out) {
  std::int64_t last = -1;
  for (std::size_t column = 0; column < row.fields(); ++column) {
    if (column == left_out) continue;
    const std::optional<std::int64_t> number = plain_count(row.field(column));
    if (!number || *number <= last) return false;
    last = *number;
  }
  return true;
}

// By one, from 0 or 1.
bool counts_up(const CsvScanner& row, std::size_t begin, std::size_t end) {
  const std::optional<std::int64_t> first = begin < end ? plain_count(row.field(begin)) : std::nullopt;
  if (!first || *first > 1) return false;
  for (std::size_t column = begin; column < end; ++column)
    if (plain_count(row.field(column)) != *first + static_cast<std::int64_t>(column - begin)) return false;
  return true;
}

}  // namespace

bool is_unnamed(std::string_view name) {
  name = trim(name);
  return name.empty() || name == "Unnamed: 0";
}

FirstLineFinding examine_first_line(const CsvScanner& row, std::size_t label) {
  const std::size_t columns = row.fields();
  const std::size_t first = label != 0 && is_unnamed(row.field(0)) ? 1 : 0;
  std::size_t number = columns, text = columns;
  for (std::size_t column = columns; column-- > first;) {
    if (column == label) continue;
    (parse_number(row.field(column)) ? number : text) = column;
  }
  if (number == columns) return {.kind = FirstLine::header};
  if (text != columns) return {.kind = FirstLine::mixed, .text = text, .number = number};

  // Fewer could well be a sample.
  constexpr std::size_t surely_names = 4;
  const bool label_is_text = !parse_number(row.field(label));
  const std::size_t end = label_is_text && label == columns - 1 ? columns - 1 : columns;
  const bool names = counts_up(row, first, end);
  if (names && (first > 0 || end >= surely_names)) return {.kind = FirstLine::header};
  if (first > 0) return {.kind = FirstLine::mixed, .text = 0, .number = number};
  return {.kind = label_is_text ? FirstLine::header_if_labels_are_numbers : FirstLine::data,
          .may_be_names = is_increasing(row, label_is_text ? label : columns),
          .counts_up = names};
}

std::string separator_hint(const CsvScanner& row) {
  constexpr std::pair<char, const char*> separators[] = {{';', "semicolons"}, {'\t', "tabs"}, {'|', "bars"}};
  for (std::size_t column = 0; column < row.fields(); ++column) {
    const std::string_view field = trim(row.field(column));
    for (const auto& [separator, name] : separators) {
      if (field.find(separator) == field.npos) continue;
      return std::string("values seem to be separated by ") + name +
             (row.fields() > 1 ? ", with commas as decimal points" : "") +
             "; save the file with commas between values and points in numbers";
    }
  }
  return "";
}

}  // namespace hypertape
