// The first line of a CSV file: header or sample, what is said about it, and other layouts that are named.
#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

#include "data.h"
#include "data_files.h"

namespace {

using hypertape::CsvHeader;
using hypertape::Dataset;
using hypertape::read_data;
using hypertape::ReadOptions;
using Values = std::vector<double>;
using Labels = std::vector<std::int64_t>;
using Notes = std::vector<std::string>;

Dataset csv(std::string_view text, const ReadOptions& options = {}) {
  const DataFolder folder;
  return read_data(folder.write("t.csv", text), options);
}

std::string csv_error(std::string_view text, const ReadOptions& options = {}) {
  const DataFolder folder;
  const std::string path = folder.write("t.csv", text);
  return error_of(folder, [&] { read_data(path, options); });
}

constexpr char counted[] =
    "line 1 counts its columns, so it was taken for a header; if it is a sample, say --header no";
constexpr char apart[] =
    "line 1 was taken for a header, because its label is not one of those below; if it is a sample, say "
    "--header no";
constexpr char sample[] = "line 1 was taken for a sample; if it names the columns, say --header yes";
constexpr char no_index[] =
    "column 1 has no name, as the index that pandas and R write, so it was left out; to keep it, name it";

}  // namespace

TEST_CASE("a header that counts its columns, as pandas names them, is no sample") {
  const Dataset data = csv("0,1,2,3\n7,8,9,0\n4,5,6,3\n");
  CHECK(data.inputs == Values{7, 8, 9, 4, 5, 6});
  CHECK(data.labels == Labels{0, 3});
  CHECK(data.notes == Notes{counted});
  CHECK(csv("1,2,3,4\n7,8,9,0\n4,5,6,3\n").samples == 2);
  // Text labels under it, or a name beside it.
  CHECK(csv("0,1,2,3,4\n7,8,9,1,a\n4,5,6,1,b\n", {.header = CsvHeader::yes}).samples == 2);
  const Dataset named = csv("0,1,2,3,species\n7,8,9,1,a\n4,5,6,1,b\n");
  CHECK(named.labels == Labels{0, 1});
  CHECK(named.notes == Notes{counted});
  // Not counting: data.
  CHECK(csv("0,1,2,4\n7,8,9,0\n4,5,6,3\n").samples == 3);
  CHECK(csv("0,1,2.0,3\n7,8,9,0\n4,5,6,3\n").samples == 3);
}

TEST_CASE("names that are any increasing numbers are told by a label that is none of those below") {
  const Dataset data = csv("3,17,64\n7,8,0\n4,5,1\n");
  CHECK(data.inputs == Values{7, 8, 4, 5});
  CHECK(data.labels == Labels{0, 1});
  CHECK(data.classes == 2);
  CHECK(data.notes == Notes{apart});
  // A sample more takes its place.
  CHECK(csv("3,17,64\n7,8,0\n4,5,1\n9,9,2\n8,8,1\n", {.samples = 3}).labels == Labels{0, 1, 2});
  // No empty class below its label: a sample.
  CHECK(csv("3,17,2\n7,8,0\n4,5,1\n").samples == 3);
  CHECK(csv("1,2,3\n7,8,0\n4,5,2\n").samples == 3);
  // Not increasing, as names would be.
  CHECK(csv("17,3,64\n7,8,0\n4,5,1\n").samples == 3);
  const Dataset text = csv("3,17,species\n7,8,b\n4,5,a\n6,7,a\n1,2,b\n");
  CHECK(text.labels == Labels{1, 0, 0, 1});
  CHECK(text.classes == 2);
  CHECK(text.inputs == Values{7, 8, 4, 5, 6, 7, 1, 2});
  CHECK(text.notes == Notes{apart});
  CHECK(csv("3,17,a\n7,8,b\n4,5,c\n6,7,a\n").samples == 4);
}

TEST_CASE("where a first line could be either, the data say which was taken") {
  CHECK(csv("0,1,2\n7,8,0\n4,5,1\n").notes == Notes{sample});
  CHECK(csv("0,1,2\n7,8,0\n4,5,1\n").samples == 3);
  CHECK(csv("7,8,0\n4,5,1\n").notes.empty());
}

TEST_CASE("--header decides against appearances") {
  const Dataset yes = csv("7.5,8,0\n4,5,1\n6,7,0\n", {.header = CsvHeader::yes});
  CHECK(yes.inputs == Values{4, 5, 6, 7});
  CHECK(yes.notes.empty());
  const Dataset no = csv("0,1,2,3\n7,8,9,0\n4,5,6,3\n", {.header = CsvHeader::no});
  CHECK(no.samples == 3);
  CHECK(no.notes.empty());
  CHECK(csv("a,1,c\n7,8,0\n4,5,1\n", {.header = CsvHeader::yes}).samples == 2);
  CHECK(csv_error("a,b,c\n7,8,0\n4,5,1\n", {.header = CsvHeader::no}) ==
        "[load data] t.csv:1: column 1, 'a', is not a number; mend or drop the row");
  CHECK(
      csv_error("a,b,c\n7,8,0\n", {.label_column = "c", .header = CsvHeader::no}) ==
      "[load data] t.csv: a column's name is given for the labels, so the first line must name the columns; "
      "leave --header no out");
  const DataFolder folder;
  const std::string images = folder.write("i", images_bytes), labels = folder.write("l", labels_bytes);
  CHECK(error_of(folder, [&] { read_data(images, {.labels = labels, .header = CsvHeader::no}); }) ==
        "[load data] i: an IDX file has no line that names columns; leave --header out");
}

