#include "memory_forecast.h"

namespace hypertape {

MemoryForecast::MemoryForecast(const ComparedProblem& problem) {
  bilevel::Problem quiet = problem.problem;
  quiet.on_step = {};
  try {
    planner_.emplace(quiet, problem.outer, problem.hyperparameters);
    planner_->predict(bilevel::Unrolled{});
  } catch (const Error& error) {
    planner_.reset();
    failure_ = error.what();
  }
}

std::optional<bilevel::Plan> MemoryForecast::plan(const bilevel::PlanOptions& options) {
  if (!planner_) return std::nullopt;
  try {
    return planner_->plan(options);
  } catch (const Error& error) {
    failure_ = error.what();
    return std::nullopt;
  }
}

}  // namespace hypertape
