// The methods that `compare` runs, with their settings and what they need.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <hypertape/bilevel/hypergradient.h>
#include "compared_problem.h"
#include "memory_forecast.h"
#include "options.h"

namespace hypertape {

/// One method with its settings, but for those along directions (directional_rows.h).
struct ComparedMethod {
  bilevel::Estimator estimator;
  std::string setting = {};
  std::optional<bilevel::Prediction> prediction = {};
  double bytes = 0.0;        ///< estimate of what it needs at its peak; 0 if there is none
  bool is_exact = true;      ///< for the run; others are timed fewer times
  std::string refusal = {};  ///< a status: why it does not apply; empty if it does

  /// About how many plain training runs one takes.
  static constexpr double typical_runs = 4.0;

  std::string label() const { return estimator.name() + (setting.empty() ? "" : ", " + setting); }
};

ComparedMethod unrolled(const MemoryForecast& forecast);
/// At the square root of the steps.
ComparedMethod checkpointed(const MemoryForecast& forecast, std::int64_t steps);

/// What is to run.
struct Selection {
  explicit Selection(const CompareOptions& options);
  bool has(std::string_view name) const;

  std::vector<std::string> names;
  bool every_setting = true;  ///< of series and truncated runs, instead of one
  bool is_small = false;      ///< a problem with a closed form
};

/// Those selected, in the order of method_names, up to forward and after it.
std::vector<ComparedMethod> reverse_methods(const Selection& selection, const ComparedProblem& problem,
                                            const MemoryForecast& forecast);
std::vector<ComparedMethod> approximate_methods(const Selection& selection, const ComparedProblem& problem,
                                                const MemoryForecast& forecast);

/// That of a failure: "diverged at step 3", "not replayed (...)".
std::string status_of(bilevel::ResultStatus failure, std::int64_t step, const std::string& message);

/// A result's status for one group as text: "exact", "converged", "chaotic (adjoint grew 300 times)",
/// "unstable series (...)", "diverged at step 3", "not defined", ...
std::string status_of(const bilevel::Hypergradient& result);
std::string status_of(const bilevel::Hypergradient& result, std::size_t group);

}  // namespace hypertape
