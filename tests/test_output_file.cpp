// Where the program's results go: checked before the work, whole or not at all, and like what was there.
#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <thread>

#include "file_size_limit.h"
#include "held_signals.h"
#include "output_file.h"
#include "program_run.h"
#include "readable.h"
#include "temporary_folder.h"

namespace {

namespace fs = std::filesystem;
using hypertape::Descriptor;
using hypertape::OutputFile;

const Words tiny = {"compare", "--layers",  "4",  "--steps",   "3",       "--batch",
                    "10",      "--samples", "60", "--format",  "csv",     "--groups",
                    "momenta", "--threads", "1",  "--methods", "unrolled"};

Outcome compare_to(const fs::path& path) { return run(with(tiny, {"--output", path.string()})); }

void write(const fs::path& path, const std::string& text) { OutputFile(path.string()).write(text); }

struct stat status_of(const fs::path& path) {
  struct stat found {};
  REQUIRE(::lstat(path.c_str(), &found) == 0);
  return found;
}

mode_t mode_of(const fs::path& path) { return status_of(path).st_mode & 07777; }

std::string path_of(const Descriptor& descriptor) { return "/dev/fd/" + std::to_string(descriptor.get()); }

Descriptor opened(const fs::path& path, int flags) {
  Descriptor file(::open(path.c_str(), flags | O_CLOEXEC, 0600));
  REQUIRE(file.is_open());
  return file;
}

int caught = 0;

}  // namespace

TEST_CASE("an output file is written whole and replaces what was there") {
  const TemporaryFolder folder;
  const fs::path path = folder / "result.csv";
  set_content(path, "old");
  const Outcome outcome = compare_to(path);
  CHECK(outcome.code == 0);
  CHECK(outcome.out.empty());
  CHECK(content(path).starts_with("method,"));
  CHECK(folder.files() == 1);  // nothing left over
}

TEST_CASE("an output that cannot be written is refused before the data are read, and nothing is changed") {
  const TemporaryFolder folder;
  set_content(folder / "file", "x");
  fs::create_directory(folder / "folder");
  fs::create_symlink("b", folder / "a");
  fs::create_symlink("a", folder / "b");
  fs::create_symlink("missing/file", folder / "nowhere");
  const Descriptor read_only = opened(folder / "file", O_RDONLY);
  const std::vector<std::pair<std::string, std::string>> cases = {
      {(folder / "file" / "x").string(), "Not a directory"},
      {(folder / "file").string() + '/', "Not a directory"},
      {(folder / "missing" / "x").string(), "No such file or directory"},
      {(folder / "missing").string() + '/', "No such file or directory"},
      {(folder / "nowhere").string(), "No such file or directory"},
      {(folder / "folder").string(), "Is a directory"},
      {(folder / "folder" / "..").string(), "Is a directory"},
      {(folder / "a").string(), "Too many levels of symbolic links"},
      {(folder / std::string(256, 'x')).string(), "File name too long"},
      {"/proc/x", "No such file or directory"},
      {"/", "Is a directory"},
      {"", "cannot write \"\": No such file"},
      {"/dev/fd/987654", "No such file or directory"},
      {path_of(read_only), "Bad file descriptor"}};
  for (const auto& [path, message] : cases) {
    // Were the data read first, their error would come.
    const Outcome outcome = run(with(tiny, {"--data", "/nonexistent.csv", "--output", path}));
    check_error(outcome, 1, message);
    CHECK(contains(outcome.err, "[output] cannot write "));
  }
  CHECK(folder.files() == 5);
  CHECK(content(folder / "file") == "x");
  if (::geteuid() != 0) {
    fs::permissions(folder / "folder", fs::perms::owner_read | fs::perms::owner_exec);
    check_error(compare_to(folder / "folder" / "x"), 1, "Permission denied");
  }
}

TEST_CASE("an output's name may be as long as the system allows") {
  const TemporaryFolder folder;
  const std::string longest(255, 'x');
  write(folder / longest, "text");
  CHECK(content(folder / longest) == "text");
  CHECK(folder.files() == 1);
}

