#include "memory_forecast.h"

#include <new>

namespace hypertape {
namespace {

std::string text_of(const std::exception& error) {
  return dynamic_cast<const std::bad_alloc*>(&error) != nullptr ? "out of memory" : error.what();
}

}  // namespace

MemoryForecast::MemoryForecast(const ComparedProblem& problem) {
  bilevel::Problem quiet = problem.problem;
  quiet.on_step = {};
  try {
    planner_.emplace(quiet, problem.outer, problem.hyperparameters);
    planner_->predict(bilevel::Unrolled{});
  } catch (const std::exception& error) {
    planner_.reset();
    failure_ = text_of(error);
  }
}

std::optional<bilevel::Plan> MemoryForecast::plan(const bilevel::PlanOptions& options) {
  if (!planner_) return std::nullopt;
  try {
    return planner_->plan(options);
  } catch (const std::exception& error) {
    failure_ = text_of(error);
    return std::nullopt;
  }
}

}  // namespace hypertape
