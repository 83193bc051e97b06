// Collects the labels of a CSV file and turns them into class numbers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace hypertape {

class LabelColumn {
 public:
  /// `file` is for errors.
  explicit LabelColumn(std::string file) : file_(std::move(file)) {}

  /// Adds the label of one row. Throws Error for an empty label, a number that is no integer or out of range,
  /// and for text among numbers or numbers among text.
  void add(std::string_view label, std::int64_t line);

  std::int64_t size() const noexcept { return static_cast<std::int64_t>(labels_.size()); }
  void clear();

  /// Whether the first row's label looks like a column's name among these: a number that would leave empty
  /// classes below it, or a text that no other row has while all others repeat. At least two rows.
  bool first_stands_apart() const;
  /// Forgets the first row, whose label no other one has.
  void drop_first();

  /// The class of each row: the numbers themselves, or the rank of each text among the distinct ones.
  std::vector<std::int64_t> classes() &&;

 private:
  void add_number(double value, std::string_view label, std::int64_t line);
  void add_text(std::string_view label, std::int64_t line);

  std::string file_;
  bool numeric_ = false;
  std::string first_;  // for the error on mixed labels
  std::int64_t first_line_ = 0;
  std::vector<std::int64_t> labels_;                        // for text, in order of first appearance
  std::unordered_map<std::string, std::int64_t> text_ids_;  // empty when numeric
};

}  // namespace hypertape
