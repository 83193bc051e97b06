// Whether the first line of a CSV file names the columns, by what it looks like.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "csv_scanner.h"

namespace hypertape {

enum class FirstLine {
  header,
  data,
  header_if_labels_are_numbers,  ///< numbers with a text label: the next line's label decides
  mixed                          ///< neither: a number and a text among the values
};

struct FirstLineFinding {
  FirstLine kind = FirstLine::data;
  /// The columns are increasing whole numbers (a text label aside), so that what is taken for data may be
  /// names: the labels below decide (LabelColumn::first_stands_apart).
  bool may_be_names = false;
  bool counts_up = false;            ///< and they are 0,1,2,... or 1,2,3,...
  std::size_t text = 0, number = 0;  ///< of a mixed line: columns
};

/// Examines the current row as the first of a file whose labels are in column `label`. It is a header if, the
/// label aside, nothing in it is a number, or if at least four columns count up (0,1,2,3: pandas names
/// columns so). A first column without a name does not count, unless the others are no header: then its value
/// is missing.
FirstLineFinding examine_first_line(const CsvScanner& row, std::size_t label);

/// Whether the name is that of an index that pandas or R wrote: none, or pandas' word for none.
bool is_unnamed(std::string_view name);

/// If a field of the row holds another separator than the comma: "values are separated by semicolons ..., so
/// save the file with commas"; empty if none does.
std::string separator_hint(const CsvScanner& row);

}  // namespace hypertape
