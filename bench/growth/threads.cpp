// Threads of the library, and threads of its caller.
#include <exception>
#include <thread>

#include <hypertape/core/parallel.h>
#include "curves.h"
#include "step.h"

namespace hypertape::growth {
namespace {

TrainingStep large_step() {
  return TrainingStep(NetLoss({784, 1024, 1024, 10}, nn::Activation::relu, 128, Dtype::float32));
}
TrainingStep small_step() {
  return TrainingStep(NetLoss({784, 50, 50, 50, 10}, nn::Activation::tanh, 200, Dtype::float32));
}

std::vector<std::int64_t> up_to_cpus() {
  std::vector<std::int64_t> counts;
  for (std::int64_t count = 1; count < available_cpus(); count *= 2) counts.push_back(count);
  counts.push_back(available_cpus());
  return counts;
}

Curve over_threads(const std::string& name, const std::string& work, TrainingStep (*step)(), double time) {
  return {"threads/" + name,
          "threads of the library",
          work,
          up_to_cpus(),
          available_cpus(),
          time,
          {},
          [step](std::int64_t count) -> Work {
            set_thread_count(static_cast<int>(count));
            return {step(), static_cast<double>(count)};
          }};
}

// Each of `count` threads of the caller trains a net of its own; the time is that of one step of one of them.
Curve over_callers(const std::string& name, const std::string& work, TrainingStep (*step)(), int steps,
                   bool one_thread_each) {
  return {"callers/" + name,
          "threads of the caller",
          work,
          up_to_cpus(),
          available_cpus(),
          0.0,
          {},
          [=](std::int64_t count) -> Work {
            set_thread_count(one_thread_each ? 1 : available_cpus());
            std::vector<TrainingStep> nets;
            for (std::int64_t i = 0; i < count; ++i) nets.push_back(step());
            const auto call = [=] {
              std::vector<std::exception_ptr> errors(nets.size());
              std::vector<std::thread> callers;
              for (std::size_t i = 0; i < nets.size(); ++i)
                callers.emplace_back([&, i] {
                  try {
                    for (int k = 0; k < steps; ++k) nets[i]();
                  } catch (...) {
                    errors[i] = std::current_exception();
                  }
                });
              for (std::thread& caller : callers) caller.join();
              for (const std::exception_ptr& error : errors)
                if (error) std::rethrow_exception(error);
            };
            return {call, static_cast<double>(count), static_cast<double>(steps)};
          }};
}

}  // namespace

std::vector<Curve> curves_of_threads() {
  const std::string large = "training step of 784-1024-1024-10 relu, 128 rows, float32";
  const std::string small = "training step of 784-50-50-50-10 tanh, 200 rows, float32";
  const std::string own = ", a net for each caller, the library on ";
  return {over_threads("large_step", large, large_step, -1.0),
          over_threads("small_step", small, small_step, 0.0),
          over_callers("large_step", large + own + "1 thread", large_step, 4, true),
          over_callers("small_step", small + own + "1 thread", small_step, 100, true),
          over_callers("small_step_all_threads", small + own + "all", small_step, 100, false)};
}

}  // namespace hypertape::growth