TEST_CASE("an output file keeps its mode and owner, a new one has those of any new file") {
  const TemporaryFolder folder;
  set_content(folder / "file", "old");
  const mode_t ordinary = mode_of(folder / "file");
  for (const mode_t mode : {0600, 0640, 0755, 0666}) {
    REQUIRE(::chmod((folder / "file").c_str(), mode) == 0);
    if (::geteuid() == 0) REQUIRE(::chown((folder / "file").c_str(), 1234, 4321) == 0);
    const struct stat before = status_of(folder / "file");
    write(folder / "file", "new");
    CHECK(mode_of(folder / "file") == mode);
    CHECK(status_of(folder / "file").st_uid == before.st_uid);
    CHECK(status_of(folder / "file").st_gid == before.st_gid);
    CHECK(status_of(folder / "file").st_ino != before.st_ino);
    CHECK(content(folder / "file") == "new");
  }
  write(folder / "new", "new");
  CHECK(mode_of(folder / "new") == ordinary);
}

TEST_CASE("a file with other names is overwritten, so that all of them show the result") {
  const TemporaryFolder folder;
  set_content(folder / "file", "what is longer than the new text");
  fs::create_hard_link(folder / "file", folder / "other");
  write(folder / "file", "text");
  CHECK(content(folder / "other") == "text");
  write(folder / "other", "a longer text");
  CHECK(content(folder / "file") == "a longer text");
  CHECK(folder.files() == 2);
}

TEST_CASE("an output file that is a symbolic link stays one") {
  const TemporaryFolder folder;
  fs::create_symlink("target", folder / "link");
  for (const char* text : {"text", "again"}) {
    write(folder / "link", text);
    CHECK(fs::is_symlink(folder / "link"));
    CHECK_FALSE(fs::is_symlink(folder / "target"));
    CHECK(content(folder / "target") == text);
  }
}

TEST_CASE("an output that is a device or a named pipe is written to, not replaced") {
  write("/dev/null", "text");
  CHECK(fs::is_character_file("/dev/null"));
  const TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  std::string received;
  std::thread reader([&] { received = content(folder / "pipe"); });
  write(folder / "pipe", "text");
  reader.join();
  CHECK(received == "text");
  CHECK(fs::is_fifo(folder / "pipe"));
  CHECK(folder.files() == 1);
}

TEST_CASE("an output that is an open descriptor gets the result where it stands") {
  const TemporaryFolder folder;
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const Descriptor read_end(ends[0]);
  {
    const Descriptor write_end(ends[1]);
    write(path_of(write_end), "text");
  }
  char received[10];
  CHECK(::read(read_end.get(), received, sizeof received) == 4);
  CHECK(std::string(received, 4) == "text");

  // As after `(echo before; hypertape ... --output /dev/stdout; echo after) > file`.
  const Descriptor file = opened(folder / "file", O_RDWR | O_CREAT);
  const auto before = status_of(folder / "file").st_ino;
  REQUIRE(::write(file.get(), "before ", 7) == 7);
  for (const std::string& name : {path_of(file), "/proc/self/fd/" + std::to_string(file.get())})
    write(name, "text ");
  REQUIRE(::write(file.get(), "after", 5) == 5);
  CHECK(content(folder / "file") == "before text text after");
  CHECK(status_of(folder / "file").st_ino == before);
  CHECK(folder.files() == 1);
}

TEST_CASE("a file that the standard output was redirected to is not replaced under its own name either") {
  const TemporaryFolder folder;
  const Descriptor file = opened(folder / "log", O_WRONLY | O_CREAT);
  REQUIRE(::write(file.get(), "before ", 7) == 7);
  std::fflush(stdout);
  const Descriptor standard(::dup(STDOUT_FILENO));
  REQUIRE(::dup2(file.get(), STDOUT_FILENO) >= 0);
  const std::string message = thrown([&] { write(folder / "log", "text "); });
  REQUIRE(::dup2(standard.get(), STDOUT_FILENO) >= 0);
  CHECK(message == "nothing thrown");
  REQUIRE(::write(file.get(), "after", 5) == 5);
  CHECK(content(folder / "log") == "before text after");
}

