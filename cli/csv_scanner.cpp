#include "csv_scanner.h"

#include <hypertape/core/error.h>
#include "data_limits.h"

namespace hypertape {
namespace {

constexpr std::size_t max_row_bytes = std::size_t{1} << 25;
constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

}  // namespace

CsvScanner::CsvScanner(ByteReader& file) : file_(file) {
  if (file.peek().starts_with(byte_order_mark)) {
    char mark[byte_order_mark.size()];
    file.read(mark);
  }
}

int CsvScanner::current() {
  if (position_ == size_) {
    position_ = 0;
    size_ = file_.read(block_);
    if (size_ == 0) return end_of_file;
  }
  return static_cast<unsigned char>(block_[position_]);
}

void CsvScanner::append(char c) {
  if (c == '\0') {
    fail(load_data, file_.name(), ":", line_,
         ": contains a zero byte, so it is not CSV text; give a CSV or IDX file");
  }
  if (text_.size() == max_row_bytes) {
    fail(load_data, file_.name(), ":", row_line_, ": the row is longer than ", max_row_bytes,
         " bytes; is a quote or a line end missing?");
  }
  text_.push_back(c);
}

void CsvScanner::skip_line_end() {
  const int first = current();
  advance();
  if (first == '\r' && current() == '\n') advance();
  ++line_;
}

void CsvScanner::scan_quoted() {
  const std::int64_t opened = line_;
  quoted_ = true;
  advance();
  for (;;) {
    const int c = current();
    if (c == end_of_file) {
      fail(load_data, file_.name(), ":", opened,
           ": a quoted value is not closed before the end of the file; the file is truncated or a quote "
           "missing");
    }
    advance();
    if (c == '"') {
      if (current() != '"') break;
      advance();
    } else if (c == '\n') {
      ++line_;
    }
    append(static_cast<char>(c));
  }
  const int next = current();
  if (next != ',' && next != '\n' && next != '\r' && next != end_of_file) {
    fail(load_data, file_.name(), ":", line_,
         ": text follows a closing quote; double the quotes that belong to a quoted value");
  }
}

void CsvScanner::scan_field() {
  if (current() == '"') {
    scan_quoted();
    return;
  }
  for (int c = current(); c != ',' && c != '\n' && c != '\r' && c != end_of_file; c = current()) {
    if (c == '"') {
      fail(load_data, file_.name(), ":", line_,
           ": a quote inside an unquoted value; put the whole value in quotes and double those inside");
    }
    append(static_cast<char>(c));
    advance();
  }
}

bool CsvScanner::next_row() {
  while (scan_row()) {
    // A quoted blank is a value.
    if (fields() > 1 || quoted_ || text_.find_first_not_of(" \t") != std::string::npos) return true;
  }
  return false;
}

bool CsvScanner::scan_row() {
  while (current() == '\n' || current() == '\r') skip_line_end();
  if (current() == end_of_file) return false;

  text_.clear();
  ends_.clear();
  quoted_ = false;
  row_line_ = line_;
  for (;;) {
    scan_field();
    ends_.push_back(text_.size());
    const int c = current();
    if (c != ',') {
      if (c != end_of_file) skip_line_end();
      return true;
    }
    advance();
    if (std::ssize(ends_) > max_features) {
      fail(load_data, file_.name(), ":", row_line_, ": more than ", max_features,
           " columns; is a line end missing?");
    }
  }
}

std::string_view CsvScanner::field(std::size_t index) const {
  const std::size_t begin = index == 0 ? 0 : ends_[index - 1];
  return std::string_view(text_).substr(begin, ends_[index] - begin);
}

}  // namespace hypertape
