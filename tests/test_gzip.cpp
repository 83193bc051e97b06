// Compressed data: every byte of every member is looked at, nothing is dropped, and memory has a limit.
#include <doctest/doctest.h>

#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "byte_reader.h"
#include "data.h"
#include "data_files.h"
#include "data_limits.h"
#include "value_blocks.h"

namespace {

using hypertape::Dataset;
using hypertape::Error;
using hypertape::read_data;
using namespace std::string_literals;

std::string rows(int first, int count) {
  std::string text;
  for (int i = first; i < first + count; ++i)
    text += std::to_string(i * 7919 % 5003) + "," + std::to_string(i % 3) + "\n";
  return text;
}

// A file of two gzip members.
struct TwoMembers {
  DataFolder folder;
  std::string first = content(folder.write_gz("first.gz", rows(0, 20)));
  std::string whole = first + content(folder.write_gz("second.gz", rows(20, 20)));

  std::string error_with(std::string_view bytes) const {
    const std::string path = folder.write("t.csv.gz", bytes);
    return error_of(folder, [&] { read_data(path); });
  }
};

}  // namespace

TEST_CASE("gzip members are read one after another") {
  const TwoMembers two;
  const Dataset data = read_data(two.folder.write("t.csv.gz", two.whole));
  CHECK(data.samples == 40);
  const std::string empty = content(two.folder.write_gz("empty.gz", ""));
  CHECK(read_data(two.folder.write("t.csv.gz", two.first + empty + empty + two.whole)).samples == 60);
  CHECK(data.inputs == read_data(two.folder.write("t.csv", rows(0, 40))).inputs);
}

TEST_CASE("a compressed file cut anywhere but between members is refused with file, byte and member") {
  const TwoMembers two;
  for (std::size_t size = 2; size < two.whole.size(); ++size) {
    const std::string error = two.error_with(std::string_view(two.whole).substr(0, size));
    CAPTURE(size);
    if (size == two.first.size()) {
      // A whole file of one member: nothing tells that there was another.
      CHECK(error == "no error");
      continue;
    }
    const bool in_first = size < two.first.size();
    CHECK(error == "[load data] t.csv.gz: the compressed data ends early, at byte " + std::to_string(size) +
                       " (gzip member " +
                       (in_first ? "1, which starts at byte 0"
                                 : "2, which starts at byte " + std::to_string(two.first.size())) +
                       "); the file is truncated, so fetch it again");
  }
}

TEST_CASE("a changed byte of a compressed file is found or changes nothing") {
  const TwoMembers two;
  const std::vector<double> expected = read_data(two.folder.write("t.csv.gz", two.whole)).inputs;
  int refused = 0;
  for (std::size_t at = two.first.size(); at < two.whole.size(); ++at) {
    std::string changed = two.whole;
    changed[at] = static_cast<char>(changed[at] ^ 0xff);
    const std::string path = two.folder.write("t.csv.gz", changed);
    CAPTURE(at);
    try {
      const Dataset data = read_data(path);
      CHECK(data.inputs == expected);  // such as the time of compression
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find("t.csv.gz") != std::string::npos);
      ++refused;
    }
  }
  CHECK(refused > static_cast<int>(two.whole.size() - two.first.size()) - 12);
}

TEST_CASE("what follows the last gzip member is refused with its place") {
  const TwoMembers two;
  const std::string text =
      "[load data] t.csv.gz: what follows the gzip data, from byte " + std::to_string(two.whole.size()) +
      " on, is not gzip data; the file is damaged or something was appended to it, so fetch it "
      "again";
  CHECK(two.error_with(two.whole + "1,2\n") == text);
  CHECK(two.error_with(two.whole + std::string(1000, '\0')) == text);  // a download that broke off
  CHECK(two.error_with(two.whole + "\x1f").find("ends early") != std::string::npos);
  CHECK(two.error_with(two.whole + "\x1f garbage").find("is damaged near byte") != std::string::npos);
}

