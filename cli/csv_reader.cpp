#include "csv_reader.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <hypertape/core/error.h>
#include "csv_header.h"
#include "csv_number.h"
#include "csv_scanner.h"
#include "label_column.h"
#include "value_blocks.h"

namespace hypertape {
namespace {

class CsvReader {
 public:
  CsvReader(ByteReader& file, const ReadOptions& options)
      : file_(file.name()), scanner_(file), labels_(file.name()), options_(options) {}

  LabelledRows read() {
    if (!scanner_.next_row()) refuse(1, "holds no data; expected one sample per line");
    first_line_ = scanner_.line();
    columns_ = scanner_.fields();
    if (columns_ < 2) refuse_single_column();
    label_ = options_.label_column ? find_label_column() : columns_ - 1;
    const FirstLineFinding first = examine();
    if (first.kind == FirstLine::header) {
      has_header_ = true;
      leave_index_out();
    }
    rows_.features = static_cast<std::int64_t>(columns_ - first_value_ - 1);
    most_rows_ = samples_within(options_.data_bytes, rows_.features);
    if (!has_header_) add_row();
    if (first.kind == FirstLine::header_if_labels_are_numbers && scanner_.next_row()) read_second_row();
    read_rows();
    if (first.may_be_names && !has_header_) judge_first_row(first.counts_up);
    if (labels_.size() == 0)
      refuse(first_line_, "is a header without data below it; expected one sample per line");
    rows_.values = values_.take(skipped_values_);
    rows_.labels = std::move(labels_).classes();
    return std::move(rows_);
  }

 private:
  template <class... Parts>
  [[noreturn]] void refuse(std::int64_t line, const Parts&... parts) const {
    fail(load_data, file_, ":", line, ": ", parts...);
  }

  [[noreturn]] void refuse_single_column() const {
    const std::string hint = separator_hint(scanner_);
    refuse(first_line_, "has one column, ", shown(scanner_.field(0)),
           hint.empty() ? "; expected values and a label, separated by commas" : "; " + hint);
  }

  std::size_t find_label_column() const {
    const std::string& name = *options_.label_column;
    std::size_t found = columns_;
    for (std::size_t column = 0; column < columns_; ++column) {
      if (trim(scanner_.field(column)) != name) continue;
      if (found != columns_) {
        refuse(first_line_, "columns ", found + 1, " and ", column + 1, " are both named ", shown(name),
               "; rename one");
      }
      found = column;
    }
    if (found == columns_) {
      constexpr std::size_t listed = 8;
      std::string names;
      for (std::size_t column = 0; column < std::min(columns_, listed); ++column) {
        names += (column == 0 ? "" : ", ") + shown(trim(scanner_.field(column)));
      }
      refuse(first_line_, "no column is named ", shown(name), "; the header has ", names,
             columns_ > listed ? ", ..." : "");
    }
    return found;
  }

  FirstLineFinding examine() {
    if (options_.label_column || options_.header == CsvHeader::yes) return {.kind = FirstLine::header};
    if (options_.header == CsvHeader::no) return {.kind = FirstLine::data};
    const FirstLineFinding finding = examine_first_line(scanner_, label_);
    if (finding.kind == FirstLine::mixed) {
      refuse_other_separator();
      refuse(first_line_, "column ", finding.text + 1, ", ", shown(scanner_.field(finding.text)),
             ", is not a number, but column ", finding.number + 1, ", ",
             shown(scanner_.field(finding.number)),
             ", is; if the line names the columns, say --header yes, else mend the value");
    }
    if (finding.kind == FirstLine::header && parse_number(scanner_.field(columns_ - 2)))
      note_numbers_as_header();
    return finding;
  }

  void note(const std::string& text) { rows_.notes.push_back(text); }

  void note_numbers_as_header() {
    note("line " + std::to_string(first_line_) +
         " counts its columns, so it was taken for a header; if it is a sample, say --header no");
  }

  void leave_index_out() {
    if (label_ == 0 || !is_unnamed(scanner_.field(0))) return;
    if (columns_ == 2)
      refuse(first_line_, "the only column beside the labels has no name, as an index has; name it");
    first_value_ = 1;
    note(
        "column 1 has no name, as the index that pandas and R write, so it was left out; to keep it, name "
        "it");
  }

