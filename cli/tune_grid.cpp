#include "tune_grid.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "training_problem.h"

namespace hypertape {
namespace {

// Numbers of rates, momenta and decays.
std::array<std::int64_t, 3> levels_for(std::int64_t runs) {
  std::array<std::int64_t, 3> best = {1, 1, 1};
  std::int64_t most = 1;
  for (std::int64_t decays = 1; decays * decays * decays <= runs; ++decays) {
    for (std::int64_t momenta = decays; momenta <= 2 * decays; ++momenta) {
      const std::int64_t rates = std::min(2 * decays, runs / (decays * momenta));
      if (rates < momenta || rates * momenta * decays <= most) continue;
      best = {rates, momenta, decays};
      most = rates * momenta * decays;
    }
  }
  return best;
}

// `count` numbers from low to high with one ratio between neighbours; their geometric mean if it is one.
std::vector<double> geometric(double low, double high, std::int64_t count) {
  std::vector<double> numbers;
  for (std::int64_t k = 0; k < count; ++k) {
    const double part = count == 1 ? 0.5 : static_cast<double>(k) / static_cast<double>(count - 1);
    numbers.push_back(low * std::pow(high / low, part));
  }
  return numbers;
}

}  // namespace

std::vector<GridRecord> grid_points(std::int64_t runs, const TrainingOptions& options) {
  constexpr double rate_factor = 16.0, decay_factor = 100.0;
  constexpr double towards_one = 10.0, away_from_one = 5.0, least_momentum = 0.1;
  const auto [rates, momenta, decays] = levels_for(runs);
  const double rest = 1.0 - options.momentum;
  std::vector<GridRecord> grid;
  for (const double rate : geometric(options.rate / rate_factor, options.rate * rate_factor, rates))
    for (const double left :
         geometric(rest / towards_one, std::max(rest, std::min(rest * away_from_one, 1.0 - least_momentum)),
                   momenta))
      for (const double decay : geometric(options.l2 / decay_factor, options.l2 * decay_factor, decays))
        grid.push_back({rate, representable_momentum(1.0 - left), decay, std::nullopt});
  return grid;
}

std::optional<std::size_t> best_of(const std::vector<GridRecord>& grid) {
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < grid.size(); ++i)
    if (grid[i].validation_loss && (!best || *grid[i].validation_loss < *grid[*best].validation_loss))
      best = i;
  return best;
}

TrainingOptions options_at(const GridRecord& point, TrainingOptions options) {
  options.rate = point.rate;
  options.momentum = point.momentum;
  options.l2 = point.l2;
  return options;
}

}  // namespace hypertape
