#include "csv_reader.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "csv_number.h"
#include "csv_scanner.h"
#include "hypertape/core/error.h"
#include "label_column.h"

namespace hypertape {
namespace {

enum class FirstLine {
  header,
  data,
  undecided  ///< numbers with a text label: a header if the next line's label is a number
};

class CsvReader {
 public:
  CsvReader(ByteReader& file, const std::optional<std::string>& label_column)
      : file_(file.name()), scanner_(file), labels_(file.name()), label_name_(label_column) {}

  LabelledRows read(std::int64_t max_samples) {
    if (!scanner_.next_row()) refuse(1, "holds no data; expected one sample per line");
    first_line_ = scanner_.line();
    columns_ = scanner_.fields();
    if (columns_ < 2) refuse_single_column();
    label_ = label_name_ ? find_label_column() : columns_ - 1;
    rows_.features = static_cast<std::int64_t>(columns_) - 1;

    FirstLine first = label_name_ ? FirstLine::header : classify_first_line();
    if (first != FirstLine::header) add_row();
    while ((first == FirstLine::undecided || max_samples == 0 || labels_.size() < max_samples) &&
           scanner_.next_row()) {
      check_width();
      if (std::exchange(first, FirstLine::data) == FirstLine::undecided) {
        if (parse_number(scanner_.field(label_))) {
          rows_.values.clear();
          labels_.clear();
        }
        if (labels_.size() == max_samples && max_samples != 0) break;
      }
      add_row();
    }
    if (labels_.size() == 0)
      refuse(first_line_, "is a header without data below it; expected one sample per line");
    rows_.labels = std::move(labels_).classes();
    return std::move(rows_);
  }

 private:
  template <class... Parts>
  [[noreturn]] void refuse(std::int64_t line, const Parts&... parts) const {
    fail(load_data, file_, ":", line, ": ", parts...);
  }

  [[noreturn]] void refuse_single_column() const {
    const std::string_view only = scanner_.field(0);
    const bool other_separator = only.find_first_of(";\t|") != std::string_view::npos;
    refuse(first_line_, "has one column, ", shown(only), "; expected values and a label, separated by commas",
           other_separator ? " (not by semicolons, tabs or bars)" : "");
  }

  std::size_t find_label_column() const {
    std::size_t found = columns_;
    for (std::size_t column = 0; column < columns_; ++column) {
      if (trim(scanner_.field(column)) != *label_name_) continue;
      if (found != columns_) {
        refuse(first_line_, "columns ", found + 1, " and ", column + 1, " are both named ",
               shown(*label_name_), "; rename one");
      }
      found = column;
    }
    if (found == columns_) {
      constexpr std::size_t listed = 8;
      std::string names;
      for (std::size_t column = 0; column < std::min(columns_, listed); ++column) {
        names += (column == 0 ? "" : ", ") + shown(trim(scanner_.field(column)));
      }
      refuse(first_line_, "no column is named ", shown(*label_name_), "; the header has ", names,
             columns_ > listed ? ", ..." : "");
    }
    return found;
  }

  FirstLine classify_first_line() const {
    std::size_t number = columns_;
    std::size_t text = columns_;
    for (std::size_t column = columns_; column-- > 0;) {
      if (column == label_) continue;
      (parse_number(scanner_.field(column)) ? number : text) = column;
    }
    if (number == columns_) return FirstLine::header;
    if (text != columns_) {
      refuse(first_line_, "column ", text + 1, ", ", shown(scanner_.field(text)),
             ", is not a number, but column ", number + 1, ", ", shown(scanner_.field(number)),
             ", is; if the line is a header, name the column of the labels, else mend the value");
    }
    return parse_number(scanner_.field(label_)) ? FirstLine::data : FirstLine::undecided;
  }

  void check_width() const {
    if (scanner_.fields() == columns_) return;
    refuse(scanner_.line(), "has ", scanner_.fields(), " columns, but line ", first_line_, " has ", columns_,
           "; every row needs the same number (is the file truncated, or a comma unquoted?)");
  }

  void add_row() {
    if (labels_.size() >= max_values / rows_.features) {
      refuse(scanner_.line(), "the data has more than ", max_values, " values; keep fewer samples");
    }
    for (std::size_t column = 0; column < columns_; ++column) {
      if (column != label_) rows_.values.push_back(number_in(column));
    }
    labels_.add(scanner_.field(label_), scanner_.line());
  }

  double number_in(std::size_t column) const {
    const std::string_view field = scanner_.field(column);
    const std::optional<double> value = parse_number(field);
    if (!value) {
      refuse(scanner_.line(), "column ", column + 1, ", ", shown(field),
             trim(field).empty() ? ", is empty; fill it in or drop the row"
                                 : ", is not a number; mend or drop the row");
    }
    if (!std::isfinite(*value)) {
      refuse(scanner_.line(), "column ", column + 1, ", ", shown(field),
             ", is not finite; mend or drop the row");
    }
    return *value;
  }

  std::string file_;
  CsvScanner scanner_;
  LabelColumn labels_;
  std::optional<std::string> label_name_;
  std::int64_t first_line_ = 0;
  std::size_t columns_ = 0;
  std::size_t label_ = 0;  // its column
  LabelledRows rows_;
};

}  // namespace

LabelledRows read_csv(ByteReader& file, const std::optional<std::string>& label_column,
                      std::int64_t max_samples) {
  return CsvReader(file, label_column).read(max_samples);
}

}  // namespace hypertape
