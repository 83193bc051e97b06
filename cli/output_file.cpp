#include "output_file.h"

#include <fcntl.h>
#include <unistd.h>

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
  const int error = write_all(file, text);
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
  const fs::path temporary =
      target.parent_path() / ("." + target.filename().string() + "." + std::to_string(::getpid()) + ".tmp");
  try {
    write_to(path, temporary, O_CREAT | O_TRUNC, text);
    if (std::rename(temporary.c_str(), target.c_str()) != 0) fail_writing(path, errno);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

}  // namespace hypertape
