// Why a hyperparameter has no hypergradient by a method: told from the graph.
#pragma once

#include <vector>

#include "bilevel/run/method.h"

namespace hypertape::bilevel::detail {

/// What a method's pullback and the outer loss's gradient came to.
struct Found {
  NamedTensors parameters;        ///< where the inner loss is looked at
  std::vector<bool> through_run;  ///< hyperparameters that the pullback gave a gradient
  std::vector<bool> direct;       ///< those that the outer loss reads
  bool reads_parameters;          ///< whether the outer loss reads any parameter
  /// Of prepared hyperparameters, in steps that were not recorded (Counters::first_read).
  std::vector<std::int64_t> first_read;
};

std::vector<Availability> availability_of(const Problem& problem, const NamedTensors& h, const Method& method,
                                          const Found& found);

}  // namespace hypertape::bilevel::detail
