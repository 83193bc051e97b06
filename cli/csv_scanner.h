// Splits CSV text (RFC 4180) into rows of fields.
//
// Lines end in LF, CRLF or CR. A field in double quotes may contain commas, line ends and, doubled, quotes.
// Lines without anything but spaces and tabs, and a UTF-8 byte-order mark, are skipped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "byte_reader.h"

namespace hypertape {

class CsvScanner {
 public:
  explicit CsvScanner(ByteReader& file);

  /// Moves to the next row; false at the end of the file. Throws Error for quotes that do not pair, zero
  /// bytes, and rows beyond the limits of data_limits.h.
  bool next_row();

  /// The current row; the views hold until the next call of next_row().
  std::size_t fields() const noexcept { return ends_.size(); }
  std::string_view field(std::size_t index) const;

  /// Line on which the current row starts, from 1.
  std::int64_t line() const noexcept { return row_line_; }

 private:
  static constexpr int end_of_file = -1;
  // The character at the cursor, or end_of_file.
  int current();
  void advance() { ++position_; }
  bool scan_row();
  void scan_field();
  void scan_quoted();
  void skip_line_end();
  void append(char c);

  ByteReader& file_;
  std::vector<char> block_ = std::vector<char>(1 << 16);
  std::size_t position_ = 0;
  std::size_t size_ = 0;
  std::int64_t line_ = 1;  // of the cursor

  std::string text_;               // the row's fields, one after another, without quotes and commas
  std::vector<std::size_t> ends_;  // where each field ends in text_
  std::int64_t row_line_ = 0;
  bool quoted_ = false;  // whether a field of the row is
};

}  // namespace hypertape
