// An optimizer as a pure function: (state, gradient, hyperparameters) -> state.
//
// Because a step is a function of tensors and nothing else, a training run can be recorded, replayed, re-run
// from any stored state, and differentiated with respect to whatever the step reads.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "hypertape/core/export.h"
#include "hypertape/core/named_tensors.h"

namespace hypertape::optim {

/// The parameters and what the optimizer carries beside them (for momentum: one velocity per parameter).
struct State {
  TensorList parameters;
  TensorList slots;
};

/// Momentum in the form that reversible training needs: numbers instead of tensors.
struct ReversibleMomentum {
  /// One learning rate for each parameter tensor at these hyperparameters.
  std::function<std::vector<double>(const NamedTensors& h)> rates;
  std::function<double(const NamedTensors& h)> momentum;
  /// The same hyperparameters with the momentum replaced by the number that is actually executed.
  std::function<NamedTensors(const NamedTensors& h, double executed)> with_momentum;
  bool dampened = false;
};

struct Step {
  std::string name;
  std::function<TensorList(const TensorList& parameters)> initial_slots;
  /// The new state; hyperparameters by name, per-step ones as this step's row.
  std::function<State(const State&, const TensorList& gradients, const NamedTensors& h)> update;
  /// For updates whose derivative with respect to the gradient depends on neither state nor gradient: the
  /// gradient's cotangent from the new state's. Saves the dual step a gradient; may be left empty.
  std::function<TensorList(const State& cotangent, const NamedTensors& h)> gradient_cotangent;
  /// Empty if the step has no exact inverse.
  std::optional<ReversibleMomentum> reversible;
};

/// A setting of an optimizer: a number, or the name of a hyperparameter.
struct Setting {
  Setting(double number) : value(number) {}
  Setting(const char* hyperparameter) : name(hyperparameter) {}
  Setting(std::string hyperparameter) : name(std::move(hyperparameter)) {}
  double value = 0.0;
  std::string name;  ///< empty: `value` holds
};

/// Settings of SGD with momentum.
struct SgdOptions {
  /// Learning rate: rank 0, or a vector with one rate per group.
  Setting rate = 0.1;
  /// Momentum in [0, 1): rank 0.
  Setting momentum = 0.0;
  /// For a vector of rates: the group of each parameter tensor. Empty: one group each.
  std::vector<std::int64_t> rate_groups = {};
  /// Scales the gradient by 1 - momentum (the form of Maclaurin, Duvenaud and Adams 2015).
  bool dampened = false;
};

/// v <- momentum v + (1 - dampening) g;  w <- w - rate v, with the new v, and dampening 0 or momentum.
HYPERTAPE_API Step sgd(SgdOptions options = {});

}  // namespace hypertape::optim
