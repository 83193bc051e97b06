#include "data.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>

#include "byte_reader.h"
#include "csv_reader.h"
#include "data_limits.h"
#include "embedded_digits.h"
#include "hypertape/core/error.h"
#include "idx_reader.h"

namespace hypertape {
namespace {

void scale_to_unit(std::vector<double>& inputs) {
  double largest = 0.0;
  for (const double value : inputs) largest = std::max(largest, std::abs(value));
  if (largest == 0.0) return;
  for (double& value : inputs) value /= largest;
}

Dataset finish(LabelledRows rows, std::string name) {
  Dataset data;
  data.samples = static_cast<std::int64_t>(rows.labels.size());
  data.features = rows.features;
  data.classes = *std::max_element(rows.labels.begin(), rows.labels.end()) + 1;
  if (data.classes < 2) {
    fail(load_data, name, ": the first ", data.samples,
         " samples all have the same label; a classifier needs two classes, so give more data or more "
         "samples, or choose the column of the labels");
  }
  data.inputs = std::move(rows.values);
  data.labels = std::move(rows.labels);
  data.name = std::move(name);
  scale_to_unit(data.inputs);
  return data;
}

}  // namespace

Dataset builtin_digits() {
  MemoryReader digits(embedded_digits_csv(), "digits");
  return finish(read_csv(digits, std::nullopt, 0), "digits");
}

Dataset read_data(const std::string& path, const std::optional<std::string>& labels_path,
                  const std::optional<std::string>& label_column, std::int64_t max_samples) {
  if (max_samples < 0)
    fail(load_data, "cannot keep ", max_samples, " samples; ask for 1 or more, or 0 for all");
  FileReader file(path);
  std::string name = std::filesystem::path(path).filename().string();
  if (is_idx(file)) {
    if (label_column) {
      fail(load_data, path,
           ": an IDX file has no columns to choose the label from; give its labels file instead");
    }
    return finish(read_idx(file, labels_path, max_samples), std::move(name));
  }
  if (labels_path) {
    fail(load_data, path,
         ": not an IDX file, so its labels are expected in a column of its own, not in a labels file; name "
         "the "
         "column instead");
  }
  return finish(read_csv(file, label_column, max_samples), std::move(name));
}

}  // namespace hypertape
