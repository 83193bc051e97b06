// IDX files as data: what the reader accepts, and the message for each thing it refuses.
#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data.h"
#include "data_files.h"

namespace {

using hypertape::Dataset;
using hypertape::read_data;
using Values = std::vector<double>;
using Labels = std::vector<std::int64_t>;
using namespace std::string_literals;

}  // namespace

TEST_CASE("IDX: images and labels are read, compressed or not, wherever the labels are") {
  const DataFolder folder;
  const auto check = [](const Dataset& data) {
    CHECK(data.samples == 3);
    CHECK(data.features == 2);
    CHECK(data.classes == 3);
    CHECK(data.inputs == Values{0, 0x33, 0x66, 0x99, 0xCC, 0xFF});
    CHECK(data.labels == Labels{1, 0, 2});
  };
  const std::string plain = folder.write("a-images-idx3-ubyte", images_bytes);
  folder.write("a-labels-idx1-ubyte", labels_bytes);
  check(read_data(plain));

  const std::string packed = folder.write_gz("b-images-idx3-ubyte.gz", images_bytes);
  folder.write_gz("b-labels-idx1-ubyte.gz", labels_bytes);
  check(read_data(packed));

  const std::string mixed = folder.write_gz("c-images.idx3-ubyte.gz", images_bytes);
  folder.write("c-labels.idx1-ubyte", labels_bytes);
  check(read_data(mixed));

  const std::string elsewhere = folder.write("pictures.bin", images_bytes);
  check(read_data(elsewhere, {.labels = folder.write_gz("answers", labels_bytes)}));

  const Dataset limited = read_data(plain, {.samples = 2});
  CHECK(limited.samples == 2);
  CHECK(limited.labels == Labels{1, 0});
  CHECK(limited.inputs == Values{0, 0x33, 0x66, 0x99});
}

TEST_CASE("IDX: samples may have one dimension, or three") {
  const DataFolder folder;
  const std::string labels = folder.write("labels", labels_bytes);
  CHECK(read_data(folder.write("rows", idx({3, 2}, "abcdef")), {.labels = labels}).features == 2);
  CHECK(read_data(folder.write("colour", idx({3, 1, 2, 3}, std::string(18, 'x'))), {.labels = labels})
            .features == 6);
}

TEST_CASE("IDX: damaged images are refused") {
  const DataFolder folder;
  const std::string labels = folder.write("labels", labels_bytes);
  const auto error = [&](std::string_view bytes) {
    const std::string path = folder.write("images-idx3-ubyte", bytes);
    return error_of(folder, [&] { read_data(path, {.labels = labels}); });
  };
  const std::string at = "[load data] images-idx3-ubyte: ";
  CHECK(error("\x89PNG") ==
        at + "starts with 0x89 0x50, but an IDX file starts with two zero bytes; it is damaged "
             "or another format");
  CHECK(error("\0\0\x08"s) ==
        at + "ends inside its header (1 bytes are missing); the file is truncated, so fetch it "
             "again");
  CHECK(error(images_bytes.substr(0, 10)) ==
        at + "ends inside its header (2 bytes are missing); the file is truncated, so fetch it again");
  CHECK(error(idx({3, 1, 2}, "", 0x0D)) ==
        at + "its elements have type 0x0d; only unsigned bytes (0x08) are read, so convert the file");
  CHECK(error(idx({1, 1, 1, 1, 1}, "x")) ==
        at + "declares 5 dimensions; labels have 1 and samples 2 to 4, so it is damaged");
  CHECK(error(idx({3, 0, 2}, "")) == at + "dimension 1 has size 0; there is nothing to learn from");
  CHECK(error(images_bytes.substr(0, images_bytes.size() - 1)) ==
        at + "declares 3 x 2 bytes, but at most 5 follow; the file is truncated or its header damaged, so "
             "fetch it "
             "again");
  CHECK(error(images_bytes + "x") ==
        at + "goes on after the values its header declares; it is damaged, so fetch it again");
  CHECK(error(labels_bytes) == at + "has one dimension, so it is a file of labels; give the file of images");
}

TEST_CASE("IDX: huge declared sizes are refused before memory is reserved") {
  const DataFolder folder;
  const std::string labels = folder.write("labels", labels_bytes);
  const auto error = [&](const std::string& path) {
    return error_of(folder, [&] { read_data(path, {.labels = labels}); });
  };
  CHECK(error(folder.write("i", idx({0xFFFFFFFF, 1024, 1024}, "abc"))) ==
        "[load data] i: declares 4294967295 x 1048576 bytes, but at most 3 follow; the file is truncated or "
        "its "
        "header damaged, so fetch it again");
  CHECK(
      error(folder.write("i", idx({0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF}, "abc"))) ==
      "[load data] i: declares more than 1048576 values for each sample; it is damaged or not meant for this "
      "program");
  const std::string packed = error(folder.write_gz("i", idx({0xFFFFFFFF, 1024, 1024}, "abc")));
  CHECK(packed.find("declares 4294967295 x 1048576 bytes, but at most ") != std::string::npos);
  // Within the bound of compression, so noticed only where the data ends.
  CHECK(error(folder.write_gz("i", idx({3, 10, 100}, "abc"))) ==
        "[load data] i: ends inside its values (2997 bytes are missing); the file is truncated, so fetch it "
        "again");
}

TEST_CASE("IDX: missing, wrong or mismatched labels are refused") {
  const DataFolder folder;
  const std::string images = folder.write("x-images-idx3-ubyte.gz", "");
  folder.write_gz("x-images-idx3-ubyte.gz", images_bytes);
  const auto error = [&](const std::optional<std::string>& labels) {
    return error_of(folder, [&] { read_data(images, {.labels = labels}); });
  };
  CHECK(error(std::nullopt) ==
        "[load data] x-images-idx3-ubyte.gz: its labels file is missing: there is neither "
        "x-labels-idx1-ubyte.gz "
        "nor x-labels-idx1-ubyte beside it; give the labels file");
  CHECK(error(folder.path("none")) == "[load data] none: no such file; check the path");
  CHECK(error(images) ==
        "[load data] x-images-idx3-ubyte.gz: has 3 dimensions, but labels have 1; this is not a labels file");
  CHECK(error(folder.write("few", idx({2}, "\1\0"s))) ==
        "[load data] few: holds 2 labels, but x-images-idx3-ubyte.gz holds 3 samples; the two files do not "
        "belong "
        "together");
  CHECK(error(folder.write("short", idx({3}, "\1\0"s))) ==
        "[load data] short: declares 3 x 1 bytes, but at most 2 follow; the file is truncated or its header "
        "damaged, so fetch it again");
  CHECK(error(folder.write("long", idx({3}, "\1\0\2\0"s))) ==
        "[load data] long: goes on after the values its header declares; it is damaged, so fetch it again");
  const std::string nameless = folder.write("pictures", images_bytes);
  CHECK(error_of(folder, [&] { read_data(nameless); }) ==
        "[load data] pictures: the name contains no 'images-idx3' from which to form the name of its labels "
        "file; "
        "give the labels file");
}
