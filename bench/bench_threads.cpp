// What a second thread brings: inside one training step, and to two callers that train independently.
//
//   speed_up    step/...: one step on one thread / on two
//               callers/...: two callers' steps per second / one caller's, the library's threads as they are
//               by default
//   possible    the same ratio for multiply-adds on registers alone, measured in turns with it: hardware
//   threads that
//               share a core, or a virtual machine's, add little
//   of_possible speed_up / possible
#include <thread>
#include <vector>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/optim/step.h>
#include "fma_peak.h"
#include "measure.h"
#include "nets.h"

namespace hypertape::bench {
namespace {

struct Case {
  Net net;
  nn::Activation activation;
  std::int64_t batch;
  Dtype dtype;
};

// SGD with momentum on one batch, a state of its own for each caller.
class Training {
 public:
  explicit Training(const Case& c)
      : data_(synthetic_data(c.net, c.batch, c.dtype)),
        mlp_(c.net.sizes, c.activation),
        weights_(mlp_.init({5}, c.dtype)),
        step_(optim::sgd({.rate = 0.01, .momentum = 0.9})) {
    state_.parameters = weights_.tensors();
    state_.buffers = step_.initial_buffers(state_.parameters);
  }

  void steps(int count) {
    for (int i = 0; i < count; ++i) {
      const auto loss = [&](const TensorList& w) {
        return softmax_cross_entropy(mlp_(weights_.with(w), data_.rows), data_.labels);
      };
      auto [value, gradients] = value_and_grad(loss, state_.parameters);
      state_ = step_.update(state_, gradients, {});
    }
  }

 private:
  Data data_;
  nn::Mlp mlp_;
  NamedTensors weights_;
  optim::Step step_;
  optim::State state_;
};

// measured: twice the work of `once` on two threads, or the same work as `once` if `same_work`.
void report(benchmark::State& state, const Body& measured, const Body& once, bool same_work) {
  const std::vector<double> seconds =
      in_turns(state, measured, {{"", once}, {"", [] { run_peak(2); }}, {"", [] { run_peak(1); }}});
  const double speed_up = (same_work ? 1.0 : 2.0) * seconds[1] / seconds[0];
  const double possible = 2.0 * seconds[3] / seconds[2];
  state.counters["speed_up"] = speed_up;
  state.counters["possible"] = possible;
  state.counters["of_possible"] = speed_up / possible;
}

void one_step(benchmark::State& state, const Case& c) {
  Training training(c);
  const auto on = [&](int threads) {
    return [&, threads] {
      const Threads set(threads);
      training.steps(1);
    };
  };
  report(state, on(2), on(1), true);
}

void two_callers(benchmark::State& state, const Case& c) {
  // So many that starting a thread does not count.
  const int count = c.batch * c.net.sizes[1] > 50'000 ? 2 : 40;
  std::vector<Training> training(2, Training(c));
  const auto callers = [&](std::size_t k) {
    return [&, k] {
      std::vector<std::thread> threads;
      for (std::size_t i = 0; i < k; ++i) threads.emplace_back([&, i] { training[i].steps(count); });
      for (std::thread& thread : threads) thread.join();
    };
  };
  report(state, callers(2), callers(1), false);
}

void register_rows() {
  if (available_cpus() < 2) return;
  const Net large{"784-1024-1024-10", {784, 1024, 1024, 10}};
  for (const Dtype dtype : {Dtype::float32, Dtype::float64})
    for (const bool small : {true, false}) {
      const Case c = small ? Case{nets()[0], nn::Activation::tanh, batch_rows, dtype}
                           : Case{large, nn::Activation::relu, 128, dtype};
      const std::string name = c.net.name + (dtype == Dtype::float32 ? "/float32" : "/float64");
      add_row("step/" + name + "/threads:2", [c](benchmark::State& state) {
        one_step(state, c);
      })->Unit(benchmark::kMicrosecond);
      add_row("callers/" + name + "/callers:2", [c](benchmark::State& state) {
        two_callers(state, c);
      })->Unit(benchmark::kMicrosecond);
    }
}

}  // namespace
}  // namespace hypertape::bench

int main(int argc, char** argv) {
  hypertape::bench::register_rows();
  return hypertape::bench::run_all(argc, argv);
}
