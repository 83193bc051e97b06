#include "tune_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "hypertape/core/error.h"
#include "output_file.h"

namespace hypertape {
namespace {

namespace fs = std::filesystem;

constexpr char operation[] = "output";

bool is_ours(const std::string& name) {
  return std::find(std::begin(tune_file_names), std::end(tune_file_names), name) != std::end(tune_file_names);
}

[[noreturn]] void refuse(const std::string& path, int code) {
  fail(operation, "cannot write to the folder ", path, ": ", std::strerror(code));
}

}  // namespace

TuneFolder::TuneFolder(std::string path) : path_(std::move(path)) {
  constexpr mode_t everyone = 0777;  // less the umask
  if (::mkdir(path_.c_str(), everyone) != 0 && errno != EEXIST) refuse(path_, errno);
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor_ < 0) refuse(path_, errno);
  try {
    lock();
    if (::faccessat(descriptor_, ".", W_OK | X_OK, 0) != 0) refuse(path_, errno);
    for (const std::string& name : leftovers()) ::unlink(path_of(name).c_str());
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

TuneFolder::~TuneFolder() { ::close(descriptor_); }

void TuneFolder::lock() {
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
  if (errno == EWOULDBLOCK) fail(operation, "another process is writing to the folder ", path_);
  refuse(path_, errno);
}

// Checks every name before anything is removed.
std::vector<std::string> TuneFolder::leftovers() const {
  std::vector<std::string> temporaries;
  bool has_state = false;
  std::string result;
  for (const fs::directory_entry& entry : fs::directory_iterator(path_)) {
    const std::string name = entry.path().filename().string();
    std::error_code ignored;
    const bool regular = entry.symlink_status(ignored).type() == fs::file_type::regular;
    if (regular && is_temporary_of(name, tune_file_names)) {
      temporaries.push_back(name);
    } else if (regular && is_ours(name)) {
      has_state = has_state || name == "state";
      if (name != "state") result = name;
    } else {
      fail(operation, "the folder ", path_, " holds ", name,
           ", which is not of a run of tune; give a new or empty folder");
    }
  }
  if (!result.empty() && !has_state)
    fail(operation, "the folder ", path_, " holds ", result,
         " but no state to go on from; give a new or empty folder");
  return temporaries;
}

std::string TuneFolder::path_of(const std::string& name) const { return (fs::path(path_) / name).string(); }

std::optional<std::string> TuneFolder::state() const {
  const std::string path = path_of("state");
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    if (errno == ENOENT) return std::nullopt;
    fail(operation, "cannot read ", path, ": ", std::strerror(errno));
  }
  std::string bytes(std::istreambuf_iterator<char>(file), {});
  if (file.bad()) fail(operation, "cannot read ", path);
  return bytes;
}

void TuneFolder::write(const std::string& name, std::string_view text) const {
  write_file(path_of(name), text);
}

}  // namespace hypertape
