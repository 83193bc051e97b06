// Hypergradients of whole training runs, in plain training runs.
//
//   training_runs    median over turns of method / plain training run, the two run alternately
//   floor            what the multiply-adds alone allow (docs/performance.md)
//   of_floor         training_runs / floor; the target is 1.3
//   peak_MB          the library's memory above its level at the start
//   ms_per_step, bytes_per_step   whether long runs stay linear: bytes beyond those of 100 steps, per step
//   more
#include <cmath>
#include <optional>

#include <hypertape/core/memory.h>
#include "core/backend/digit_buffer.h"
#include "measure.h"
#include "nets.h"

namespace hypertape::bench {
namespace {

using bilevel::Estimator;

struct Method {
  std::string name;
  Estimator estimator;
  double floor;
};

std::vector<Method> methods(const Net& net) {
  const auto [f, r] = work_of(net);
  const double unrolled = 1 + (2 * f + 6 * r) / (2 * f + 3 * r);
  const double dual = 1 + (4 * f + 9 * r) / (2 * f + 3 * r);
  return {{"unrolled", bilevel::Unrolled{}, unrolled},
          {"checkpointed", bilevel::Checkpointed{}, unrolled + 1},
          {"trajectory", bilevel::Trajectory{}, dual},
          {"reversible", bilevel::Reversible{}, dual}};
}

bilevel::Hypergradient run(const TrainingProblem& p, const Estimator& estimator) {
  return bilevel::hypergradient(p.problem, p.outer, p.h, estimator);
}

std::int64_t peak_of_training(const TrainingProblem& p) {
  const PeakScope scope;
  bilevel::train(p.problem, p.h);
  return scope.peak_bytes();
}

void train(benchmark::State& state, const Net& net, std::int64_t steps, int threads) {
  const Threads set(threads);
  const TrainingProblem p = training_problem(net, steps);
  in_turns(state, [&] { bilevel::train(p.problem, p.h); }, {});
  state.counters["peak_MB"] = static_cast<double>(peak_of_training(p)) / 1e6;
}

void method(benchmark::State& state, const Net& net, std::int64_t steps, const Method& method, int threads) {
  const Threads set(threads);
  const TrainingProblem p = training_problem(net, steps);
  bilevel::Hypergradient result;
  in_turns(state, [&] { result = run(p, method.estimator); },
           {{"training_runs", [&] { bilevel::train(p.problem, p.h); }}});
  if (bilevel::is_failure(result.status)) state.SkipWithError(result.message.c_str());
  state.counters["floor"] = method.floor;
  state.counters["of_floor"] = state.counters["training_runs"].value / method.floor;
  state.counters["peak_MB"] = static_cast<double>(result.cost.peak_bytes) / 1e6;
}

// Bytes of the digit planes of a whole run.
double plane_bytes(const Net& net, std::int64_t steps) {
  const std::uint32_t numerator = hypertape::detail::momentum_numerator(executed_momentum);
  hypertape::detail::DigitSchedule schedule;
  for (std::int64_t t = 0; t < steps; ++t) {
    if (schedule.must_flush()) schedule.flush();
    schedule.advance(numerator);
  }
  const auto weights = static_cast<double>(nn::Mlp(net.sizes, nn::Activation::tanh).parameter_count());
  return static_cast<double>(schedule.planes()) * weights * hypertape::detail::plane_bits / 8;
}

// Long runs: `estimator` absent is plain training.
void long_run(benchmark::State& state, const Net& net, std::int64_t steps, std::optional<Estimator> estimator,
              int threads) {
  const Threads set(threads);
  constexpr std::int64_t short_steps = 100;
  const auto peak = [&](const TrainingProblem& p) {
    return static_cast<double>(estimator ? run(p, *estimator).cost.peak_bytes : peak_of_training(p));
  };
  const TrainingProblem p = training_problem(net, steps), brief = training_problem(net, short_steps);
  const double brief_peak = peak(brief);
  double whole_peak = 0.0;
  std::vector<double> ratios, times;
  for (auto _ : state) {
    const double before = seconds_of([&] { peak(brief); });
    const double seconds = seconds_of([&] { whole_peak = peak(p); });
    const double after = seconds_of([&] { peak(brief); });
    state.SetIterationTime(seconds);
    times.push_back(seconds);
    ratios.push_back(seconds / static_cast<double>(steps) / ((before + after) / 2 / short_steps));
  }
  state.counters["ms_per_step"] = 1e3 * median(times) / static_cast<double>(steps);
  state.counters["of_short"] = median(ratios);
  state.counters["peak_MB"] = whole_peak / 1e6;
  state.counters["peak_100_MB"] = brief_peak / 1e6;
  state.counters["bytes_per_step"] = (whole_peak - brief_peak) / static_cast<double>(steps - short_steps);
  if (estimator) {
    // The most the target allows: 1.2 times the short run, the planes, and each step's rates and momentum
    // with their gradients.
    const auto per_step = static_cast<double>(net.sizes.size());
    const double planes = plane_bytes(net, steps);
    state.counters["planes_MB"] = planes / 1e6;
    state.counters["allowed_MB"] =
        (1.2 * brief_peak + planes + 2 * 8 * per_step * static_cast<double>(steps)) / 1e6;
  }
}

void register_rows() {
  const auto row = [](const std::string& name, auto&& function) {
    return add_row(name, function)->Unit(benchmark::kMillisecond);
  };
  for (const Net& net : nets()) {
    for_thread_counts([&](int threads) {
      const std::string end = "/" + thread_text(threads);
      row(net.name + "/T:100/train" + end,
          [&net, threads](benchmark::State& state) { train(state, net, 100, threads); });
      for (const Method& each : methods(net))
        row(net.name + "/T:100/" + each.name + end,
            [&net, each, threads](benchmark::State& state) { method(state, net, 100, each, threads); });
    });
    const int threads = std::min(2, available_cpus());
    for (const std::int64_t steps : {1000, 10000}) {
      const auto long_row = [&](const std::string& name, std::optional<Estimator> estimator) {
        row(net.name + "/T:" + std::to_string(steps) + "/" + name + "/" + thread_text(threads),
            [&net, steps, estimator, threads](benchmark::State& state) {
              long_run(state, net, steps, estimator, threads);
            })
            ->Repetitions(steps > 1000 ? 1 : 3);
      };
      long_row("train", {});
      long_row("reversible", Estimator(bilevel::Reversible{}));
    }
  }
}

}  // namespace
}  // namespace hypertape::bench

int main(int argc, char** argv) {
  hypertape::bench::register_rows();
  return hypertape::bench::run_all(argc, argv);
}
