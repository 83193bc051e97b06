// The program's data readers: what they accept, and the message for each thing they refuse.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <hypertape/core/error.h>
#include "data.h"
#include "data_files.h"

namespace {

using hypertape::Dataset;
using hypertape::Error;
using hypertape::read_data;
using Values = std::vector<double>;
using Labels = std::vector<std::int64_t>;
using namespace std::string_literals;

std::string csv_error(std::string_view text, const std::optional<std::string>& label_column = std::nullopt) {
  const DataFolder folder;
  const std::string path = folder.write("t.csv", text);
  return error_of(folder, [&] { read_data(path, {.label_column = label_column}); });
}

Dataset csv(std::string_view text, const std::optional<std::string>& label_column = std::nullopt,
            std::int64_t max_samples = 0) {
  const DataFolder folder;
  return read_data(folder.write("t.csv", text), {.label_column = label_column, .samples = max_samples});
}

}  // namespace

TEST_CASE("the built-in digits are the 1,797 images of scikit-learn") {
  const Dataset digits = hypertape::builtin_digits();
  CHECK(digits.samples == 1797);
  CHECK(digits.features == 64);
  CHECK(digits.classes == 10);
  CHECK(digits.name == "digits");
  REQUIRE(digits.inputs.size() == 1797 * 64);
  REQUIRE(digits.labels.size() == 1797);
  // Printed by scikit-learn: the start of the first image, the sum of all pixels, the count of each digit.
  CHECK(Values(digits.inputs.begin(), digits.inputs.begin() + 6) == Values{0, 0, 5, 13, 9, 1});
  double sum = 0;
  for (const double value : digits.inputs) sum += value;
  CHECK(sum == 561718.0);
  Labels counts(10);
  for (const std::int64_t label : digits.labels) ++counts[static_cast<std::size_t>(label)];
  CHECK(counts == Labels{178, 182, 177, 183, 181, 182, 181, 179, 174, 180});
}

TEST_CASE("CSV: last column is the label, the others are inputs as they are") {
  const Dataset data = csv("1,-4,0\n2,3,1\n0.5,+1e0,1\n");
  CHECK(data.samples == 3);
  CHECK(data.features == 2);
  CHECK(data.classes == 2);
  CHECK(data.name == "t.csv");
  CHECK(data.inputs == Values{1, -4, 2, 3, 0.5, 1});
  CHECK(data.labels == Labels{0, 1, 1});
}

TEST_CASE("CSV: a header is recognised") {
  SUBCASE("by names only") { CHECK(csv("a,b,c\n1,2,0\n3,4,1\n").labels == Labels{0, 1}); }
  SUBCASE("above text labels") { CHECK(csv("a,b,c\n1,2,no\n3,4,yes\n").labels == Labels{0, 1}); }
  SUBCASE("by a text label above numeric ones, as pandas writes columns numbered by default") {
    const Dataset data = csv("0,1,label\n4,2,0\n3,4,1\n");
    CHECK(data.samples == 2);
    CHECK(data.inputs == Values{4, 2, 3, 4});
  }
  SUBCASE("which is not mistaken for data when only one sample is kept") {
    const Dataset data = csv("0,1,label\n4,2,1\n3,4,1\n", std::nullopt, 1);
    CHECK(data.samples == 1);
    CHECK(data.inputs == Values{4, 2});
  }
}

TEST_CASE("CSV: a first line of numbers with a text label is data among text labels") {
  const Dataset data = csv("0,1,ham\n4,2,eggs\n3,4,ham\n");
  CHECK(data.samples == 3);
  CHECK(data.labels == Labels{1, 0, 1});
  CHECK(csv("0,1,ham\n4,2,eggs\n3,4,ham\n", std::nullopt, 2).samples == 2);
}

TEST_CASE("CSV: the label column can be named") {
  const Dataset data = csv("\"digit, \"\"true\"\"\",p0,p1\n1,8,4\n0,2,6\n", "digit, \"true\"");
  CHECK(data.labels == Labels{1, 0});
  CHECK(data.inputs == Values{8, 4, 2, 6});
}

