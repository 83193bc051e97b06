// Why a hyperparameter has no hypergradient by a method: told from the graph.
#pragma once

#include <vector>

#include "method.h"

namespace hypertape::bilevel::detail {

/// `through_run[i]`: whether the method's pullback gave hyperparameter i a gradient; `direct[i]`: whether the
/// outer loss reads it. `parameters` is where the inner loss is looked at.
std::vector<Availability> availability_of(const Problem& problem, const NamedTensors& h, const Method& method,
                                          const std::shared_ptr<Counters>& counters,
                                          const NamedTensors& parameters,
                                          const std::vector<bool>& through_run,
                                          const std::vector<bool>& direct);

}  // namespace hypertape::bilevel::detail
