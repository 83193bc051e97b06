// What methods will need, for `compare`: bilevel's planner, or nothing where there is no plan to be made.
#pragma once

#include <exception>
#include <optional>
#include <string>

#include <hypertape/bilevel/plan.h>
#include "compared_problem.h"

namespace hypertape {

class MemoryForecast {
 public:
  /// Predicts nothing.
  MemoryForecast() = default;
  /// Predicts nothing either if the problem's first steps already diverge; failure() says so.
  explicit MemoryForecast(const ComparedProblem& problem);

  /// Absent if nothing is predicted, or the method refuses the problem.
  template <class MethodSettings>
  std::optional<bilevel::Prediction> operator()(const MethodSettings& method) const {
    if (!planner_) return std::nullopt;
    try {
      return planner_->predict(method);
    } catch (const std::exception&) {
      return std::nullopt;
    }
  }
  std::optional<bilevel::Plan> plan(const bilevel::PlanOptions& options);
  /// Why there is no plan; empty if there is one, or none is wanted.
  const std::string& failure() const noexcept { return failure_; }

 private:
  // Predictions measure what they need when they are first asked for.
  mutable std::optional<bilevel::Planner> planner_;
  std::string failure_;
};

}  // namespace hypertape
