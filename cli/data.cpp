#include "data.h"

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <utility>

#include <hypertape/core/error.h>
#include "byte_reader.h"
#include "csv_reader.h"
#include "data_limits.h"
#include "embedded_digits.h"
#include "idx_reader.h"
#include "readable.h"

namespace hypertape {
namespace {

// What else a file of data may be, by its first bytes; null if it is none of these.
const char* other_format(std::string_view start) {
  constexpr std::pair<std::string_view, const char*> formats[] = {
      {"PK\x03\x04", "a zip archive (.zip, .npz or .xlsx)"},
      {"\x93NUM", "a NumPy array (.npy)"},
      {"BZh", "compressed by bzip2"},
      {"\xFD"
       "7zX",
       "compressed by xz"},
      {"\x28\xB5\x2F\xFD", "compressed by zstd"},
      {"\x89HDF", "an HDF5 file"}};
  for (const auto& [magic, name] : formats)
    if (start.starts_with(magic)) return name;
  return nullptr;
}

Dataset finish(LabelledRows rows, std::string name, bool images) {
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
  data.images = images;
  data.notes = std::move(rows.notes);
  return data;
}

}  // namespace

Dataset builtin_digits() {
  MemoryReader digits(embedded_digits_csv(), "digits");
  return finish(read_csv(digits, {.header = CsvHeader::no}), "digits", true);
}

Dataset read_data(const std::string& path, const ReadOptions& options) {
  if (options.samples < 0)
    fail(load_data, "cannot keep ", options.samples, " samples; ask for 1 or more, or 0 for all");
  FileReader file(path);
  std::string name = printable(std::filesystem::path(path).filename().string());
  if (is_idx(file)) {
    if (options.label_column) {
      fail(load_data, path,
           ": an IDX file has no columns to choose the label from; give its labels file instead");
    }
    if (options.header != CsvHeader::automatic)
      fail(load_data, path, ": an IDX file has no line that names columns; leave --header out");
    return finish(read_idx(file, options), std::move(name), true);
  }
  if (const char* other = other_format(file.peek()))
    fail(load_data, path, ": is ", other, "; give CSV or IDX, as it is or compressed by gzip");
  if (options.labels) {
    fail(load_data, path,
         ": not an IDX file, so its labels are expected in a column of its own, not in a labels file; name "
         "the column instead");
  }
  return finish(read_csv(file, options), std::move(name), false);
}

std::string too_much_data(std::int64_t bytes, std::int64_t features) {
  const std::int64_t fitting = samples_within(bytes, features);
  return "the data take more than the " + readable_bytes(bytes) + " allowed (8 bytes for each of " +
         counted(features, "value") + " and the label of a sample); " +
         (fitting < 2 ? "" : "keep the first " + readable_count(fitting) + " by --samples, or ") +
         "allow more by --data-memory";
}

}  // namespace hypertape
