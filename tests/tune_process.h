// A test case of this program run as a process of its own, which may be killed.
#pragma once

#include <doctest/doctest.h>

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

extern char** environ;

class TuneProcess {
 public:
  /// Runs the skipped test case of that name, which finds `folder` by folder_of_process(). What it writes to
  /// the standard error output goes to the file `errors`, if one is given.
  TuneProcess(const std::string& test_case, const std::filesystem::path& folder,
              const std::filesystem::path& errors = {}) {
    const std::string variable = std::string(folder_variable) + '=' + folder.string();
    std::vector<char*> environment;
    for (char** each = environ; *each != nullptr; ++each) environment.push_back(*each);
    environment.push_back(const_cast<char*>(variable.c_str()));
    environment.push_back(nullptr);
    const std::vector<std::string> words = {"/proc/self/exe", "--no-skip", "--test-case=" + test_case,
                                            "--minimal"};
    std::vector<char*> argv;
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    REQUIRE(posix_spawn_file_actions_init(&actions) == 0);
    if (!errors.empty())
      posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, errors.c_str(), O_WRONLY | O_CREAT, 0600);
    const int error = posix_spawn(&id_, "/proc/self/exe", &actions, nullptr, argv.data(), environment.data());
    posix_spawn_file_actions_destroy(&actions);
    REQUIRE(error == 0);
  }
  ~TuneProcess() {
    if (running_) (void)end(SIGKILL);
  }
  TuneProcess(const TuneProcess&) = delete;
  TuneProcess& operator=(const TuneProcess&) = delete;

  /// In the process: its folder, or null in the tests themselves.
  static const char* folder_of_process() { return std::getenv(folder_variable); }

  /// Sends a signal, if it is not 0, and waits. Returns the signal that ended the process, 0 if it was done.
  int end(int signal) {
    running_ = false;
    if (signal != 0) ::kill(id_, signal);
    int status = 0;
    REQUIRE(::waitpid(id_, &status, 0) == id_);
    if (WIFEXITED(status)) CHECK(WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }
  bool is_running() {
    if (running_ && ::waitpid(id_, nullptr, WNOHANG) == id_) running_ = false;
    return running_;
  }

 private:
  static constexpr const char* folder_variable = "HYPERTAPE_TEST_TUNE_FOLDER";

  pid_t id_ = 0;
  bool running_ = true;
};