TEST_CASE("nobody can tell the name of a temporary file in advance") {
  const TemporaryFolder folder;
  const Descriptor events(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  REQUIRE(::inotify_add_watch(events.get(), (folder / "").c_str(), IN_CREATE) >= 0);
  for (int i = 0; i < 3; ++i) write(folder / "file", "text");
  alignas(inotify_event) char buffer[4096];
  const ssize_t size = ::read(events.get(), buffer, sizeof buffer);
  std::vector<std::string> names;
  for (ssize_t at = 0; at < size;) {
    const auto& event = reinterpret_cast<const inotify_event&>(buffer[at]);
    names.emplace_back(event.name);
    at += static_cast<ssize_t>(sizeof event + event.len);
  }
  CHECK(names.size() >= 3);
  std::sort(names.begin(), names.end());
  CHECK(std::adjacent_find(names.begin(), names.end()) == names.end());
  for (const std::string& name : names) CHECK_MESSAGE(hypertape::is_temporary_name(name), name);
}

TEST_CASE(
    "a full disk or a limit loses neither the result nor what was there, and leaves no temporary file") {
  const TemporaryFolder folder;
  set_content(folder / "file", "old");
  set_content(folder / "linked", "old");
  fs::create_hard_link(folder / "linked", folder / "other");
  for (const fs::path& path : {folder / "file", folder / "linked", folder / "new", fs::path("/dev/full")}) {
    const Outcome outcome = [&] {
      const FileSizeLimit limit(path == "/dev/full" ? RLIM_INFINITY : 20);
      return compare_to(path);
    }();
    INFO(path, ": ", outcome.err);
    CHECK(outcome.code == 1);
    CHECK(contains(outcome.err, "cannot write " + path.string() +
                                    (path == "/dev/full" ? ": No space left" : ": File too large")));
    CHECK(contains(outcome.err, "; the result is on the standard output instead\n"));
    CHECK(outcome.out.starts_with("method,"));
  }
  CHECK(contents_of(folder / "") ==
        std::map<std::string, std::string>{{"file", "old"}, {"linked", "old"}, {"other", "old"}});
}

TEST_CASE("a pipe that nobody reads any more is an error, not the end of the process") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const Descriptor write_end(ends[1]);
  ::close(ends[0]);
  expect_text(thrown([&] { write(path_of(write_end), "text"); }), "Broken pipe");
}

TEST_CASE("a held signal comes afterwards, but for one that a write caused") {
  const auto count = [](int) { ++caught; };
  const auto interrupt = std::signal(SIGINT, count), pipe = std::signal(SIGPIPE, count);
  caught = 0;
  {
    const hypertape::HeldSignals held({SIGINT, SIGPIPE});
    // Whichever thread the system chooses.
    std::thread([] { std::raise(SIGINT); }).join();
    std::raise(SIGPIPE);
    CHECK(caught == 0);
  }
  CHECK(caught == 1);
  std::raise(SIGPIPE);
  CHECK(caught == 2);
  std::signal(SIGINT, interrupt);
  std::signal(SIGPIPE, pipe);
}

TEST_CASE("names are printed as UTF-8 on one line") {
  using hypertape::printable;
  for (const char* text : {"", "plain ~", "gr\u00fc\u00df \u20ac \U0001f600", "\u00a0\uffff\U0010ffff"})
    CHECK(printable(text) == text);
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"a\nb\x7f\x1b[2J", "a\\x0ab\\x7f\\x1b[2J"},
      {"\xff\xc3", "\\xff\\xc3"},
      {"\xc3(", "\\xc3("},
      {"\xc0\xaf", "\\xc0\\xaf"},                    // "/", too long
      {"\xe0\x80\xaf", "\\xe0\\x80\\xaf"},           // likewise
      {"\xed\xa0\x80", "\\xed\\xa0\\x80"},           // half of a surrogate pair
      {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},  // beyond Unicode
      {"\xc2\x9b", "\\xc2\\x9b"},                    // a control character of terminals
      {std::string("a\0b", 3), "a\\x00b"}};
  for (const auto& [bytes, text] : cases) CHECK(printable(bytes) == text);
}
