// How a data file is to be read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace hypertape {

/// Whether the first line of a CSV file names the columns; csv_reader.h says how `automatic` decides.
enum class CsvHeader : std::uint8_t { automatic, yes, no };
inline constexpr const char* csv_header_names[] = {"auto", "yes", "no"};

/// Enough for MNIST (0.4 GB), CIFAR-10 (1.2 GB) and their like.
inline constexpr std::int64_t default_data_bytes = 2'000'000'000;

struct ReadOptions {
  /// IDX only: the file of labels; otherwise it is looked for beside the images, under the same name with
  /// "labels-idx1" for "images-idx3", compressed or not.
  std::optional<std::string> labels = {};
  /// CSV only: the header's name of the column with the labels; otherwise the last column.
  std::optional<std::string> label_column = {};
  CsvHeader header = CsvHeader::automatic;
  std::int64_t samples = 0;  ///< keep the first ones; 0: all
  /// Most memory for what is kept: 8 bytes for each value and each label. It bounds what a small compressed
  /// file can unfold to; reading takes at most 64 MB more.
  std::int64_t data_bytes = default_data_bytes;
};

}  // namespace hypertape
