// What is compared along random directions: forward mode, and the check of the reference itself by Ridders
// extrapolation of real training runs. Each group gets directions of its own, standard normal.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <hypertape/bilevel/hypergradient.h>
#include "compare.h"
#include "compared_problem.h"

namespace hypertape {

/// How much is spent on directions: less where training runs are long.
struct DirectionalPlan {
  std::int64_t directions;  ///< of each group
  int ridders_steps;        ///< at most; two training runs each
  double ridders_runs;      ///< about how many training runs one direction costs
  double forward_runs = 2.5;
};
DirectionalPlan directional_plan(const ComparedProblem& problem);

class DirectionalRows {
 public:
  /// `reference` is that of `reference_problem`: `problem` itself, or the same numbers in float64. Where it
  /// has no gradients there is none to compare with. All arguments must outlive the object.
  DirectionalRows(const ComparedProblem& reference_problem, const ComparedProblem& problem,
                  const bilevel::Hypergradient& reference, std::uint64_t seed, Progress& progress);

  struct Result {
    std::vector<ComparisonRow> rows;
    std::string failure;  ///< why a row has no number though the reference has; empty if there is none
  };
  /// The relative error is the reference's, the worst of the directions. Training that diverges along a
  /// direction fails nothing but the row.
  Result ridders() const;
  /// The relative error is forward mode's, the worst of the directions.
  Result forward() const;

 private:
  // One derivative along a direction.
  struct Measured {
    double derivative = 0.0;
    double error = 0.0;       ///< its own estimate, absolute
    std::string status = {};  ///< empty, or why there is no derivative
    bool has_failed = false;
  };
  using Method = std::function<Measured(const NamedTensors& direction, bilevel::Cost& cost)>;

  Result rows(ComparisonRow common, const Method& method, bool judges_reference) const;
  // What the method cannot do is a status.
  Measured attempt(const Method& method, const NamedTensors& direction, bilevel::Cost& cost) const;
  // Held in float64, rounded to the problem's dtype.
  NamedTensors direction(std::size_t group, std::int64_t number) const;
  std::string directions_text() const;

  const ComparedProblem &reference_problem_, &problem_;
  const bilevel::Hypergradient& reference_;
  Progress& progress_;
  std::uint64_t seed_;
  DirectionalPlan plan_;
};

/// Copies what a method cost, but for training_runs.
void set_cost(ComparisonRow& row, const bilevel::Cost& cost);

/// Leaves `target` absent if the value is infinite or NaN.
void set_finite(std::optional<double>& target, double value);

}  // namespace hypertape