TEST_CASE("CSV: text labels are numbered in sorted order") {
  const Dataset data = csv("1,setosa\n2,virginica\n3,\"versi,color\"\n4,setosa\n");
  CHECK(data.classes == 3);
  CHECK(data.labels == Labels{0, 2, 1, 0});
}

TEST_CASE("CSV: integer labels may be written as floats") {
  CHECK(csv("1,0.0\n2,1e0\n").labels == Labels{0, 1});
}

TEST_CASE("CSV: line ends, blank lines, byte-order mark, spaces and a missing last line end") {
  const Values expected{1, 2, 3, 4};
  CHECK(csv("1,2,0\r\n3,4,1\r\n").inputs == expected);
  CHECK(csv("1,2,0\r3,4,1").inputs == expected);
  CHECK(csv("\xEF\xBB\xBF\n\n1,2,0\n\r\n\n3,4,1\n\n").inputs == expected);
  CHECK(csv(" 1 ,\t2, 0\n3,4 ,1 ").inputs == expected);
  CHECK(csv("\"1\",\"2\",\"0\"\n3,4,1").inputs == expected);
}

TEST_CASE("CSV: a number too small for a double is zero") {
  CHECK(csv("1e-999,0\n2,1\n").inputs == Values{0, 2});
}

TEST_CASE("CSV: rows cross the scanner's blocks unharmed") {
  std::string text;
  for (int i = 0; i < 20000; ++i)
    text += std::to_string(i % 1000) + ",1000," + std::to_string(i % 3) + "\r\n";
  REQUIRE(text.size() > 3 * 65536);
  const Dataset data = csv(text);
  REQUIRE(data.samples == 20000);
  bool same = true;
  for (int i = 0; i < 20000; ++i) {
    const auto row = static_cast<std::size_t>(i);
    same = same && data.inputs[2 * row] == i % 1000 && data.labels[row] == i % 3;
  }
  CHECK(same);
}

TEST_CASE("CSV: samples are limited, and what follows is not looked at") {
  const Dataset data = csv("1,0\n2,1\nbad,2\n", std::nullopt, 2);
  CHECK(data.samples == 2);
  CHECK(data.classes == 2);
}

TEST_CASE("CSV may be compressed") {
  const DataFolder folder;
  const Dataset data = read_data(folder.write_gz("t.csv.gz", "1,2,0\n3,4,1\n"));
  CHECK(data.inputs == Values{1, 2, 3, 4});
  CHECK(data.name == "t.csv.gz");
}

TEST_CASE("CSV: malformed rows are refused with their line") {
  CHECK(csv_error("1,2,0\n\n3,4,5,1\n") ==
        "[load data] t.csv:3: has 4 columns, but line 1 has 3; every row needs the same number (is the file "
        "truncated, or a comma unquoted?)");
  CHECK(csv_error("1,2,0\n3,4,1\n5,") ==
        "[load data] t.csv:3: has 2 columns, but line 1 has 3; every row needs the same number (is the file "
        "truncated, or a comma unquoted?)");
  CHECK(csv_error("1,2,0\n3,x\x1b[31m,1\n") ==
        "[load data] t.csv:2: column 2, 'x?[31m', is not a number; mend or drop the row");
  CHECK(csv_error("1,2,0\n3,0x10,1\n") ==
        "[load data] t.csv:2: column 2, '0x10', is not a number; mend or drop the row");
  CHECK(csv_error("1,2,0\n3,,1\n") ==
        "[load data] t.csv:2: column 2, '', is empty; fill it in or drop the row");
  CHECK(csv_error("1,2,0\r\n3,\"4\"5,1\r\n") ==
        "[load data] t.csv:2: text follows a closing quote; double the quotes that belong to a quoted value");
  CHECK(
      csv_error("1,2,0\n3,4\"5,1\n") ==
      "[load data] t.csv:2: a quote inside an unquoted value; put the whole value in quotes and double those "
      "inside");
  CHECK(csv_error("1,2,0\n3,\"4,1\n5,6,1\n") ==
        "[load data] t.csv:2: a quoted value is not closed before the end of the file; the file is truncated "
        "or a "
        "quote missing");
  CHECK(csv_error("1,2,0\n3,4\0,1\n"s) ==
        "[load data] t.csv:2: contains a zero byte, so it is not CSV text; give a CSV or IDX file");
}

