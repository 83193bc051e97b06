// One training step of a net on synthetic rows: the work of several curves.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/random.h>
#include <hypertape/nn/layers.h>
#include <hypertape/optim/step.h>

namespace hypertape::growth {

/// A net, its weights and a batch.
struct NetLoss {
  NetLoss(const std::vector<std::int64_t>& sizes, nn::Activation activation, std::int64_t batch, Dtype dtype)
      : mlp(sizes, activation),
        weights(mlp.init({5}, dtype)),
        rows(0.1 * random({batch, sizes.front()}, Distribution::uniform, {1}, dtype)) {
    std::vector<std::int64_t> classes(static_cast<std::size_t>(batch));
    for (std::size_t i = 0; i < classes.size(); ++i)
      classes[i] = static_cast<std::int64_t>(i * 7) % sizes.back();
    labels = Tensor::from(classes, {batch});
  }
  Tensor operator()(const TensorList& w) const {
    return softmax_cross_entropy(mlp(weights.with(w), rows), labels);
  }
  std::function<Tensor(const TensorList&)> function() const {
    return [self = *this](const TensorList& w) { return self(w); };
  }

  nn::Mlp mlp;
  NamedTensors weights;
  Tensor rows, labels;
};

/// Loss, gradient, SGD with momentum; goes on from where the last call ended.
class TrainingStep {
 public:
  explicit TrainingStep(const NetLoss& loss)
      : loss_(std::make_shared<NetLoss>(loss)),
        step_(optim::sgd({.rate = 0.01, .momentum = 0.9})),
        state_(std::make_shared<optim::State>()) {
    state_->parameters = loss_->weights.tensors();
    state_->buffers = step_.initial_buffers(state_->parameters);
    // The loss is read with names; a second copy of the weights would hide how much a step needs.
    loss_->weights = loss_->weights.with(TensorList(state_->parameters.size()));
  }
  void operator()() const {
    auto [value, gradients] =
        value_and_grad([&](const TensorList& w) { return (*loss_)(w); }, state_->parameters);
    *state_ = step_.update(*state_, gradients, {});
  }

 private:
  std::shared_ptr<NetLoss> loss_;
  optim::Step step_;
  std::shared_ptr<optim::State> state_;
};

}  // namespace hypertape::growth
