// An optimizer as a pure function: (state, gradient, hyperparameters) -> state.
//
// Because a step is a function of tensors and nothing else, a training run can be recorded, replayed, re-run
// from any stored state, and differentiated with respect to whatever the step reads.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include <hypertape/core/export.h>
#include <hypertape/core/named_tensors.h>

namespace hypertape::optim {

/// The parameters and what the optimizer carries beside them (for momentum: one velocity per parameter).
struct State {
  TensorList parameters;
  TensorList buffers;
};

/// Momentum in the form that reversible training executes itself, in fixed point, and differentiates as
/// executed: v <- m v + g, or m v + (1 - m) g;  w <- w - r v, with the new v. The settings are functions of
/// differentiable operations; each returns tensors of rank 0 and of the parameters' dtype, one for all
/// parameter tensors or one for each, and as many at every step.
struct ReversibleMomentum {
  std::function<TensorList(const TensorList& parameters, const NamedTensors& h)> rates;
  std::function<TensorList(const TensorList& parameters, const NamedTensors& h)> momenta;
  bool dampened = false;  ///< the gradient counts times 1 - the executed momentum
};

struct Step {
  std::string name;
  std::function<TensorList(const TensorList& parameters)> initial_buffers;
  /// The new state; hyperparameters by name, per-step ones as this step's row. State and gradients that are
  /// handed over (`state = step.update(std::move(state), std::move(gradients), h)`) lend their memory to
  /// the new state, as far as nobody else holds them; a function that takes them by reference serves as well.
  std::function<State(State, TensorList gradients, const NamedTensors& h)> update;
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
  Setting(std::string hyperparameter) : name((std::move)(hyperparameter)) {}
  double value = 0.0;
  std::string name;  ///< empty: `value` holds
};

/// Settings of SGD with momentum.
struct SgdOptions {
  /// Learning rate: rank 0, or a vector with one rate per group.
  Setting rate = 0.1;
  /// Momentum in [0, 1): rank 0, or a vector with one per group.
  Setting momentum = 0.0;
  /// For vectors of rates, momenta or weight decays: the group of each parameter tensor. Empty: one group
  /// each.
  std::vector<std::int64_t> rate_groups = {};
  /// Dampening by the momentum itself (the form of Maclaurin, Duvenaud and Adams 2015).
  bool dampened = false;
  /// Dampening in [0, 1): rank 0. It holds from the first step on (PyTorch leaves the first push whole).
  Setting dampening = 0.0;
  /// Added to the gradient, times the weight: rank 0, or a vector with one per group.
  Setting weight_decay = 0.0;
  /// Moves along momentum v + push with the new v, a look ahead (Nesterov 1983, in the form of Sutskever,
  /// Martens, Dahl and Hinton 2013).
  bool nesterov = false;
};

/// push = (1 - dampening) (g + weight_decay w);  v <- momentum v + push;  w <- w - rate v, with the new v, or
/// with Nesterov momentum w <- w - rate (momentum v + push). Undone exactly by reversible training unless it
/// has Nesterov momentum, weight decay or a dampening other than `dampened`. Error for constants out of
/// range.
HYPERTAPE_API Step sgd(SgdOptions options = {});

/// Settings of Adam; each may be a hyperparameter, also one per step.
struct AdamOptions {
  /// Learning rate: rank 0, or a vector with one rate per group.
  Setting rate = 0.001;
  /// Share that the moving averages of gradients and of their squares keep, in [0, 1): rank 0.
  Setting beta1 = 0.9, beta2 = 0.999;
  /// Above 0: rank 0.
  Setting epsilon = 1e-8;
  /// Added to the gradient, times the weight, or decoupled: rank 0, or a vector with one per group.
  Setting weight_decay = 0.0;
  /// The weights shrink by rate weight_decay, and the averages see the gradient alone: AdamW.
  bool decoupled = false;
  /// For vectors of rates or weight decays: the group of each parameter tensor. Empty: one group each.
  std::vector<std::int64_t> rate_groups = {};
};

/// m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;  w <- w - rate m' / (sqrt(v') + epsilon),
/// where m' = m / (1 - product of all beta1), v' = v / (1 - product of all beta2). (Kingma and Ba 2015,
/// algorithm 1; decoupled weight decay: Loshchilov and Hutter 2019, algorithm 2, whose decay is rate
/// weight_decay here)
///
/// Derivatives of every order go through moments and bias corrections. Where v' is 0, all gradients having
/// been 0, they are finite: the first is exact, and the root counts as constant in higher ones, whose values
/// from both sides differ by sign. (v' below 2^-200, in float32 2^-110, counts as 0.) Has no exact inverse.
/// Buffers: m and v of every parameter, then the two 1 - product. Error for constants out of range, and for
/// parameters of several dtypes.
HYPERTAPE_API Step adam(AdamOptions options = {});

}  // namespace hypertape::optim