TEST_CASE("CSV: a line inside a quoted value counts") {
  CHECK(csv_error("1,\"a\nb\"\n2,c\nx,c\n") ==
        "[load data] t.csv:4: column 1, 'x', is not a number; mend or drop the row");
}

TEST_CASE("CSV: numbers that are not finite are refused") {
  for (const std::string number : {"nan", "inf", "-INF", "1e999", "-1e999"}) {
    CHECK(csv_error("1,2,0\n3," + number + ",1\n") ==
          "[load data] t.csv:2: column 2, '" + number + "', is not finite; mend or drop the row");
  }
  CHECK(csv_error("nan,2,0\n3,4,1\n") ==
        "[load data] t.csv:1: column 1, 'nan', is not finite; mend or drop the row");
}

TEST_CASE("CSV: files without data are refused") {
  CHECK(csv_error("") == "[load data] t.csv: is empty; expected CSV or IDX data");
  CHECK(csv_error("\n\r\n") == "[load data] t.csv:1: holds no data; expected one sample per line");
  CHECK(csv_error("a,b,label\n") ==
        "[load data] t.csv:1: is a header without data below it; expected one sample per line");
}

TEST_CASE("CSV: one column is refused, and another separator is noticed") {
  CHECK(csv_error("1\n2\n") ==
        "[load data] t.csv:1: has one column, '1'; expected values and a label, separated by commas");
  CHECK(csv_error("1;2;0\n2;3;1\n") ==
        "[load data] t.csv:1: has one column, '1;2;0'; values seem to be separated by semicolons; save the "
        "file "
        "with commas between values and points in numbers");
}

TEST_CASE("CSV: a first line that is neither header nor data is refused") {
  CHECK(csv_error("1,x,0\n2,3,1\n") ==
        "[load data] t.csv:1: column 2, 'x', is not a number, but column 1, '1', is; if the line names the "
        "columns, say --header yes, else mend the value");
}

TEST_CASE("CSV: a wrong name of the label column is refused") {
  CHECK(csv_error("a,b,c\n1,2,0\n", "d") ==
        "[load data] t.csv:1: no column is named 'd'; the header has 'a', 'b', 'c'");
  CHECK(csv_error("1,2,3,4,5,6,7,8,9\n", "label") ==
        "[load data] t.csv:1: no column is named 'label'; the header has '1', '2', '3', '4', '5', '6', '7', "
        "'8', ...");
  CHECK(csv_error("a,b,a\n1,2,0\n", "a") ==
        "[load data] t.csv:1: columns 1 and 3 are both named 'a'; rename one");
}

TEST_CASE("CSV: bad labels are refused") {
  CHECK(csv_error("1,0\n2,-1\n") ==
        "[load data] t.csv:2: the label '-1' is out of range; classes are numbered from 0 to 65535 at most");
  CHECK(
      csv_error("1,0\n2,65536\n") ==
      "[load data] t.csv:2: the label '65536' is out of range; classes are numbered from 0 to 65535 at most");
  CHECK(csv_error("1,0\n2,1.5\n") ==
        "[load data] t.csv:2: the label '1.5' is not an integer; classes are numbered from 0, so check which "
        "column "
        "holds the labels");
  CHECK(csv_error("1,0\n2,nan\n") ==
        "[load data] t.csv:2: the label 'nan' is not an integer; classes are numbered from 0, so check which "
        "column "
        "holds the labels");
  CHECK(csv_error("1,0\n2, \n") == "[load data] t.csv:2: the label is empty; give every row a label");
  CHECK(csv_error("x,y\n1,0\n2,1\n3,one\n") ==
        "[load data] t.csv:4: the label 'one' is text, but that of line 2, '0', is a number; use numbers "
        "only, or "
        "text only");
  CHECK(csv_error("1,0\n2,0\n") ==
        "[load data] t.csv: the first 2 samples all have the same label; a classifier needs two classes, so "
        "give "
        "more data or more samples, or choose the column of the labels");
}