TEST_CASE("an index that pandas or R wrote is left out, and this is said") {
  const Values expected{7, 8, 4, 5};
  for (const std::string text :
       {",a,b,label\n0,7,8,0\n1,4,5,1\n", "Unnamed: 0,a,b,label\n5,7,8,0\n3,4,5,1\n",
        "\"\",\"a\",\"b\",\"label\"\n\"1\",7,8,0\n\"2\",4,5,1\n", " ,a,b,label\nx,7,8,0\ny,4,5,1\n"}) {
    CAPTURE(text);
    const Dataset data = csv(text);
    CHECK(data.features == 2);
    CHECK(data.inputs == expected);
    CHECK(data.labels == Labels{0, 1});
    CHECK(data.notes == Notes{no_index});
    CHECK(csv(text, {.header = CsvHeader::yes}).inputs == expected);
    CHECK(csv(text, {.label_column = "a"}).features == 2);
  }
  const Dataset numbers = csv(",0,1,2\n5,7,8,0\n6,4,5,1\n");
  CHECK(numbers.inputs == expected);
  CHECK(numbers.notes == Notes{counted, no_index});
  // A column in the middle, or one with a name, is data.
  CHECK(csv("index,a,label\n0,7,0\n1,4,1\n").features == 2);
  CHECK(csv("a,,label\n0,7,0\n1,4,1\n").features == 2);
  // A value that is missing in the first sample does not make it a header.
  CHECK(csv_error(",8,0\n4,5,1\n") ==
        "[load data] t.csv:1: column 1, '', is not a number, but column 2, '8', is; if the line names the "
        "columns, "
        "say --header yes, else mend the value");
  CHECK(csv_error(",label\n0,0\n1,1\n") ==
        "[load data] t.csv:1: the only column beside the labels has no name, as an index has; name it");
  CHECK(csv_error("a,b,label\n1,7,8,0\n2,4,5,1\n") ==
        "[load data] t.csv:2: has one column more than the header, as R writes row names; write the file "
        "without "
        "row names, or give them a column name");
}

TEST_CASE("lines of blanks are no rows, wherever they stand") {
  CHECK(csv(" \n1,2,0\n\t \n3,4,1\n   ").inputs == Values{1, 2, 3, 4});
  CHECK(csv("1,2,0\n3,4,1\n \r\n").samples == 2);
  CHECK(
      csv_error("1,2,0\n3,4,1\n,,\n") ==
      "[load data] t.csv:3: holds nothing but commas, as spreadsheets write for empty rows; delete the line");
  CHECK(
      csv_error("1,2,0\n3,4,1\n,\n") ==
      "[load data] t.csv:3: holds nothing but commas, as spreadsheets write for empty rows; delete the line");
  CHECK(csv_error("1,2,0,\n3,4,1,\n") ==
        "[load data] t.csv:1: the label is empty; give every row a label, or delete the comma at the end of "
        "every "
        "line");
}

TEST_CASE("another separator and decimal commas are named as the cause") {
  const std::string with_commas =
      "values seem to be separated by semicolons, with commas as decimal points; save the file with commas "
      "between "
      "values and points in numbers";
  CHECK(csv_error("1,5;2,5;0\n2,5;3,5;1\n") == "[load data] t.csv:1: " + with_commas);
  CHECK(csv_error("1,5;0\n2,5;1\n") == "[load data] t.csv:1: " + with_commas);
  CHECK(csv_error("a,b\n1,5;0\n2,5;1\n") == "[load data] t.csv:2: " + with_commas);
  CHECK(csv_error("1,5\t0\n2,5\t1\n") ==
        "[load data] t.csv:1: values seem to be separated by tabs, with commas as decimal points; save the "
        "file with "
        "commas between values and points in numbers");
  CHECK(csv_error("a;b;label\n1,5;2,5;0\n") ==
        "[load data] t.csv:1: has one column, 'a;b;label'; values seem to be separated by semicolons; save "
        "the file "
        "with commas between values and points in numbers");
  CHECK(csv_error("1,2,0\n1;2;3,0\n") == "[load data] t.csv:2: " + with_commas);
  // A text label may hold what it likes.
  CHECK(csv("1,a;b\n2,c\n").labels == Labels{0, 1});
}
