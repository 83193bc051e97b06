// The CSV reader: any text either is refused with an error that says so, or becomes rows of consistent sizes.
#include <cmath>
#include <optional>
#include <string>

#include <hypertape/core/error.h>
#include "csv_reader.h"
#include "fuzzing.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hypertape;
  using fuzzing::require;
  fuzzing::Input input(data, size);
  // First byte: whether the label's column is named, how many samples are wanted, whether there is a header.
  const std::uint8_t choice = input.byte();
  const std::int64_t wanted = choice >> 1 & 7;
  ReadOptions options{.header = static_cast<CsvHeader>((choice >> 4) % 3), .samples = wanted};
  if (choice & 1) options.label_column = "y";
  const std::string_view text = input.rest();
  try {
    MemoryReader file(text, "fuzz.csv");
    const LabelledRows rows = read_csv(file, options);
    const auto count = static_cast<std::int64_t>(rows.labels.size());
    require(count >= 1 && rows.features >= 1, "there is at least one sample of one value");
    require(rows.values.size() == rows.labels.size() * static_cast<std::size_t>(rows.features),
            "values are samples times features");
    require(wanted == 0 || count <= wanted, "no more samples than were asked for");
    // Every value takes a character and a separator.
    require(rows.values.size() <= text.size(), "no more values than the text has characters");
    for (const double value : rows.values) require(std::isfinite(value), "values are finite");
    for (const std::int64_t label : rows.labels)
      require(label >= 0 && label < max_classes, "labels are classes within the limit");
  } catch (const Error& error) {
    require(error.operation() == load_data, "an error names the operation");
    require(std::string_view(error.what()).find("fuzz.csv") != std::string_view::npos,
            "an error names the file");
  }
  return 0;
}
