// The state of `hypertape tune`: any bytes, and any record inside a file whose checksums are right, are
// refused with an error or give a state that is written and read back the same.
#include <string>

#include <hypertape/core/error.h>
#include "fuzzing.h"
#include "npz_file.h"
#include "tune_state.h"

namespace {

using namespace hypertape;
using fuzzing::require;

// A small state's archive with another record.
std::string archive_with(std::string_view record) {
  static const NamedArrays arrays = [] {
    TuneState state({0.5, -1.0, 2.0});
    state.settings = nlohmann::ordered_json::object();
    const std::string bytes = state_bytes(state);
    return read_npz(std::string_view(bytes).substr(bytes.find('\n') + 1), "template");
  }();
  NamedArrays changed = arrays;
  for (auto& [name, array] : changed)
    if (name == "record")
      array = {{static_cast<std::int64_t>(record.size())},
               std::vector<std::uint8_t>(record.begin(), record.end())};
  return npz_bytes(changed);
}

std::string with_header(std::string_view archive) {
  return "hypertape tune state 1, " + std::to_string(archive.size()) + " bytes, checksum " +
         checksum(archive) + "\n" + std::string(archive);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzzing::Input input(data, size);
  const std::int64_t kind = input.up_to(2);
  const std::string_view rest = input.rest();
  const std::string bytes = kind == 0   ? std::string(rest)
                            : kind == 1 ? with_header(rest)
                                        : with_header(archive_with(rest));
  try {
    const TuneState state = read_state(bytes, "fuzz.state");
    const std::size_t count = state.next.size();
    require(state.accepted.empty() || state.accepted.size() == count, "vectors have one length");
    require(state.best.empty() || state.best.size() == count, "vectors have one length");
    const std::string written = state_bytes(state);
    require(state_bytes(read_state(written, "again")) == written,
            "a state that was read can be written and read");
  } catch (const Error& error) {
    require(error.operation().starts_with("read "), "an error names the operation");
  }
  return 0;
}
