// A training run as pure functions, and the ways to differentiate through it.
//
//     bilevel::Problem problem{
//         .init = init, .loss = f, .step = optim::sgd({.rate = "rates"}), .steps = 1000};
//     auto w = bilevel::solve(problem, h, bilevel::Unrolled{}).parameters;  // differentiable in h
//     auto result = bilevel::hypergradient(problem, validation_loss, h, bilevel::Reversible{});
//
// Inner problem: w_0 = init(h) and (w, v)_{t+1} = step((w, v)_t, gradient of loss(w_t, h_t, t), h_t), v being
// the optimizer's buffers. Outer problem: F(w_T, h). The hypergradient is dF/dh = F_h + (dw_T/dh)' F_w.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <hypertape/core/error.h>
#include <hypertape/core/export.h>
#include <hypertape/core/named_tensors.h>
#include <hypertape/core/random.h>
#include <hypertape/optim/step.h>

namespace hypertape::bilevel {

/// What a loss may depend on besides tensors. Minibatches and noise drawn from it replay exactly.
struct StepContext {
  std::int64_t step = 0;
  Key key;  ///< the problem's seed, stream 1, and `step`
};

/// The functions are kept as long as a solution can still be differentiated, which may be after the call that
/// made it: what they capture by reference must live that long. They must not use variables that are being
/// differentiated other than through their arguments (only Unrolled could follow those; the others refuse).
struct Problem {
  /// Initial parameters; sees the prepared hyperparameters.
  std::function<NamedTensors(const NamedTensors& h)> init = {};
  /// Training loss of one step, one element; not needed where a solver takes the place of the steps. Must
  /// depend on its arguments alone, and on constants: methods run it again. Random numbers come from
  /// context.key, batches from context.step; a generator, a counter or a queue of its own gives other values
  /// then. That is seen, by the bits of the loss: NotReplayed.
  std::function<Tensor(const NamedTensors& w, const NamedTensors& h, const StepContext& context)> loss = {};
  optim::Step step = optim::sgd();
  std::int64_t steps = 0;  ///< from 1 to 2^40
  /// Names of prepared hyperparameters with leading axis `steps`; step t sees row t.
  std::vector<std::string> per_step = {};
  /// Computed once per run, recorded: e.g. rates = exp(log_rates). Identity if empty.
  std::function<NamedTensors(const NamedTensors& h)> prepare = {};
  std::uint64_t seed = 0;
  /// Called after every step of a forward run with (step, training loss); for progress.
  std::function<void(std::int64_t step, double loss)> on_step = {};
  /// For implicit methods: the inner loss f(w, h) whose minimum w* the run approaches, one element; sees the
  /// prepared hyperparameters, per-step ones whole.
  std::function<Tensor(const NamedTensors& w, const NamedTensors& h)> full_loss = {};
  /// For implicit methods: finds w* from w_0 by any means, differentiable or not (Newton, bisection, another
  /// library) and takes the place of the steps, for `train` too.
  std::function<NamedTensors(const NamedTensors& w, const NamedTensors& h)> solver = {};
  /// The optimizer's buffers before the first step as a function of w_0 and the prepared hyperparameters: for
  /// instance an initial velocity that is learned. `step.initial_buffers` if empty.
  std::function<TensorList(const NamedTensors& w, const NamedTensors& h)> initial_buffers = {};
};

/// F(w_T, h): h as given, not prepared.
using OuterLoss = std::function<Tensor(const NamedTensors& w, const NamedTensors& h)>;

/// What a method did, besides its result.
struct Cost {
  double seconds = 0.0;
  /// Of the training loss or the inner loss; not the few that tell Availability.
  std::int64_t gradients = 0;
  std::int64_t hessian_vector_products = 0;  ///< each with its mixed product
  std::int64_t peak_bytes = 0;               ///< high-water mark of the library's memory above the start
};

/// A training loss that became infinite or NaN, or, in fixed point, a gradient or rate that is not finite or
/// a number beyond 2^40, with the step; or an outer loss or hypergradient that is not finite, with step -1.
class HYPERTAPE_API TrainingDiverged : public Error {
 public:
  /// `operation`: the public function that was called.
  TrainingDiverged(std::string_view operation, std::int64_t step, const std::string& what);
  ~TrainingDiverged() override;
  std::int64_t step() const noexcept { return step_; }

 private:
  std::int64_t step_;
};

/// Hyperparameters that the method cannot execute at these values, though it could at others, with the step:
/// a momentum that Reversible cannot undo.
class HYPERTAPE_API OutOfRange : public Error {
 public:
  OutOfRange(std::string_view method, std::int64_t step, const std::string& what);
  ~OutOfRange() override;
  std::int64_t step() const noexcept { return step_; }

 private:
  std::int64_t step_;
};

}  // namespace hypertape::bilevel
