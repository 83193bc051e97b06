#include "outer_adam.h"

#include <cmath>

#include <hypertape/core/error.h>

namespace hypertape {

std::vector<double> OuterAdam::step(std::span<const double> gradient, const OuterAdamOptions& options) {
  constexpr double epsilon = 1e-8;
  if (gradient.size() != first.size())
    fail("outer adam", "the gradient has ", gradient.size(), " elements, the moments have ", first.size());
  ++steps;
  const double correction1 = 1.0 - std::pow(options.beta1, static_cast<double>(steps));
  const double correction2 = 1.0 - std::pow(options.beta2, static_cast<double>(steps));
  std::vector<double> move(gradient.size());
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    first[i] = options.beta1 * first[i] + (1.0 - options.beta1) * gradient[i];
    second[i] = options.beta2 * second[i] + (1.0 - options.beta2) * gradient[i] * gradient[i];
    move[i] = -options.rate * (first[i] / correction1) / (std::sqrt(second[i] / correction2) + epsilon);
  }
  return move;
}

}  // namespace hypertape
