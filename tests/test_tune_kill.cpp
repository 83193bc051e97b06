// ctest labels: slow
//
// `hypertape tune` killed at any moment and started again ends in the files of a run that was left alone.
#include <doctest/doctest.h>

#include <chrono>
#include <random>
#include <thread>

#include "tune_process.h"
#include "tune_runs.h"

namespace {

namespace fs = std::filesystem;

Words words_for(const std::string& folder) {
  return with(small_tune, {"--outer-steps", "15", "--steps", "20", "--layers", "10,10", "--baseline",
                           "--penalties", "weight", "--output", folder});
}

class Child : public TuneProcess {
 public:
  explicit Child(const fs::path& folder) : TuneProcess("tune as a process", folder) {}
  /// Whether the process was killed rather than done.
  bool kill() { return end(SIGKILL) != 0; }
  /// Whether the process was killed by somebody else.
  bool wait() { return end(0) != 0; }
};

}  // namespace

TEST_CASE("tune as a process" * doctest::skip()) {
  const char* folder = TuneProcess::folder_of_process();
  if (folder == nullptr) return;
  const Outcome outcome = run(words_for(folder));
  INFO(outcome.err);
  CHECK(outcome.code == 0);
}

TEST_CASE("a run killed at a random moment and continued ends in the same files, bit for bit") {
  const TemporaryFolder folder;
  const auto start = std::chrono::steady_clock::now();
  CHECK_FALSE(Child(folder / "whole").wait());
  const std::chrono::duration<double> whole_time = std::chrono::steady_clock::now() - start;
  const auto whole = without_seconds(folder / "whole");
  CHECK(whole.size() == 7);

  constexpr std::uint32_t seed = 20;
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> moment(0.0, 1.0);
  int kills = 0, with_state = 0;
  // A loaded machine may shift the moments; what counts is how many kills hit a run.
  for (int trial = 0; trial < 60 && kills < 24; ++trial) {
    const fs::path path = folder / ("killed" + std::to_string(trial));
    // Every third run is killed again and again until it is done.
    const int most_kills = trial % 3 == 0 ? 100 : 1;
    bool done = false;
    for (int kill = 0; kill < most_kills && !done; ++kill) {
      Child child(path);
      std::this_thread::sleep_for(moment(random) * whole_time);
      done = !child.kill();
      if (done) break;
      ++kills;
      if (fs::exists(path / "state")) ++with_state;
    }
    if (!done) CHECK_FALSE(Child(path).wait());
    INFO("trial ", trial);
    CHECK(without_seconds(path) == whole);
  }
  MESSAGE(kills << " kills, " << with_state << " of them after the first state, of runs of "
                << whole_time.count() << " s");
  CHECK(kills >= 20);
  CHECK(with_state >= 5);
}
