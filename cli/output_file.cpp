#include "output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "hypertape/core/error.h"

namespace hypertape {
namespace {

namespace fs = std::filesystem;

constexpr char operation[] = "output";

[[noreturn]] void fail_writing(const std::string& path, int code) {
  fail(operation, "cannot write ", path, ": ", std::strerror(code));
}

// What the path stands for once symbolic links are followed.
fs::path target_of(const std::string& path) {
  std::error_code error;
  fs::path target = fs::absolute(path, error);
  // Also a link to what does not exist yet; as many in a row as Linux follows.
  for (int links = 0; links < 40 && fs::is_symlink(target, error); ++links)
    target = target.parent_path() / fs::read_symlink(target, error);
  return target;
}

bool is_special(const fs::path& target) {
  std::error_code ignored;
  const fs::file_status status = fs::status(target, ignored);
  return fs::exists(status) && !fs::is_regular_file(status);
}

// What a file is called until it is whole: ".name.<process>.tmp".
constexpr char temporary_suffix[] = ".tmp";

// So that not even a power failure leaves a part, or a name without content. A file system that cannot does
// what it can.
void make_durable(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

// 0, or errno.
int write_all(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(file, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return 0;
}

void write_to(const std::string& path, const fs::path& target, int flags, std::string_view text) {
  constexpr mode_t everyone = 0666;  // less the umask
  const int file = ::open(target.c_str(), O_WRONLY | O_CLOEXEC | flags, everyone);
  if (file < 0) fail_writing(path, errno);
  int error = write_all(file, text);
  const bool is_new = (flags & O_CREAT) != 0;
  if (error == 0 && is_new && ::fsync(file) != 0) error = errno;
  const int close_error = ::close(file) == 0 ? 0 : errno;
  if (error != 0 || close_error != 0) fail_writing(path, error != 0 ? error : close_error);
}

}  // namespace

void require_writable(const std::string& path) {
  const fs::path target = target_of(path);
  std::error_code ignored;
  if (path.empty() || fs::is_directory(target, ignored)) fail_writing(path, path.empty() ? ENOENT : EISDIR);
  const fs::path changed = is_special(target) ? target : target.parent_path();
  if (::access(changed.c_str(), W_OK) != 0) fail_writing(path, errno);
}

void write_file(const std::string& path, std::string_view text) {
  const fs::path target = target_of(path);
  if (is_special(target)) return write_to(path, target, 0, text);
  const fs::path temporary = target.parent_path() / ("." + target.filename().string() + "." +
                                                     std::to_string(::getpid()) + temporary_suffix);
  try {
    write_to(path, temporary, O_CREAT | O_TRUNC, text);
    if (std::rename(temporary.c_str(), target.c_str()) != 0) fail_writing(path, errno);
    make_durable(target.parent_path());
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

bool is_temporary_of(std::string_view name, std::span<const char* const> names) {
  const std::string_view suffix = temporary_suffix;
  if (!name.starts_with('.') || !name.ends_with(suffix)) return false;
  name = name.substr(1, name.size() - 1 - suffix.size());
  const std::size_t dot = name.rfind('.');
  if (dot == name.npos || dot + 1 == name.size() ||
      name.find_first_not_of("0123456789", dot + 1) != name.npos)
    return false;
  return std::find(names.begin(), names.end(), name.substr(0, dot)) != names.end();
}

}  // namespace hypertape
