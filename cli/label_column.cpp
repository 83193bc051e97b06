#include "label_column.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <hypertape/core/error.h>
#include "csv_number.h"
#include "data_limits.h"

namespace hypertape {

void LabelColumn::add(std::string_view label, std::int64_t line) {
  label = trim(label);
  if (label.empty()) fail(load_data, file_, ":", line, ": the label is empty; give every row a label");
  if (label.size() > max_label_bytes) {
    fail(load_data, file_, ":", line, ": the label ", shown(label), " is longer than ", max_label_bytes,
         " bytes; check which column holds the labels");
  }
  const std::optional<double> number = parse_number(label);
  if (labels_.empty()) {
    numeric_ = number.has_value();
    first_ = shown(label);
    first_line_ = line;
  } else if (numeric_ != number.has_value()) {
    fail(load_data, file_, ":", line, ": the label ", shown(label), " is ", number ? "a number" : "text",
         ", but that of line ", first_line_, ", ", first_, ", is ", number ? "text" : "a number",
         "; use numbers only, or text only");
  }
  if (number) {
    add_number(*number, label, line);
  } else {
    add_text(label, line);
  }
}

void LabelColumn::add_number(double value, std::string_view label, std::int64_t line) {
  if (!std::isfinite(value) || value != std::floor(value)) {
    fail(load_data, file_, ":", line, ": the label ", shown(label),
         " is not an integer; classes are numbered from 0, so check which column holds the labels");
  }
  if (value < 0 || value >= static_cast<double>(max_classes)) {
    fail(load_data, file_, ":", line, ": the label ", shown(label),
         " is out of range; classes are numbered from 0 to ", max_classes - 1, " at most");
  }
  labels_.push_back(static_cast<std::int64_t>(value));
}

void LabelColumn::add_text(std::string_view label, std::int64_t line) {
  const auto [entry, added] = text_ids_.try_emplace(std::string(label), std::ssize(text_ids_));
  if (added && std::ssize(text_ids_) > max_classes) {
    fail(load_data, file_, ":", line, ": more than ", max_classes,
         " different labels; check which column holds the labels");
  }
  labels_.push_back(entry->second);
}

bool LabelColumn::first_stands_apart() const {
  if (labels_.size() < 2) return false;
  const std::int64_t first = labels_.front();
  if (numeric_) return first > *std::max_element(labels_.begin() + 1, labels_.end()) + 1;
  std::vector<std::int64_t> rows(text_ids_.size());
  for (const std::int64_t label : labels_) ++rows[static_cast<std::size_t>(label)];
  return rows[0] == 1 && rows.size() > 1 &&
         std::all_of(rows.begin() + 1, rows.end(), [](std::int64_t count) { return count > 1; });
}

void LabelColumn::drop_first() {
  labels_.erase(labels_.begin());
  if (numeric_) return;
  std::erase_if(text_ids_, [](const auto& entry) { return entry.second == 0; });
  for (auto& [text, id] : text_ids_) --id;
  for (std::int64_t& label : labels_) --label;
}

void LabelColumn::clear() {
  labels_.clear();
  text_ids_.clear();
}

std::vector<std::int64_t> LabelColumn::classes() && {
  if (numeric_) return std::move(labels_);
  std::vector<std::pair<std::string_view, std::int64_t>> sorted(text_ids_.begin(), text_ids_.end());
  std::sort(sorted.begin(), sorted.end());
  std::vector<std::int64_t> rank(sorted.size());
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    rank[static_cast<std::size_t>(sorted[i].second)] = static_cast<std::int64_t>(i);
  }
  for (std::int64_t& label : labels_) label = rank[static_cast<std::size_t>(label)];
  return std::move(labels_);
}

}  // namespace hypertape
