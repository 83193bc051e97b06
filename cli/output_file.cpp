#include "output_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include <hypertape/core/error.h>
#include "held_signals.h"

namespace hypertape {
namespace {

namespace fs = std::filesystem;

constexpr char operation[] = "output";

[[noreturn]] void fail_writing(const std::string& path, int code) {
  fail(operation, "cannot write ", path, ": ", std::strerror(code));
}

// While a file is written: what would end the process fails by errno, and an interruption waits, so that no
// temporary file is left.
HeldSignals all_held() { return HeldSignals({SIGXFSZ, SIGPIPE, SIGINT, SIGTERM, SIGHUP}); }

// --- Temporary files

// ".hypertape.<16 digits>.tmp": as short whatever the file's own name is.
constexpr std::string_view temporary_prefix = ".hypertape.", temporary_suffix = ".tmp";
constexpr std::size_t temporary_digits = 16;

// Nobody can guess it, and so put a link of that name there.
std::string temporary_name() {
  std::uint64_t number = 0;
  while (::getrandom(&number, sizeof number, 0) != sizeof number)
    if (errno != EINTR) fail(operation, "no random numbers: ", std::strerror(errno));
  char digits[temporary_digits + 1];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(number));
  return std::string(temporary_prefix) + digits + std::string(temporary_suffix);
}

// A new file of an open folder, removed at the end unless it was kept.
class TemporaryFile {
 public:
  TemporaryFile(int folder, mode_t mode) : folder_(folder) {
    do {
      name_ = temporary_name();
      constexpr int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
      file_ = Descriptor(::openat(folder, name_.c_str(), flags, mode));
    } while (!file_.is_open() && errno == EEXIST);
    error_ = file_.is_open() ? 0 : errno;
  }
  ~TemporaryFile() {
    if (error_ == 0 && !kept_) ::unlinkat(folder_, name_.c_str(), 0);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  /// Of making it: 0, or errno.
  int error() const { return error_; }
  int file() const { return file_.get(); }
  int close() { return file_.close(); }
  /// Gives it its name. 0, or errno.
  int rename_to(const std::string& name) {
    if (::renameat(folder_, name_.c_str(), folder_, name.c_str()) != 0) return errno;
    kept_ = true;
    return 0;
  }

 private:
  int folder_;
  std::string name_;
  Descriptor file_;
  int error_ = 0;
  bool kept_ = false;
};

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

bool is_regular(int folder, const std::string& name, struct stat& found) {
  return ::fstatat(folder, name.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(found.st_mode);
}

constexpr mode_t everyone = 0666;  // less the umask
constexpr mode_t owner_alone = 0600;

// Makes a file like another one. What nobody but root may give away stays the writer's; a group that is not
// the old one then gets what all others have.
int make_like(int file, const struct stat& other) {
  mode_t mode = other.st_mode & 07777;
  if (::fchown(file, other.st_uid, other.st_gid) != 0) {
    mode &= 01777;
    if (::fchown(file, static_cast<uid_t>(-1), other.st_gid) != 0)
      mode = (mode & ~mode_t{070}) | (mode & 07) << 3;
  }
  return ::fchmod(file, mode) == 0 ? 0 : errno;
}

// Replaces the file, or makes it. 0, or errno.
int replace(int folder, const std::string& name, std::string_view text) {
  struct stat old;
  const bool exists = is_regular(folder, name, old);
  TemporaryFile temporary(folder, exists ? owner_alone : everyone);
  int error = temporary.error();
  if (error == 0 && exists) error = make_like(temporary.file(), old);
  if (error == 0) error = write_all(temporary.file(), text);
  // So that not even a power failure leaves a part, or a name without content.
  if (error == 0 && ::fsync(temporary.file()) != 0) error = errno;
  if (temporary.error() == 0)
    if (const int close_error = temporary.close(); error == 0) error = close_error;
  if (error == 0) error = temporary.rename_to(name);
  if (error == 0) {
    // A folder that is not readable cannot be synchronised, and a file system that cannot does what it can.
    const Descriptor readable(::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (readable.is_open()) ::fsync(readable.get());
  }
  return error;
}

// Overwrites an open file; a disk that is too full is noticed before anything is lost. 0, or errno.
int overwrite(int file, std::string_view text) {
  struct stat old;
  if (::fstat(file, &old) != 0) return errno;
  const auto size = static_cast<off_t>(text.size());
  if (size > old.st_size && ::fallocate(file, 0, 0, size) != 0 && errno != EOPNOTSUPP) {
    const int error = errno;
    return ::ftruncate(file, old.st_size) == 0 ? error : errno;
  }
  int error = write_all(file, text);
  if (error == 0 && ::ftruncate(file, size) != 0) error = errno;
  if (error == 0 && ::fsync(file) != 0) error = errno;
  return error;
}

// Whether a new file can take the place of an old one and be like it.
bool can_replace(int folder, const struct stat& old) {
  const HeldSignals held = all_held();
  const TemporaryFile trial(folder, owner_alone);
  return trial.error() == 0 && old.st_nlink == 1 && ::fchown(trial.file(), old.st_uid, old.st_gid) == 0;
}

Descriptor open_folder(const fs::path& folder) {
  const char* name = folder.empty() ? "." : folder.c_str();
  return Descriptor(::open(name, O_PATH | O_DIRECTORY | O_CLOEXEC));
}

// --- What a path stands for

// The number of this process's own descriptor that a link such as /proc/self/fd/1 stands for, -1 for that of
// another process, -2 for an ordinary link.
int descriptor_of(const fs::path& link) {
  const fs::path folder = link.has_parent_path() ? link.parent_path() : ".";
  struct statfs system;
  if (::statfs(folder.c_str(), &system) != 0 || system.f_type != PROC_SUPER_MAGIC) return -2;
  std::error_code error;
  const std::string real = fs::canonical(folder, error).string(), text = link.filename().string();
  if (error || fs::path(real).filename() != "fd") return -2;
  int number = -1;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (code != std::errc() || end != text.data() + text.size()) return -2;
  return real.starts_with("/proc/" + std::to_string(::getpid()) + "/") ? number : -1;
}

// An open descriptor of a file that has this name too, or -1: a redirected standard output.
int redirected_to(const struct stat& file) {
  for (const int number : {STDOUT_FILENO, STDERR_FILENO}) {
    struct stat open_file;
    if (::fstat(number, &open_file) == 0 && open_file.st_dev == file.st_dev &&
        open_file.st_ino == file.st_ino && (::fcntl(number, F_GETFL) & O_ACCMODE) != O_RDONLY)
      return number;
  }
  return -1;
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    close();
    number_ = other.release();
  }
  return *this;
}

Descriptor::~Descriptor() { close(); }

int Descriptor::release() noexcept { return std::exchange(number_, -1); }

int Descriptor::close() noexcept {
  if (!is_open()) return 0;
  return ::close(release()) == 0 ? 0 : errno;
}

OutputFile::OutputFile(std::string path) : path_(std::move(path)) {
  if (path_.empty()) fail_writing("\"\"", ENOENT);
  open();
}

void OutputFile::open() {
  // A link may also stand for what does not exist yet. Linux follows as many in a row.
  constexpr int most_links = 40;
  fs::path target = path_;
  std::error_code error;
  for (int links = 0; links < most_links && fs::is_symlink(fs::symlink_status(target, error)); ++links) {
    const int number = descriptor_of(target);
    if (number >= 0) return open_descriptor(number);
    if (number == -1) return open_special(target.string());
    target = target.parent_path() / fs::read_symlink(target, error);
    if (error) fail_writing(path_, error.value());
  }
  struct stat found;
  if (::stat(target.c_str(), &found) != 0) {
    if (errno != ENOENT) fail_writing(path_, errno);
    return open_regular(target.string());
  }
  if (S_ISDIR(found.st_mode)) fail_writing(path_, EISDIR);
  if (const int number = redirected_to(found); number >= 0) return open_descriptor(number);
  if (S_ISREG(found.st_mode)) return open_regular(target.string());
  open_special(target.string());
}

// The descriptor itself, whose place in the file is shared with whoever else writes there.
void OutputFile::open_descriptor(int number) {
  file_ = Descriptor(::fcntl(number, F_DUPFD_CLOEXEC, 0));
  if (!file_.is_open()) fail_writing(path_, errno);
  if ((::fcntl(file_.get(), F_GETFL) & O_ACCMODE) == O_RDONLY) fail_writing(path_, EBADF);
  appends_ = true;
}

// A named pipe waits here for its reader.
void OutputFile::open_special(const std::string& target) {
  do file_ = Descriptor(::open(target.c_str(), O_WRONLY | O_APPEND | O_NOCTTY | O_CLOEXEC));
  while (!file_.is_open() && errno == EINTR);
  if (!file_.is_open()) fail_writing(path_, errno);
  appends_ = true;
}

void OutputFile::open_regular(const std::string& target) {
  const fs::path place(target);
  name_ = place.filename().string();
  folder_ = open_folder(place.parent_path());
  if (!folder_.is_open()) fail_writing(path_, errno);
  if (name_.empty() || name_ == "." || name_ == "..") fail_writing(path_, EISDIR);
  struct stat old;
  if (!is_regular(folder_.get(), name_, old)) {
    if (errno != ENOENT) fail_writing(path_, errno);  // such as a name that is too long
    if (const int error = trial_in(folder_.get()); error != 0) fail_writing(path_, error);
    return;
  }
  file_ = Descriptor(::openat(folder_.get(), name_.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!file_.is_open()) fail_writing(path_, errno);
  if (!can_replace(folder_.get(), old)) folder_ = Descriptor();
}

void OutputFile::write(std::string_view text) {
  const HeldSignals held = all_held();
  int error = EBUSY;  // of replacing
  if (folder_.is_open()) {
    error = replace(folder_.get(), name_, text);
    if (error == 0) return;
    // A file that is mounted in its folder cannot be replaced, and says so only now.
    if (!file_.is_open() || error != EBUSY) fail_writing(path_, error);
  }
  error = appends_ ? write_all(file_.get(), text) : overwrite(file_.get(), text);
  if (const int close_error = file_.close(); error == 0) error = close_error;
  if (error != 0) fail_writing(path_, error);
}

void replace_file(int folder, const std::string& name, std::string_view text, const std::string& path) {
  const HeldSignals held = all_held();
  if (const int error = replace(folder, name, text); error != 0) fail_writing(path, error);
}

int trial_in(int folder) {
  const HeldSignals held = all_held();
  return TemporaryFile(folder, owner_alone).error();
}

bool is_temporary_name(std::string_view name) {
  if (!name.starts_with(temporary_prefix) || !name.ends_with(temporary_suffix) ||
      name.size() != temporary_prefix.size() + temporary_digits + temporary_suffix.size())
    return false;
  name = name.substr(temporary_prefix.size(), temporary_digits);
  return name.find_first_not_of("0123456789abcdef") == name.npos;
}

}  // namespace hypertape
