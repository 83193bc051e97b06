// What the data readers share: their result, the name in their errors, and the sizes they refuse.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hypertape {

/// The operation named by every error of the readers.
inline constexpr char load_data[] = "load data";

/// Samples as read; at least one.
struct LabelledRows {
  std::int64_t features = 0;
  std::vector<double> values;  // (labels.size(), features)
  std::vector<std::int64_t> labels;
  std::vector<std::string> notes;  // what the reader decided that the user may want to know
};

// The limits keep a wrong or hostile file from exhausting memory; real data sets are far below them.
inline constexpr std::int64_t max_features = std::int64_t{1} << 20;
inline constexpr std::int64_t max_classes = std::int64_t{1} << 16;
inline constexpr std::size_t max_label_bytes = 1000;

/// How many samples of so many values fit in `bytes`, each with its label.
constexpr std::int64_t samples_within(std::int64_t bytes, std::int64_t features) {
  constexpr std::int64_t each = 8;
  return bytes / (each * (features + 1));
}

/// "the data take more than ...; do this", for samples beyond that.
std::string too_much_data(std::int64_t bytes, std::int64_t features);

}  // namespace hypertape