  bool wants_more() const { return options_.samples == 0 || labels_.size() < options_.samples; }

  void read_rows() {
    while (wants_more() && scanner_.next_row()) {
      check_width();
      add_row();
    }
  }

  // After a first line of numbers with a text label, which is a header if this label is a number.
  void read_second_row() {
    check_width();
    if (parse_number(scanner_.field(label_))) {
      values_.clear();
      labels_.clear();
      has_header_ = true;
    }
    if (wants_more()) add_row();
  }

  // The first line was taken for a sample; the labels of the others may tell it for a header.
  void judge_first_row(bool counts_up) {
    if (!labels_.first_stands_apart()) {
      if (counts_up)
        note("line " + std::to_string(first_line_) +
             " was taken for a sample; if it names the columns, say --header yes");
      return;
    }
    note("line " + std::to_string(first_line_) +
         " was taken for a header, because its label is not one of those below; if it is a sample, say "
         "--header no");
    labels_.drop_first();
    skipped_values_ = static_cast<std::size_t>(rows_.features);
    read_rows();
  }

  void refuse_other_separator() const {
    const std::string hint = separator_hint(scanner_);
    if (!hint.empty()) refuse(scanner_.line(), hint);
  }

  void refuse_line_of_commas() const {
    for (std::size_t column = 0; column < scanner_.fields(); ++column)
      if (!trim(scanner_.field(column)).empty()) return;
    refuse(scanner_.line(),
           "holds nothing but commas, as spreadsheets write for empty rows; delete the line");
  }

  void check_width() const {
    if (scanner_.fields() == columns_) return;
    refuse_line_of_commas();
    refuse_other_separator();
    if (has_header_ && labels_.size() == 0 && scanner_.fields() == columns_ + 1) {
      refuse(scanner_.line(),
             "has one column more than the header, as R writes row names; write the file "
             "without row names, or give them a column name");
    }
    refuse(scanner_.line(), "has ", scanner_.fields(), " columns, but line ", first_line_, " has ", columns_,
           "; every row needs the same number (is the file truncated, or a comma unquoted?)");
  }

  void add_row() {
    if (labels_.size() >= most_rows_)
      refuse(scanner_.line(), too_much_data(options_.data_bytes, rows_.features));
    for (std::size_t column = first_value_; column < columns_; ++column) {
      if (column != label_) values_.push_back(number_in(column));
    }
    labels_.add(label_text(), scanner_.line());
  }

  std::string_view label_text() const {
    const std::string_view text = scanner_.field(label_);
    if (trim(text).empty()) {
      refuse_line_of_commas();
      if (label_ == columns_ - 1 && !options_.label_column && columns_ > 2)
        refuse(scanner_.line(),
               "the label is empty; give every row a label, or delete the comma at the end of "
               "every line");
    } else if (is_number_after_separator(text)) {
      refuse_other_separator();
    }
    return text;
  }

  // "5;0" and the like: the rest of a line of numbers with decimal commas, not a text.
  static bool is_number_after_separator(std::string_view text) {
    const std::size_t separator = text.find_first_of(";\t");
    return separator != text.npos && parse_number(text.substr(0, separator)) &&
           text.find_first_not_of("0123456789.eE+-;\t ") == text.npos;
  }

  double number_in(std::size_t column) const {
    const std::string_view field = scanner_.field(column);
    const std::optional<double> value = parse_number(field);
    if (!value) {
      refuse_line_of_commas();
      refuse_other_separator();
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
  const ReadOptions& options_;
  std::int64_t first_line_ = 0;
  std::size_t columns_ = 0;
  std::size_t first_value_ = 0;  // 1 behind an index
  std::size_t label_ = 0;        // its column
  bool has_header_ = false;
  std::int64_t most_rows_ = 0;
  ValueBlocks values_;
  std::size_t skipped_values_ = 0;  // of a first line that turned out to be a header
  LabelledRows rows_;
};

}  // namespace

LabelledRows read_csv(ByteReader& file, const ReadOptions& options) {
  if (options.label_column && options.header == CsvHeader::no)
    fail(load_data, file.name(),
         ": a column's name is given for the labels, so the first line must name the columns; leave --header "
         "no out");
  return CsvReader(file, options).read();
}

}  // namespace hypertape
