// The data reader on files: IDX images with their labels, gzip, and the choice of format by content.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include <hypertape/core/error.h>
#include "data.h"
#include "data_limits.h"
#include "fuzzing.h"

namespace {

// A file in memory, with a path.
class MemoryFile {
 public:
  explicit MemoryFile(const char* name) : descriptor_(memfd_create(name, 0)) {
    fuzzing::require(descriptor_ >= 0, "the system has memory files");
  }
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }
  void hold(std::string_view bytes) const {
    const bool written = ftruncate(descriptor_, 0) == 0 && pwrite(descriptor_, bytes.data(), bytes.size(),
                                                                  0) == static_cast<ssize_t>(bytes.size());
    fuzzing::require(written, "memory files can be written");
  }

 private:
  int descriptor_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hypertape;
  using fuzzing::require;
  static const MemoryFile images("images"), labels("labels");
  fuzzing::Input input(data, size);
  // First bytes: samples wanted, and how many of the bytes that follow are the labels' file.
  const std::int64_t wanted = input.up_to(7);
  const std::size_t labels_size = input.byte();
  const std::string_view rest = input.rest();
  labels.hold(rest.substr(0, labels_size));
  images.hold(rest.substr(std::min(labels_size, rest.size())));
  try {
    ReadOptions options{.samples = wanted};
    if (labels_size > 0) options.labels = labels.path();  // CSV is refused them
    const Dataset set = read_data(images.path(), options);
    require(set.samples >= 1 && set.features >= 1, "there is at least one sample of one value");
    require(
        set.inputs.size() == static_cast<std::size_t>(set.samples) * static_cast<std::size_t>(set.features),
        "values are samples times features");
    require(set.labels.size() == static_cast<std::size_t>(set.samples), "there is a label for each sample");
    require(wanted == 0 || set.samples <= wanted, "no more samples than were asked for");
    require(set.classes >= 2 && set.classes <= max_classes, "classes are within the limit");
    for (const std::int64_t label : set.labels)
      require(label >= 0 && label < set.classes, "labels are classes");
    for (const double value : set.inputs) require(std::isfinite(value), "values are finite");
  } catch (const Error& error) {
    require(error.operation() == load_data, "an error names the operation");
    const std::string text = error.what(), name = images.path().substr(images.path().rfind('/') + 1);
    require(text.find("/proc/self/fd/") != std::string::npos ||
                text.find("] " + name + ": ") != std::string::npos,
            "an error names the file");
  }
  return 0;
}
