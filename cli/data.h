// Classification data for the program: the built-in digits, or a file of the user's.
//
// Two formats, each also compressed with gzip; the content decides which it is, not the name:
//   CSV  one sample per line, its label in the last column or in a named one (csv_reader.h);
//   IDX  the format of MNIST and its successors, images and labels in two files (idx_reader.h).
//
// Input from outside is not trusted: what a file declares is checked against what it holds before memory is
// reserved for it, files are read and decompressed in pieces, and what is kept has a limit.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "read_options.h"

namespace hypertape {

struct Dataset {
  std::int64_t samples = 0;
  std::int64_t features = 0;  ///< values per sample
  std::int64_t classes = 0;   ///< highest label + 1, at least 2
  /// samples x features, row-major, as in the file; scaling.h makes them fit for training.
  std::vector<double> inputs;
  std::vector<std::int64_t> labels;  ///< samples values in [0, classes)
  std::string name;                  ///< for messages: "digits" or the file's name without folders
  bool images = false;               ///< all values of a sample have one unit
  /// What reading decided that the user may want to know, such as a column left out.
  std::vector<std::string> notes;
};

/// The 1,797 images of 8x8 in data/digits.csv.
Dataset builtin_digits();

/// Reads `path`. Labels and classes are those of the samples kept. Throws Error "[load data] <file>:<line>:
/// what is wrong; what to do".
Dataset read_data(const std::string& path, const ReadOptions& options = {});

}  // namespace hypertape
