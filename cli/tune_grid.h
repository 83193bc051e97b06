// The baseline of `hypertape tune`: what one would have found with as much work and without derivatives.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "options.h"
#include "tune_state.h"

namespace hypertape {

/// A grid of at most `runs` (and at least one) combinations of constant learning rate, momentum and weight
/// decay around those of `options`, rates changing slowest. On logarithmic scales, evenly:
///
///     rate          from 1/16 to 16 times the option's
///     1 - momentum  from 1/10 to 5 times, but momentum at least 0.1
///     weight decay  from 1/100 to 100 times
///
/// There are as many rates as momenta or more, as many momenta as decays or more, and not more than twice as
/// many rates as decays; among those grids the largest. The records have no losses.
std::vector<GridRecord> grid_points(std::int64_t runs, const TrainingOptions& options);

/// Position of the lowest validation loss, the first of equal ones; absent if every run diverged.
std::optional<std::size_t> best_of(const std::vector<GridRecord>& grid);

/// The options of one run of the grid.
TrainingOptions options_at(const GridRecord& point, TrainingOptions options);

}  // namespace hypertape
