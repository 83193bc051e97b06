// What the data readers share: their result, the name in their errors, and the sizes they refuse.
#pragma once

#include <cstdint>
#include <vector>

namespace hypertape {

/// The operation named by every error of the readers.
inline constexpr char load_data[] = "load data";

/// Samples as read, not yet scaled; at least one.
struct LabelledRows {
  std::int64_t features = 0;
  std::vector<double> values;  // (labels.size(), features)
  std::vector<std::int64_t> labels;
};

// The limits keep a wrong or hostile file from exhausting memory; real data sets are far below them.
inline constexpr std::int64_t max_features = std::int64_t{1} << 20;
inline constexpr std::int64_t max_classes = std::int64_t{1} << 16;
/// Values in all: 8 GiB of doubles. It bounds what a small compressed file can unfold to.
inline constexpr std::int64_t max_values = std::int64_t{1} << 30;

}  // namespace hypertape