TEST_CASE("CSV: too many columns or an endless row are refused before memory is spent on them") {
  CHECK(csv_error(std::string(2'000'000, ',')) ==
        "[load data] t.csv:1: more than 1048576 columns; is a line end missing?");
  CHECK(csv_error("1,2\n" + std::string(40'000'000, '1')) ==
        "[load data] t.csv:2: the row is longer than 33554432 bytes; is a quote or a line end missing?");
  std::string labels;
  for (int i = 0; i < 65537; ++i) labels += "1,c" + std::to_string(i) + "\n";
  CHECK(csv_error(labels) ==
        "[load data] t.csv:65537: more than 65536 different labels; check which column holds the labels");
}

TEST_CASE("files that cannot be read are refused") {
  const DataFolder folder;
  const auto error = [&](const std::string& path) { return error_of(folder, [&] { read_data(path); }); };
  CHECK(error(folder.path("none.csv")) == "[load data] none.csv: no such file; check the path");
  std::filesystem::create_directory(folder.path("folder"));
  CHECK(error(folder.path("folder")) == "[load data] folder: is a directory; name the CSV or IDX file in it");
  CHECK(error("/dev/null") == "[load data] /dev/null: is not a regular file; save the data to a file first");
  CHECK(error(folder.write("empty.gz", "")) == "[load data] empty.gz: is empty; expected CSV or IDX data");
  const std::string locked = folder.write("locked.csv", "1,0\n2,1\n");
  if (geteuid() != 0) {  // root may read everything
    std::filesystem::permissions(locked, std::filesystem::perms::none);
    CHECK(error(locked) ==
          "[load data] locked.csv: cannot be opened (Permission denied); check its permissions");
  }
}

TEST_CASE("files of other formats are refused by name") {
  const DataFolder folder;
  const auto error = [&](std::string_view bytes) {
    const std::string path = folder.write("t", bytes);
    return error_of(folder, [&] { read_data(path); });
  };
  const std::string rest = "; give CSV or IDX, as it is or compressed by gzip";
  CHECK(error("PK\x03\x04 and more") == "[load data] t: is a zip archive (.zip, .npz or .xlsx)" + rest);
  CHECK(error("\x93NUMPY") == "[load data] t: is a NumPy array (.npy)" + rest);
  CHECK(error("BZh91AY") == "[load data] t: is compressed by bzip2" + rest);
  CHECK(error("\xFD"
              "7zXZ") == "[load data] t: is compressed by xz" + rest);
  CHECK(error("\x28\xB5\x2F\xFD 1") == "[load data] t: is compressed by zstd" + rest);
}

TEST_CASE("damaged compressed files are refused") {
  const DataFolder folder;
  const auto error = [&](const std::string& path) { return error_of(folder, [&] { read_data(path); }); };
  std::string text;
  for (int i = 0; i < 5000; ++i)
    text += std::to_string(i * 7919 % 5003) + "," + std::to_string(i % 10) + "\n";
  const std::string good = content(folder.write_gz("good.csv.gz", text));
  REQUIRE(read_data(folder.path("good.csv.gz")).samples == 5000);

  CHECK(error(folder.write("cut.csv.gz", good.substr(0, good.size() / 2))) ==
        "[load data] cut.csv.gz: the compressed data ends early, at byte " + std::to_string(good.size() / 2) +
            " (gzip member 1, which starts at byte 0); the file is truncated, so fetch it again");
  std::string flipped = good;
  flipped[flipped.size() - 6] = static_cast<char>(~flipped[flipped.size() - 6]);  // in the checksum
  CHECK(error(folder.write("flipped.csv.gz", flipped))
            .find("flipped.csv.gz: the compressed data is damaged near byte ") != std::string::npos);
  CHECK(error(folder.write("plain.csv.gz", text)) ==
        "[load data] plain.csv.gz: is named .gz but holds no gzip data; fetch it again, or rename it if it "
        "is not "
        "compressed");
  CHECK(error(folder.write_gz("nothing.csv.gz", "")) ==
        "[load data] nothing.csv.gz:1: holds no data; expected one sample per line");
}

