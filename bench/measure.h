// How the programs of this folder measure.
//
// Machines are noisy, so whatever is compared is run in turns within one row (`in_turns`), and a row is the
// median of its repetitions: times, counters and ratios alike. Each program's main is
//
//     int main(int argc, char** argv) { return hypertape::bench::run_all(argc, argv); }
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <hypertape/core/initialize.h>
#include <hypertape/core/parallel.h>

namespace hypertape::bench {

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <class F>
double seconds_of(F&& body) {
  const double start = seconds_now();
  body();
  return seconds_now() - start;
}

inline double median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

using Body = std::function<void()>;

/// Runs `measured` and each of `peers` in turns, at least three and as many as a tenth of a second holds. The
/// row's time is the median of `measured`; the counter of each peer's name becomes the median over turns of
/// measured / peer. Returns the median seconds of `measured`, then of the peers. A body shorter than a clock
/// can time is repeated within its turn. For rows made by `add_row`.
struct Peer {
  std::string name;
  Body body;
};
inline std::vector<double> in_turns(benchmark::State& state, const Body& measured,
                                    const std::vector<Peer>& peers) {
  constexpr double least_turn = 1e-4;
  const auto calls_for = [](const Body& body) {
    body();
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(least_turn / seconds_of(body)));
  };
  const auto time = [](const Body& body, std::int64_t calls) {
    return seconds_of([&] {
             for (std::int64_t i = 0; i < calls; ++i) body();
           }) /
           static_cast<double>(calls);
  };
  const std::int64_t calls = calls_for(measured);
  std::vector<std::int64_t> peer_calls;
  for (const Peer& peer : peers) peer_calls.push_back(calls_for(peer.body));

  std::vector<std::vector<double>> times(peers.size() + 1), ratios(peers.size());
  const double start = seconds_now();
  while (times[0].size() < 3 || seconds_now() - start < 0.1) {
    std::vector<double> seconds;
    for (std::size_t p = 0; p < peers.size(); ++p) seconds.push_back(time(peers[p].body, peer_calls[p]));
    times[0].push_back(time(measured, calls));
    for (std::size_t p = 0; p < peers.size(); ++p) {
      times[p + 1].push_back(seconds[p]);
      ratios[p].push_back(times[0].back() / seconds[p]);
    }
  }
  std::vector<double> medians;
  for (auto& each : times) medians.push_back(median(each));
  for (auto _ : state) state.SetIterationTime(medians[0]);
  for (std::size_t p = 0; p < peers.size(); ++p)
    if (!peers[p].name.empty()) state.counters[peers[p].name] = median(ratios[p]);
  return medians;
}

/// Registers a row that times itself, once per repetition.
template <class F>
benchmark::internal::Benchmark* add_row(const std::string& name, F&& function) {
  return benchmark::RegisterBenchmark(name.c_str(), std::forward<F>(function))
      ->UseManualTime()
      ->Iterations(1);
}

/// Calls register_row(threads) for one thread and, where there are more, for two.
template <class F>
void for_thread_counts(F&& register_row) {
  for (int threads = 1; threads <= std::min(2, available_cpus()); ++threads) register_row(threads);
}

inline std::string thread_text(int threads) { return "threads:" + std::to_string(threads); }

/// Sets the number of threads for one row.
class Threads {
 public:
  explicit Threads(int count) : before_(thread_count()) { set_thread_count(count); }
  ~Threads() { set_thread_count(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

/// Prints one line per row: the median of its repetitions, under the name by which --benchmark_filter finds
/// it.
class MedianReporter : public benchmark::ConsoleReporter {
 public:
  MedianReporter() : ConsoleReporter(OO_None) {}
  void ReportRuns(const std::vector<Run>& runs) override {
    std::vector<Run> kept;
    for (const Run& run : runs) {
      if (!run.error_occurred && run.repetitions > 1 && run.aggregate_name != "median") continue;
      kept.push_back(run);
      Run& row = kept.back();
      row.run_type = Run::RT_Iteration;
      row.run_name.min_time.clear();
      row.run_name.iterations.clear();
      row.run_name.repetitions.clear();
      row.run_name.time_type.clear();
    }
    if (!kept.empty()) ConsoleReporter::ReportRuns(kept);
  }
};

/// Re-selects BLAS's kernels, says what the library runs on, then runs what is registered: five repetitions
/// unless the arguments or a row say otherwise.
inline int run_all(int argc, char** argv) {
  initialize();
  const RuntimeInfo info = runtime_info();
  benchmark::AddCustomContext("cpu", info.cpu_model);
  benchmark::AddCustomContext("kernels", info.isa + "; products: " + info.product_kernels_reason);
  benchmark::AddCustomContext("blas", info.blas_name + ", kernels for " + info.blas_core);

  std::vector<char*> arguments(argv, argv + argc);
  std::string repetitions = "--benchmark_repetitions=5", quiet = "--benchmark_report_aggregates_only=true";
  arguments.insert(arguments.begin() + 1, {repetitions.data(), quiet.data()});
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;
  MedianReporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  benchmark::Shutdown();
  return 0;
}

}  // namespace hypertape::bench
