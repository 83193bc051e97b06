// A training run in fixed point, at any of its steps: executed forward, and undone exactly.
#pragma once

#include <vector>

#include "bilevel/run/method.h"
#include "core/backend/backend.h"

namespace hypertape::bilevel::detail {

/// The state is integers (core/backend/fixed_point.h), from which all that a derivative reads is taken:
/// weights, velocities, rates and momenta as they were executed. Each parameter's weights and velocities have
/// 52 fraction bits, and ten fewer, down to 22, where their numbers would not fit: told from the initial
/// state, and when a step finds it out, the run starts again.
class FixedRun {
 public:
  /// The numbers of one step as executed.
  struct Numbers {
    NamedTensors h;                         ///< the hyperparameters, as they were given
    std::vector<double> rates;              ///< one for each parameter tensor
    std::vector<std::uint32_t> numerators;  ///< of the momenta, over 2^16: one for each digit buffer
    double momentum(std::size_t parameter) const {
      return hypertape::detail::effective_momentum(numerators[numerators.size() == 1 ? 0 : parameter]);
    }
  };

  /// `plain`: the run's node inputs, unrecorded. At step 0.
  FixedRun(RunPointer run, const TensorList& plain);

  const Run& run() const noexcept { return *run_; }
  const TensorList& hyper() const noexcept { return hyper_; }
  Dtype dtype() const noexcept { return dtype_; }
  bool is_dampened() const noexcept { return momentum().dampened; }
  /// Steps made and not undone.
  std::int64_t step() const noexcept { return step_; }

  /// Makes all steps that are left. Throws TrainingDiverged; Error if a step that was made before does not
  /// replay.
  void train(bool report);
  /// Of step t. Throws OutOfRange for a momentum that cannot be undone, TrainingDiverged for a rate that is
  /// not finite.
  Numbers numbers(std::int64_t t) const;
  /// Undoes the last step: its weights first, at which its gradient was taken, then, given that gradient, its
  /// velocities. Error if it is not the step that was made.
  void undo_weights(const Numbers& at);
  void undo_velocities(const Numbers& at, const TensorList& gradient);
  /// Error unless everything is as before the first step.
  void require_start() const;

  TensorList weights() const { return w_.floats(dtype_); }
  TensorList velocities() const { return v_.floats(dtype_); }
  /// Weights, then velocities.
  TensorList state() const;

 private:
  using MomentumViews = hypertape::detail::MomentumViews;

  // All weights, or all velocities.
  struct Integers {
    explicit Integers(const std::vector<Shape>& shapes);
    void set(const TensorList& values);
    TensorList floats(Dtype dtype) const;
    std::vector<Shape> shapes;
    Tensor whole;           // int64
    TensorList parts;       // its views, one for each parameter
    std::vector<int> bits;  // fraction bits of each part
  };

  hypertape::detail::BackendCall backend() const { return hypertape::detail::backend_of(w_.whole); }
  const optim::ReversibleMomentum& momentum() const { return *run_->problem().step.reversible; }
  std::vector<double> setting(const char* what, const TensorList& given) const;
  void begin();
  bool advance(const Numbers& at);
  void widen(const Numbers& at, const TensorList& gradient);
  void fit(Integers& integers, std::size_t part, double largest, double room, const char* what);
  void set_views(const Numbers& at, const TensorList& gradient);
  std::span<const MomentumViews> views_of(std::size_t digits) const;
  std::uint64_t hash() const;
  void require_replay(std::int64_t at, std::int64_t step) const;

  RunPointer run_;
  std::vector<Shape> shapes_;
  Dtype dtype_;
  optim::State start_;
  Integers w_, v_;
  TensorList hyper_;
  Run::Rows rows_;
  std::vector<hypertape::detail::DigitBuffer> digits_;  // one for all parameter tensors, or one each
  std::int64_t step_ = 0, reported_ = 0;
  std::vector<std::uint64_t> hashes_;  // of the state before each step
  std::vector<MomentumViews> views_;
  TensorList contiguous_;
};

}  // namespace hypertape::bilevel::detail