TEST_CASE("options that do not fit the format are refused") {
  const DataFolder folder;
  const std::string images = folder.write("i", images_bytes);
  const std::string labels = folder.write("l", labels_bytes);
  const std::string text = folder.write("t.csv", "1,0\n2,1\n");
  CHECK(error_of(folder, [&] { read_data(images, {.labels = labels, .label_column = "label"}); }) ==
        "[load data] i: an IDX file has no columns to choose the label from; give its labels file instead");
  CHECK(error_of(folder, [&] { read_data(text, {.labels = labels}); }) ==
        "[load data] t.csv: not an IDX file, so its labels are expected in a column of its own, not in a "
        "labels "
        "file; name the column instead");
  CHECK(error_of(folder, [&] { read_data(text, {.samples = -1}); }) ==
        "[load data] cannot keep -1 samples; ask for 1 or more, or 0 for all");
}

// Damages good files at random: whatever comes out is a valid data set or an Error, nothing else.
TEST_CASE("random damage gives a valid data set or an Error") {
  const DataFolder folder;
  const std::string text = "a,b,label\r\n1,2.5e1,\"x\"\r\n-3,4,y\r\n\r\n5,0,x\r\n";
  folder.write_gz("t.gz", text);
  folder.write_gz("i.gz", images_bytes);
  const std::vector<std::string> good = {text, "1,2,0\n3,4,1\n", images_bytes, content(folder.path("t.gz")),
                                         content(folder.path("i.gz"))};
  const std::string labels = folder.write("labels", labels_bytes);
  std::mt19937 random(20240229);
  const auto below = [&](std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(random);
  };
  const std::string interesting = "\0\1\xFF\",\r\n.-+e09x \x1F\x8B"s;
  int valid = 0;
  int refused = 0;
  for (int round = 0; round < 1500; ++round) {
    std::string bytes = good[below(good.size())];
    const bool is_images = bytes == good[2] || bytes == good[4];
    for (std::size_t change = below(4) + 1; change > 0 && !bytes.empty(); --change) {
      const std::size_t at = below(bytes.size());
      switch (below(4)) {
        case 0:
          bytes[at] = static_cast<char>(below(256));
          break;
        case 1:
          bytes[at] = interesting[below(interesting.size())];
          break;
        case 2:
          bytes.insert(at, 1, interesting[below(interesting.size())]);
          break;
        default:
          bytes.erase(at, below(3) + 1);
      }
    }
    const std::string path = folder.write("damaged", bytes);
    try {
      const Dataset data = read_data(path, {.labels = is_images ? std::optional(labels) : std::nullopt});
      ++valid;
      REQUIRE(data.samples > 0);
      REQUIRE(data.inputs.size() == static_cast<std::size_t>(data.samples * data.features));
      REQUIRE(data.labels.size() == static_cast<std::size_t>(data.samples));
      REQUIRE(std::all_of(data.inputs.begin(), data.inputs.end(), [](double x) { return std::isfinite(x); }));
      REQUIRE(std::all_of(data.labels.begin(), data.labels.end(),
                          [&](std::int64_t label) { return label >= 0 && label < data.classes; }));
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(valid > 50);
  CHECK(refused > 500);
}
