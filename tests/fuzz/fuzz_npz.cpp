// Readers of NumPy's formats and of learned hyperparameters: whatever is read has the sizes that it says, and
// is read back the same after it was written.
#include <cmath>
#include <string>
#include <variant>

#include <hypertape/core/error.h>
#include "fuzzing.h"
#include "hyperparameters_file.h"
#include "npz_file.h"

namespace {

using namespace hypertape;
using fuzzing::require;

void check(const NpyArray& array) {
  std::int64_t count = 1;
  for (const std::int64_t extent : array.shape) {
    require(extent >= 0, "extents are not negative");
    count *= extent;
  }
  const std::size_t held = std::visit([](const auto& values) { return values.size(); }, array.values);
  require(held == static_cast<std::size_t>(count), "there are as many values as the shape says");
  const std::string bytes = npy_bytes(array);
  require(npy_bytes(read_npy(bytes, "again")) == bytes, "an array that was read can be written and read");
}

void read_archive(std::string_view bytes) {
  const NamedArrays arrays = read_npz(bytes, "fuzz.npz");
  for (const auto& [name, array] : arrays) check(array);
}

void read_learned(std::string_view bytes) {
  const NamedTensors groups = read_hyperparameters(bytes, "fuzz.json");
  for (const Tensor& group : groups.tensors())
    for (const double value : group.to_vector<double>()) require(std::isfinite(value), "values are finite");
  const std::string again = hyperparameters_json(groups, nlohmann::ordered_json::object());
  require(read_hyperparameters(again, "again").names() == groups.names(),
          "what was read can be written and read");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzzing::Input input(data, size);
  const std::int64_t kind = input.up_to(3);
  const std::string_view bytes = input.rest();
  try {
    if (kind == 0) read_archive(bytes);
    if (kind == 1) check(read_npy(bytes, "fuzz.npy"));
    if (kind == 2) read_learned(bytes);
    // An archive whose checksums are right, so that its content is what is looked at.
    if (kind == 3) {
      const NpyArray content{{static_cast<std::int64_t>(bytes.size())},
                             std::vector<std::uint8_t>(bytes.begin(), bytes.end())};
      const std::string archive = npz_bytes({{"a", content}});
      read_archive(archive);
      read_learned(archive);
    }
  } catch (const Error& error) {
    require(error.operation().starts_with("read "), "an error names the operation");
  }
  return 0;
}
