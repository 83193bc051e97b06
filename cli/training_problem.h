// Training a multilayer perceptron as a bilevel problem.
//
//   inner   softmax cross entropy of a minibatch + sum over weights of exp(log_l2) w^2 / 2, by SGD with
//           momentum, Nesterov's, or Adam
//   outer   softmax cross entropy of the validation samples
//
// Hyperparameters, in four groups, each possibly held constant:
//
//   log_rates        (steps, layers)   learning rate = exp
//   momenta          (steps)           momentum, or Adam's beta1 = logistic function
//   log_init_scales  (layers)          initial weights = exp * standard normal draws; biases start at 0
//   log_l2           (parameters)      weight decay = exp
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <hypertape/bilevel/problem.h>
#include <hypertape/nn/layers.h>
#include "data.h"
#include "options.h"
#include "scaling.h"

namespace hypertape {

/// Inputs (N, features) and labels (N).
struct Samples {
  Tensor inputs, labels;
};

struct TrainingData {
  std::vector<Samples> batches;  ///< views of one tensor; step t sees batch t mod their number
  Samples all;                   ///< those of all batches
  Samples validation;
  std::int64_t training_samples = 0;
  std::int64_t features = 0, classes = 0;
  Scaling scaling;  ///< of all inputs, fitted to the training samples
};

/// The samples are shuffled by the seed; the first fifth is the validation set, the rest is cut into
/// minibatches, dropping what does not fill one. UsageError when the training samples do not fill one.
///
/// Here and below: numbers are rounded to options.dtype, and held in `held_in`, if that is given: the very
/// numbers of a float32 problem in higher precision.
/// Error where a number is not finite so: one far outside the training samples.
std::shared_ptr<const TrainingData> prepare_data(const Dataset& data, const TrainingOptions& options,
                                                 std::optional<Dtype> held_in = std::nullopt);

/// The same for the samples numbered `chosen`.
std::shared_ptr<const TrainingData> prepare_data(const Dataset& data, std::span<const std::int64_t> chosen,
                                                 const TrainingOptions& options,
                                                 std::optional<Dtype> held_in = std::nullopt);

/// The samples numbered `chosen` as tensors, without another copy of them on the way.
Samples scaled_samples(const Dataset& data, std::span<const std::int64_t> chosen, const Scaling& scaling,
                       Dtype rounded_to, Dtype held_in);

struct TrainingProblem {
  bilevel::Problem problem;
  bilevel::OuterLoss validation_loss;
  NamedTensors hyperparameters;  ///< initial values of the groups asked for
  nn::Mlp net;
};

/// `data`: prepared with the same options and `held_in`.
TrainingProblem make_training_problem(std::shared_ptr<const TrainingData> data,
                                      const TrainingOptions& options,
                                      std::optional<Dtype> held_in = std::nullopt);

/// The multiple of 2^-16 nearest to `momentum`. Reversible training executes such momenta only; started from
/// one, its trajectory differs from the other methods' by rounding errors alone.
double representable_momentum(double momentum);

}  // namespace hypertape
