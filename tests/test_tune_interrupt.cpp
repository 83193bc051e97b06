// `hypertape tune` interrupted: what it says, and what it leaves.
#include <doctest/doctest.h>

#include <unistd.h>

#include <csignal>
#include <thread>

#include "interruption.h"
#include "tune_folder.h"
#include "tune_process.h"
#include "tune_runs.h"

namespace {

namespace fs = std::filesystem;

Words endless(const std::string& folder) {
  return with(small_tune, {"--outer-steps", "1000000", "--output", folder});
}

}  // namespace

TEST_CASE("tune without end" * doctest::skip()) {
  if (const char* folder = TuneProcess::folder_of_process()) (void)run(endless(folder));
}

TEST_CASE("an interruption ends a run with the place of its state and the command to go on with") {
  const TemporaryFolder folder;
  for (const int signal : {SIGINT, SIGTERM}) {
    const std::string number = std::to_string(signal);
    const fs::path output = folder / ("it's " + number), errors = folder / ("errors" + number);
    TuneProcess process("tune without end", output, errors);
    while (process.is_running() && !fs::exists(output / "state"))
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    CHECK(process.end(signal) == signal);
    const std::string path = (folder / "it").string();
    CHECK(content(errors) == "hypertape: interrupted; all that was finished is in " + path + "'s " + number +
                                 "/state; to go on: hypertape tune --layers 6 --steps 8 --batch 20 --samples "
                                 "130 --outer-steps 6 --threads 1 --outer-steps 1000000 --output '" +
                                 path + "'\\''s " + number + "'\n");
    // Nothing half written, and a state to go on from.
    const auto files = contents_of(output);
    CHECK(files.size() == 1);
    CHECK(hypertape::read_state(files.at("state"), "s").outer_steps() >= 1);
  }
}

TEST_CASE("raise a signal with a notice" * doctest::skip()) {
  const char* path = TuneProcess::folder_of_process();
  if (path == nullptr) return;
  std::signal(SIGHUP, SIG_IGN);
  const hypertape::TuneFolder folder(path);
  const hypertape::InterruptionNotice notice(folder.descriptor(), "state", "kept", "lost");
  std::raise(SIGHUP);  // ignored before, and so now
  std::raise(SIGTERM);
}

TEST_CASE("a notice says whether there is a state, and leaves ignored signals alone") {
  const TemporaryFolder folder;
  fs::create_directory(folder / "new");
  fs::create_directory(folder / "old");
  set_content(folder / "old" / "state", "x");
  CHECK(TuneProcess("raise a signal with a notice", folder / "new", folder / "e1").end(0) == SIGTERM);
  CHECK(TuneProcess("raise a signal with a notice", folder / "old", folder / "e2").end(0) == SIGTERM);
  CHECK(content(folder / "e1") == "lost\n");
  CHECK(content(folder / "e2") == "kept\n");
}

TEST_CASE("after a notice, signals do what they did before") {
  static int caught;
  caught = 0;
  const auto before = std::signal(SIGTERM, [](int) { ++caught; });
  { const hypertape::InterruptionNotice notice(-1, "", "", ""); }
  std::raise(SIGTERM);
  CHECK(caught == 1);
  std::signal(SIGTERM, before);
}

TEST_CASE("a command line is quoted as a shell reads it") {
  const auto line = [](const Words& words) {
    std::vector<const char*> argv;
    for (const std::string& word : words) argv.push_back(word.c_str());
    return hypertape::shell_line(static_cast<int>(argv.size()), argv.data());
  };
  CHECK(line({"build/bin/hypertape", "tune", "--layers", "5,6", "--rate=0.1"}) ==
        "build/bin/hypertape tune --layers 5,6 --rate=0.1");
  CHECK(line({"a", "", "b c", "$HOME", "it's", "*", "gr\u00fcn"}) ==
        "a '' 'b c' '$HOME' 'it'\\''s' '*' 'gr\u00fcn'");
  CHECK(line({"a\nb'\\", "\xff", "\u00fc\xff"}) == "$'a\\x0ab\\'\\\\' $'\\xff' $'\\xc3\\xbc\\xff'");
}