TEST_CASE("IDX files cut anywhere are refused, compressed or not") {
  const DataFolder folder;
  const std::string packed = content(folder.write_gz("i.gz", images_bytes)),
                    packed_labels = content(folder.write_gz("l.gz", labels_bytes));
  const std::string labels = folder.write("labels", labels_bytes),
                    images = folder.write("images", images_bytes);
  const auto refused = [&](const std::string& image_path, const std::string& label_path) {
    const std::string error = error_of(folder, [&] { read_data(image_path, {.labels = label_path}); });
    return error.starts_with("[load data] cut");
  };
  CHECK(error_of(folder, [&] { read_data(images, {.labels = labels}); }) == "no error");
  for (const std::string& whole : {images_bytes, packed})
    for (std::size_t size = 0; size < whole.size(); ++size)
      CHECK_MESSAGE(refused(folder.write("cut-ubyte-idx3-ubyte", whole.substr(0, size)), labels), size);
  for (const std::string& whole : {labels_bytes, packed_labels})
    for (std::size_t size = 0; size < whole.size(); ++size)
      CHECK_MESSAGE(refused(images, folder.write("cut", whole.substr(0, size))), size);
}

TEST_CASE("data beyond the memory allowed are refused, with what to do") {
  const DataFolder folder;
  const std::string text = "1,2,0\n3,4,1\n5,6,0\n7,8,1\n";  // 24 bytes a row
  const auto error = [&](const std::string& path, std::int64_t samples, std::int64_t bytes) {
    return error_of(folder, [&] {
      read_data(path, {.labels = path.ends_with("i") ? std::optional(folder.path("l")) : std::nullopt,
                       .samples = samples,
                       .data_bytes = bytes});
    });
  };
  for (const std::string& path : {folder.write("t.csv", text), folder.write_gz("t.csv.gz", text)}) {
    CHECK(error(path, 0, 96) == "no error");
    CHECK(error(path, 3, 72) == "no error");
    const std::string refusal = error(path, 0, 95);
    CHECK(refusal.find(
              ":4: the data take more than the 95 B allowed (8 bytes for each of 2 values and the label "
              "of a sample); keep the first 3 by --samples, or allow more by --data-memory") !=
          std::string::npos);
  }
  const std::string images = folder.write("i", images_bytes);
  folder.write("l", labels_bytes);
  CHECK(error(images, 0, 72) == "no error");
  CHECK(error(images, 2, 71) == "no error");
  // Not even two samples would make a data set.
  CHECK(error(folder.path("t.csv"), 0, 47).find("and the label of a sample); allow more by --data-memory") !=
        std::string::npos);
  CHECK(error(images, 0, 71).find("[load data] i: the data take more than the 71 B allowed") == 0);
}

TEST_CASE("a label of any length takes no memory: beyond 1,000 bytes it is refused") {
  const DataFolder folder;
  const auto error = [&](std::size_t length) {
    const std::string path = folder.write("t.csv", "1,b\n2," + std::string(length, 'a') + "\n");
    return error_of(folder, [&] { read_data(path); });
  };
  CHECK(error(1000) == "no error");
  CHECK(error(1001) == "[load data] t.csv:2: the label '" + std::string(40, 'a') +
                           "...' is longer than 1000 bytes; check which column holds the labels");
}

TEST_CASE("values in blocks come out in order, from any place on") {
  constexpr std::size_t count = (std::size_t{1} << 23) + 5;  // two whole blocks and a piece
  std::vector<double> expected(count);
  std::iota(expected.begin(), expected.end(), 0.0);
  for (const std::size_t first : {std::size_t{0}, std::size_t{3}, (std::size_t{1} << 22) + 1, count}) {
    hypertape::ValueBlocks values;
    for (const double value : expected) values.push_back(value);
    const std::vector<double> taken = values.take(first);
    CHECK(taken.size() == count - first);
    CHECK(std::equal(taken.begin(), taken.end(), expected.begin() + static_cast<std::ptrdiff_t>(first)));
    CHECK(values.take().empty());
  }
}
