#include "idx_reader.h"

#include <algorithm>
#include <filesystem>
#include <iomanip>
#include <sstream>
#include <vector>

#include <hypertape/core/error.h>
#include "value_blocks.h"

namespace hypertape {
namespace {

constexpr unsigned unsigned_byte_type = 0x08;

struct Header {
  std::int64_t count = 0;        // samples
  std::int64_t values_each = 1;  // product of the other dimensions
  unsigned dimensions = 0;
};

unsigned byte(char c) { return static_cast<unsigned char>(c); }

std::string hex(unsigned value) {
  std::ostringstream text = detail::text_stream();
  text << "0x" << std::hex << std::setw(2) << std::setfill('0') << value;
  return text.str();
}

void read_exactly(ByteReader& file, std::span<char> bytes, const char* what) {
  const std::size_t count = file.read(bytes);
  if (count < bytes.size()) {
    fail(load_data, file.name(), ": ends inside its ", what, " (", bytes.size() - count,
         " bytes are missing); the file is truncated, so fetch it again");
  }
}

Header read_header(ByteReader& file) {
  char magic[4];
  read_exactly(file, magic, "header");
  if (byte(magic[0]) != 0 || byte(magic[1]) != 0) {
    fail(load_data, file.name(), ": starts with ", hex(byte(magic[0])), " ", hex(byte(magic[1])),
         ", but an IDX file starts with two zero bytes; it is damaged or another format");
  }
  if (byte(magic[2]) != unsigned_byte_type) {
    fail(load_data, file.name(), ": its elements have type ", hex(byte(magic[2])),
         "; only unsigned bytes (0x08) are read, so convert the file");
  }
  Header header;
  header.dimensions = byte(magic[3]);
  if (header.dimensions < 1 || header.dimensions > 4) {
    fail(load_data, file.name(), ": declares ", header.dimensions,
         " dimensions; labels have 1 and samples 2 to 4, so it is damaged");
  }
  for (unsigned d = 0; d < header.dimensions; ++d) {
    char bytes[4];
    read_exactly(file, bytes, "header");
    const std::int64_t size = static_cast<std::int64_t>(byte(bytes[0]) << 24 | byte(bytes[1]) << 16 |
                                                        byte(bytes[2]) << 8 | byte(bytes[3]));
    if (size == 0) {
      fail(load_data, file.name(), ": dimension ", d, " has size 0; there is nothing to learn from");
    }
    if (d == 0) {
      header.count = size;
    } else {
      // Both factors are below 2^32, so the product of this turn cannot overflow.
      header.values_each *= size;
      if (header.values_each > max_features) {
        fail(load_data, file.name(), ": declares more than ", max_features,
             " values for each sample; it is damaged or not meant for this program");
      }
    }
  }
  // Both factors are below 2^33.
  const std::uint64_t declared =
      static_cast<std::uint64_t>(header.count) * static_cast<std::uint64_t>(header.values_each);
  if (declared > file.bytes_left_at_most()) {
    fail(load_data, file.name(), ": declares ", header.count, " x ", header.values_each,
         " bytes, but at most ", file.bytes_left_at_most(),
         " follow; the file is truncated or its header damaged, so fetch it again");
  }
  return header;
}

// Reads `count` bytes as values. In pieces: what a compressed file declares is only bounded by a large
// multiple of its size, and this way memory follows what is really there.
template <class Values>
void read_bytes(ByteReader& file, std::int64_t count, const char* what, Values& values) {
  std::vector<char> piece(static_cast<std::size_t>(std::min(count, std::int64_t{1} << 20)));
  while (count > 0) {
    const std::span<char> bytes =
        std::span(piece).first(static_cast<std::size_t>(std::min(count, std::ssize(piece))));
    read_exactly(file, bytes, what);
    for (const char value : bytes) values.push_back(byte(value));
    count -= std::ssize(bytes);
  }
}

void expect_end(ByteReader& file) {
  if (!file.peek().empty()) {
    fail(load_data, file.name(),
         ": goes on after the values its header declares; it is damaged, so fetch it again");
  }
}

// "train-images-idx3-ubyte.gz" -> "train-labels-idx1-ubyte.gz" and "train-labels-idx1-ubyte", in this order.
std::vector<std::filesystem::path> labels_candidates(const std::filesystem::path& images) {
  std::string name = images.filename().string();
  bool renamed = false;
  for (const char separator : {'-', '.'}) {
    const std::string from = std::string("images") + separator + "idx3";
    if (const std::size_t at = name.rfind(from); at != std::string::npos) {
      name.replace(at, from.size(), std::string("labels") + separator + "idx1");
      renamed = true;
      break;
    }
  }
  if (!renamed) return {};
  const std::string other = name.ends_with(".gz") ? name.substr(0, name.size() - 3) : name + ".gz";
  return {images.parent_path() / name, images.parent_path() / other};
}

std::string find_labels(const std::string& images) {
  const std::vector<std::filesystem::path> candidates = labels_candidates(images);
  if (candidates.empty()) {
    fail(load_data, images,
         ": the name contains no 'images-idx3' from which to form the name of its labels file; give the "
         "labels "
         "file");
  }
  for (const std::filesystem::path& candidate : candidates) {
    std::error_code ignored;
    if (std::filesystem::exists(candidate, ignored)) return candidate.string();
  }
  fail(load_data, images, ": its labels file is missing: there is neither ",
       candidates[0].filename().string(), " nor ", candidates[1].filename().string(),
       " beside it; give the labels file");
}

std::vector<std::int64_t> read_labels(const std::string& path, const std::string& images,
                                      std::int64_t samples, std::int64_t kept) {
  FileReader file(path);
  const Header header = read_header(file);
  if (header.dimensions != 1) {
    fail(load_data, path, ": has ", header.dimensions,
         " dimensions, but labels have 1; this is not a labels file");
  }
  if (header.count != samples) {
    fail(load_data, path, ": holds ", header.count, " labels, but ", images, " holds ", samples,
         " samples; the two files do not belong together");
  }
  std::vector<std::int64_t> labels;
  read_bytes(file, kept, "labels", labels);
  if (kept == samples) expect_end(file);
  return labels;
}

}  // namespace

bool is_idx(ByteReader& file) {
  const std::string_view start = file.peek();
  if (start.size() >= 2 && start[0] == '\0' && start[1] == '\0') return true;
  std::string_view name = file.name();
  if (name.ends_with(".gz")) name.remove_suffix(3);
  return name.find("idx") != std::string_view::npos && name.ends_with("ubyte");
}

LabelledRows read_idx(ByteReader& images, const ReadOptions& options) {
  const Header header = read_header(images);
  if (header.dimensions == 1) {
    fail(load_data, images.name(), ": has one dimension, so it is a file of labels; give the file of images");
  }
  const std::int64_t kept = options.samples == 0 ? header.count : std::min(header.count, options.samples);
  if (kept > samples_within(options.data_bytes, header.values_each))
    fail(load_data, images.name(), ": ", too_much_data(options.data_bytes, header.values_each));

  LabelledRows rows;
  rows.features = header.values_each;
  rows.labels = read_labels(options.labels ? *options.labels : find_labels(images.name()), images.name(),
                            header.count, kept);
  ValueBlocks values;
  read_bytes(images, kept * header.values_each, "values", values);
  rows.values = values.take();
  if (kept == header.count) expect_end(images);
  return rows;
}

}  // namespace hypertape
