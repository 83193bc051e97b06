// Classification data for the program: the built-in digits, or a file of the user's.
//
// Two formats, each also compressed with gzip; the content decides which it is, not the name:
//   CSV  one sample per line, its label in the last column or in a named one (csv_reader.h);
//   IDX  the format of MNIST and its successors, images and labels in two files (idx_reader.h).
//
// Input from outside is not trusted: what a file declares is checked against what it holds before memory is
// reserved for it, so memory stays within a fixed multiple of the file's decompressed size.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace hypertape {

struct Dataset {
  std::int64_t samples = 0;
  std::int64_t features = 0;  ///< values per sample
  std::int64_t classes = 0;   ///< highest label + 1, at least 2
  /// samples x features, row-major. All are divided by the largest absolute value among them, so they lie in
  /// [0, 1], or in [-1, 1] where the file has negative values.
  std::vector<double> inputs;
  std::vector<std::int64_t> labels;  ///< samples values in [0, classes)
  std::string name;                  ///< for messages: "digits" or the file's name without folders
};

/// The 1,797 images of 8x8 in data/digits.csv.
Dataset builtin_digits();

/// Reads `path`, keeping the first `max_samples` samples (0: all). Labels, classes and the scale are those of
/// the samples kept.
///
/// `labels_path`: IDX only, the file of labels; otherwise it is looked for beside the images, under the same
/// name with "labels-idx1" for "images-idx3", compressed or not.
/// `label_column`: CSV only, the header's name of the column with the labels; otherwise the last column.
///
/// Throws Error "[load data] <file>:<line>: what is wrong; what to do".
Dataset read_data(const std::string& path, const std::optional<std::string>& labels_path = std::nullopt,
                  const std::optional<std::string>& label_column = std::nullopt,
                  std::int64_t max_samples = 0);

}  // namespace hypertape
