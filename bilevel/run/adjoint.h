// The pieces of a reverse pass over training steps: the cotangent of the hyperparameters, and one step's
// pullback by a gradient with dual numbers.
#pragma once

#include "bilevel/run/dual_gradient.h"
#include "bilevel/run/method.h"

namespace hypertape::bilevel::detail {

/// dF/dh gathered step by step, from the last to the first.
class HyperCotangent {
 public:
  explicit HyperCotangent(const Run& run, const TensorList& hyper);
  /// Adds step t's part: to the sum of a shared hyperparameter, or in place as row t of a per-step one.
  void add(std::size_t position, std::int64_t t, Tensor&& part);
  /// Adds step t's parts of all hyperparameters: what reached them by the update, and by the loss.
  void add_step(std::int64_t t, TensorList&& direct, TensorList&& mixed);
  /// Takes over a sum that was accumulated elsewhere, starting from shared().
  void set_shared(std::size_t position, Tensor&& sum) { totals_[position] = std::move(sum); }
  const Tensor& shared(std::size_t position) const { return totals_[position]; }
  const TensorList& totals() const noexcept { return totals_; }

 private:
  const Run& run_;
  const TensorList& hyper_;
  TensorList totals_;
};

/// Of the training loss of step t, at w.
DualGradient dual_gradient(const Run& run, const TensorList& w, const NamedTensors& h_t, std::int64_t t,
                           const TensorList& direction, bool wants_gradient = true);

/// The cotangent of the gradient, given that of the new state, without knowing the gradient.
TensorList gradient_cotangent(const Run& run, const optim::State& cotangent, const NamedTensors& h_t);

/// sums[i] += parts[i]; absent tensors count as zero.
void add_gradients(TensorList& sums, TensorList& parts);

/// Pulls the new state's cotangent back through update and gradient to the old state's and to h.
void pull_step(const Run& run, const optim::State& state, const NamedTensors& h_t, std::int64_t t,
               DualGradient&& dual, optim::State& cotangent, HyperCotangent& hyper);

/// The inputs of a method's custom node: initial state, then prepared hyperparameters.
TensorList node_inputs(const Run& run);
/// Gradients in the order of node_inputs.
TensorList node_gradients(const optim::State& cotangent, const HyperCotangent& hyper);

}  // namespace hypertape::bilevel::detail
