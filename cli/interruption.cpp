#include "interruption.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <iterator>
#include <string_view>
#include <utility>

#include "readable.h"

namespace hypertape {
namespace {

constexpr int signals[] = {SIGINT, SIGTERM, SIGHUP};

// What the handler reads; it changes only while the handler is not installed.
struct Notice {
  int folder = -1;
  std::string name, kept, lost;
} notice;

void write_notice(const std::string& line) {
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, rest.data(), rest.size());
    if (written <= 0) return;
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
}

// Only what a handler may call.
extern "C" void hypertape_on_interruption(int signal) {
  const bool is_kept = ::faccessat(notice.folder, notice.name.c_str(), F_OK, 0) == 0;
  write_notice(is_kept ? notice.kept : notice.lost);
  // The handler is gone (SA_RESETHAND): this one ends the process when it returns.
  ::raise(signal);
}

std::string shell_word(std::string_view word) {
  constexpr std::string_view plain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./,:=@%+";
  if (!word.empty() && word.find_first_not_of(plain) == word.npos) return std::string(word);
  const std::string shown = printable(word);
  const bool escaped = shown != word;  // then by the quotes that know escapes
  std::string quoted = escaped ? "$'" : "'";
  for (const char c : word) {
    if (c == '\'')
      quoted += escaped ? "\\'" : "'\\''";
    else if (!escaped)
      quoted += c;
    else
      quoted += c == '\\' ? "\\\\" : printable({&c, 1});
  }
  return quoted + '\'';
}

}  // namespace

InterruptionNotice::InterruptionNotice(int folder, std::string name, std::string kept, std::string lost) {
  // The line of progress above stays.
  const std::string start = ::isatty(STDERR_FILENO) == 1 ? "\n" : "";
  notice = {folder, std::move(name), start + kept + '\n', start + lost + '\n'};
  struct sigaction action {};
  action.sa_handler = hypertape_on_interruption;
  action.sa_flags = SA_RESETHAND;
  sigemptyset(&action.sa_mask);
  for (std::size_t i = 0; i < std::size(signals); ++i) {
    ::sigaction(signals[i], nullptr, &before_[i]);
    if (before_[i].sa_handler != SIG_IGN) ::sigaction(signals[i], &action, nullptr);
  }
}

InterruptionNotice::~InterruptionNotice() {
  for (std::size_t i = 0; i < std::size(signals); ++i) ::sigaction(signals[i], &before_[i], nullptr);
}

std::string shell_line(int argc, const char* const* argv) {
  std::string line;
  for (int i = 0; i < argc; ++i) line += (i > 0 ? " " : "") + shell_word(argv[i]);
  return line;
}

}  // namespace hypertape
