// The problem that `hypertape tune` learns: that of `compare` (training_problem.h) on data split three ways,
// with a weight decay per layer or per parameter.
#pragma once

#include <memory>
#include <vector>

#include "training_problem.h"
#include "tune_options.h"

namespace hypertape {

/// Training and validation samples lie in `training`; the test set is kept apart from everything that learns.
struct TuneData {
  std::shared_ptr<const TrainingData> training;
  Samples test;
  std::int64_t validation_samples = 0, test_samples = 0;
};

/// A fifth of the samples, drawn by the seed, is the test set; the rest is split by prepare_data. UsageError
/// when the training samples do not fill a batch.
TuneData split_data(const Dataset& data, const TrainingOptions& options);

/// With Penalties::layer, log_l2 has one element per layer, which decays the layer's weight and bias.
TrainingProblem make_tune_problem(const TuneData& data, const TrainingOptions& options, Penalties penalties);

struct Quality {
  double loss = 0.0;      ///< softmax cross entropy, without penalty
  double accuracy = 0.0;  ///< fraction of samples whose largest output is at the label
};

/// Over the samples that minibatches are made of: each batch's, averaged.
Quality training_quality(const TuneData& data, const nn::Mlp& net, const NamedTensors& parameters);

Quality quality(const Samples& samples, const nn::Mlp& net, const NamedTensors& parameters);

/// What a run with some hyperparameters is worth.
struct Evaluation {
  Quality training, validation, test;
};

/// Trains plainly with `hyperparameters`. Throws TrainingDiverged.
Evaluation evaluate(const TuneData& data, const TrainingProblem& training,
                    const NamedTensors& hyperparameters);

/// The elements of all groups, one after another.
std::vector<double> elements_of(const NamedTensors& groups);

/// Groups named and shaped like `layout` from their elements.
NamedTensors groups_from(const std::vector<double>& elements, const NamedTensors& layout);

/// Multiply-adds of a Hessian-vector product of the net's loss in those of a gradient: (2F+6R)/(2F+3R), F for
/// the first layer, whose input needs no derivative, and R for the others (docs/performance.md).
double hessian_product_in_gradients(const nn::Mlp& net);

}  // namespace hypertape
