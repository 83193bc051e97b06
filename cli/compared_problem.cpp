#include "compared_problem.h"

#include <cmath>

namespace hypertape {

ComparedProblem compared(const TrainingProblem& training, const TrainingOptions& options) {
  constexpr double passes = 3.0;  // one forward, two backward
  ComparedProblem result;
  result.problem = training.problem;
  result.outer = training.validation_loss;
  result.hyperparameters = training.hyperparameters;
  result.parameters = training.net.parameter_count();
  result.multiply_adds = passes * static_cast<double>(result.parameters) *
                         static_cast<double>(options.batch) * static_cast<double>(options.steps);
  result.has_kinks =
      training.net.activation() == nn::Activation::relu || options.optimizer == Optimizer::adam;
  result.series_rate = options.rate;
  result.series_momentum = options.momentum;
  if (!training.problem.step.reversible)
    result.no_inverse =
        std::string(optimizer_names[static_cast<std::size_t>(options.optimizer)]) + " has no exact inverse";
  return result;
}

ComparedProblem compared(const ClosedProblem& closed) {
  ComparedProblem result;
  result.problem = closed.problem;
  result.outer = closed.outer;
  result.hyperparameters = closed.hyperparameters;
  result.parameters = static_cast<std::int64_t>(closed.exact.parameters.size());
  result.series_rate = closed.rate;
  // The heavy ball's critical damping at the smallest curvature.
  const double least = closed.exact.least_curvature / closed.exact.most_curvature;
  result.series_momentum = std::pow(1.0 - std::sqrt(least), 2);
  result.no_inverse = "there is no momentum to undo";
  return result;
}

}  // namespace hypertape
