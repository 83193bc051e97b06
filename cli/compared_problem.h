// What `compare` differentiates, whether it trains a net or has a closed form.
#pragma once

#include <cstdint>
#include <memory>

#include <hypertape/bilevel/problem.h>
#include "closed_problems.h"
#include "training_problem.h"

namespace hypertape {

struct ComparedProblem {
  bilevel::Problem problem;
  bilevel::OuterLoss outer;
  NamedTensors hyperparameters;
  std::int64_t parameters = 0;
  double multiply_adds = 0.0;  ///< of one training run, about
  /// Whether finite differences must stay close: rectifiers have kinks, and Adam's move bends sharply where a
  /// gradient changes sign.
  bool has_kinks = false;
  /// For the series and one-step methods: the rate and the momentum of their own iteration.
  double series_rate = 0.0, series_momentum = 0.0;
  /// Why training cannot be undone exactly; empty if it can.
  std::string no_inverse;
};

ComparedProblem compared(const TrainingProblem& training, const TrainingOptions& options);
ComparedProblem compared(const ClosedProblem& closed);

}  // namespace hypertape
