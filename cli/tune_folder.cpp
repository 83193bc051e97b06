#include "tune_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <memory>

#include <hypertape/core/error.h>

namespace hypertape {
namespace {

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
  descriptor_ = Descriptor(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!descriptor_.is_open()) refuse(path_, errno);
  lock();
  const std::vector<std::string> temporaries = leftovers();
  if (const int error = trial_in(descriptor_.get()); error != 0) refuse(path_, error);
  for (const std::string& name : temporaries) ::unlinkat(descriptor_.get(), name.c_str(), 0);
}

void TuneFolder::lock() {
  if (::flock(descriptor_.get(), LOCK_EX | LOCK_NB) == 0) return;
  if (errno == EWOULDBLOCK) fail(operation, "another process is writing to the folder ", path_);
  refuse(path_, errno);
}

std::vector<std::string> TuneFolder::names() const {
  // A descriptor of its own, whose place in the list of names is its own too.
  Descriptor folder(::openat(descriptor_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::unique_ptr<DIR, int (*)(DIR*)> list(folder.is_open() ? ::fdopendir(folder.get()) : nullptr,
                                                 ::closedir);
  if (!list) refuse(path_, errno);
  (void)folder.release();  // the list's now
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(list.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  if (errno != 0) refuse(path_, errno);
  return names;
}

// Checks every name before anything is removed.
std::vector<std::string> TuneFolder::leftovers() const {
  std::vector<std::string> temporaries;
  bool has_state = false;
  std::string result;
  for (const std::string& name : names()) {
    struct stat found;
    const bool regular = ::fstatat(descriptor_.get(), name.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0 &&
                         S_ISREG(found.st_mode);
    if (regular && is_temporary_name(name)) {
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

std::string TuneFolder::path_of(const std::string& name) const {
  return (std::filesystem::path(path_) / name).string();
}

std::optional<std::string> TuneFolder::state() const {
  const auto refuse_reading = [&](int code) {
    fail(operation, "cannot read ", path_of("state"), ": ", std::strerror(code));
  };
  const Descriptor file(::openat(descriptor_.get(), "state", O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!file.is_open()) {
    if (errno == ENOENT) return std::nullopt;
    refuse_reading(errno);
  }
  std::string bytes;
  std::vector<char> part(1 << 16);
  while (true) {
    const ssize_t got = ::read(file.get(), part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse_reading(errno);
    if (got == 0) return bytes;
    bytes.append(part.data(), static_cast<std::size_t>(got));
  }
}

void TuneFolder::write(const std::string& name, std::string_view text) const {
  replace_file(descriptor_.get(), name, text, path_of(name));
}

}  // namespace hypertape
