// Joint algorithms: parameters, linear system and hyperparameters move together, one cheap step at a time,
// instead of a training run and a linear solve per hypergradient.
//
//     bilevel::JointAlgorithm algorithm = bilevel::soba({.inner_rate = 0.1, .outer_rate = 0.01});
//     bilevel::JointState state = algorithm.init(joint, h);
//     for (int t = 0; t < 1000; ++t) state = algorithm.step(joint, state);
//     auto learned = state.hyperparameters;
//
// A step is a pure function of problem and state: minibatches and noise replay from (seed, step), and a run
// goes on from any stored state with the same bits.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include <hypertape/bilevel/problem.h>
#include <hypertape/core/export.h>
#include <hypertape/core/named_tensors.h>

namespace hypertape::bilevel {

/// min over h of F(w*(h), h), w*(h) = argmin over w of f(w, h), both seen through minibatches.
struct JointProblem {
  /// Initial parameters, floating tensors.
  std::function<NamedTensors(const NamedTensors& h)> init = {};
  /// f and F, one element; the context's keys are independent of each other (streams 2 and 3).
  std::function<Tensor(const NamedTensors& w, const NamedTensors& h, const StepContext& context)> inner = {};
  std::function<Tensor(const NamedTensors& w, const NamedTensors& h, const StepContext& context)> outer = {};
  std::uint64_t seed = 0;
};

struct JointState {
  NamedTensors parameters;       ///< w
  NamedTensors adjoint;          ///< v, which approaches -f_ww^-1 F_w; named and shaped like w
  NamedTensors hyperparameters;  ///< h
  std::int64_t step = 0;
  // Of the step that led here; 0 before the first.
  double inner_value = 0.0, outer_value = 0.0;
  double inner_gradient = 0.0;   ///< |f_w|
  double linear_residual = 0.0;  ///< |f_ww v + F_w|
  double hypergradient = 0.0;    ///< |f_hw v + F_h|
};

struct JointAlgorithm {
  std::string name;
  std::function<JointState(const JointProblem& problem, const NamedTensors& h)> init;
  /// Throws TrainingDiverged if a value or direction is not finite, Error if a hyperparameter has no path to
  /// the outer loss or the state does not fit together; the given state is unchanged.
  std::function<JointState(const JointProblem& problem, const JointState& state)> step;
};

/// All rates are multiplied by (t + 1)^-decay at step t: 0 for full batches, 1/2 or 2/5 for minibatches.
/// Rates must be positive, decay not negative; Error otherwise.
struct SobaOptions {
  double inner_rate = 0.1;
  double linear_rate = 0.1;
  double outer_rate = 0.01;
  double decay = 0.0;
};

/// w <- w - inner_rate f_w;  v <- v - linear_rate (f_ww v + F_w);  h <- h - outer_rate (f_hw v + F_h), all
/// three from the same state. One gradient with dual numbers of f and one gradient of F a step. (Dagreou,
/// Ablin, Vaiter and Moreau 2022, algorithm 1 with equation 4)
HYPERTAPE_API JointAlgorithm soba(const SobaOptions& options = {});

}  // namespace hypertape::bilevel
