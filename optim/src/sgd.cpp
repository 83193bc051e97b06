#include <algorithm>

#include "hypertape/autodiff/ops.h"
#include "hypertape/core/error.h"
#include "hypertape/optim/step.h"

namespace hypertape::optim {
namespace {

// A setting as a number (constant) or as a tensor (hyperparameter): `tensor` is absent for a constant.
struct Value {
  Tensor tensor;
  double number = 0.0;
  Tensor as(Dtype dtype) const { return tensor.defined() ? tensor : Tensor::scalar(number, dtype); }
};

Value value_of(const Setting& setting, const NamedTensors& h) {
  if (setting.name.empty()) return {Tensor(), setting.value};
  return {h[setting.name], 0.0};
}

// The rate of each parameter tensor.
std::vector<Value> rates_of(const SgdOptions& options, const NamedTensors& h, std::size_t parameters) {
  const Value rate = value_of(options.rate, h);
  if (!rate.tensor.defined() || rate.tensor.rank() == 0) return std::vector<Value>(parameters, rate);
  if (rate.tensor.rank() != 1)
    fail("sgd", "rate '", options.rate.name, "' has shape ", rate.tensor.shape(),
         " in one step; it must be a scalar or a vector with one rate per group");
  if (!options.rate_groups.empty() && options.rate_groups.size() != parameters)
    fail("sgd", options.rate_groups.size(), " rate groups given for ", parameters, " parameter tensors");
  std::int64_t needed = options.rate_groups.empty() ? static_cast<std::int64_t>(parameters) : 0;
  for (const std::int64_t group : options.rate_groups) needed = std::max(needed, group + 1);
  if (rate.tensor.size() != needed)
    fail("sgd", "rate '", options.rate.name, "' has ", rate.tensor.size(),
         " elements in one step, but there are ", needed, " groups");
  const TensorList groups = unstack(rate.tensor);
  std::vector<Value> rates;
  for (std::size_t i = 0; i < parameters; ++i) {
    const auto group = options.rate_groups.empty() ? i : static_cast<std::size_t>(options.rate_groups[i]);
    rates.push_back({groups[group], 0.0});
  }
  return rates;
}

// Reversible training rounds the momentum; a constant one is then passed along under this name.
constexpr const char* executed_momentum = "executed momentum";

Value momentum_of(const SgdOptions& options, const NamedTensors& h) {
  if (options.momentum.name.empty() && h.contains(executed_momentum))
    return {Tensor(), h[executed_momentum].item()};
  Value momentum = value_of(options.momentum, h);
  if (momentum.tensor.defined() && momentum.tensor.rank() != 0)
    fail("sgd", "momentum '", options.momentum.name, "' has shape ", momentum.tensor.shape(),
         " in one step; it must be a scalar");
  return momentum;
}

double number_of(const Value& value) { return value.tensor.defined() ? value.tensor.item() : value.number; }

State update(const SgdOptions& options, const State& state, const TensorList& gradients,
             const NamedTensors& h) {
  const std::size_t count = state.parameters.size();
  const std::vector<Value> rates = rates_of(options, h, count);
  const Value momentum = momentum_of(options, h);
  State next;
  next.parameters.reserve(count);
  next.slots.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const Tensor &w = state.parameters[i], &v = state.slots[i];
    const Tensor beta = momentum.as(w.dtype());
    next.slots.push_back(
        multiply_add(beta, v, options.dampened ? (1.0 - beta) * gradients[i] : gradients[i]));
    next.parameters.push_back(multiply_add(negate(rates[i].as(w.dtype())), next.slots.back(), w));
  }
  return next;
}

// d next.slots / d gradient = scale, and next.parameters follows by -rate: w_bar' and v_bar' meet in v.
TensorList gradient_cotangent(const SgdOptions& options, const State& cotangent, const NamedTensors& h) {
  const std::size_t count = cotangent.parameters.size();
  const std::vector<Value> rates = rates_of(options, h, count);
  const Value momentum = momentum_of(options, h);
  TensorList result(count);
  for (std::size_t i = 0; i < count; ++i) {
    const Tensor &w = cotangent.parameters[i], &v = cotangent.slots[i];
    Tensor g = v;
    if (w.defined()) {
      const Tensor step = negate(rates[i].as(w.dtype()));
      g = v.defined() ? multiply_add(step, w, v) : step * w;
    }
    if (g.defined() && options.dampened) g = (1.0 - momentum.as(g.dtype())) * g;
    result[i] = std::move(g);
  }
  return result;
}

void require_constant_in_range(const SgdOptions& options) {
  if (options.momentum.name.empty() && !(options.momentum.value >= 0.0 && options.momentum.value < 1.0))
    fail("sgd", "momentum ", options.momentum.value, " is not in [0, 1)");
  if (options.rate.name.empty() && !(options.rate.value - options.rate.value == 0.0))
    fail("sgd", "rate ", options.rate.value, " is not finite");
  for (const std::int64_t group : options.rate_groups)
    if (group < 0) fail("sgd", "rate group ", group, " is negative");
}

}  // namespace

Step sgd(SgdOptions options) {
  require_constant_in_range(options);
  Step step;
  step.name = "sgd";
  step.initial_slots = [](const TensorList& parameters) {
    TensorList velocities;
    for (const Tensor& p : parameters) velocities.push_back(Tensor::zeros(p.shape(), p.dtype()));
    return velocities;
  };
  step.update = [options](const State& state, const TensorList& gradients, const NamedTensors& h) {
    return update(options, state, gradients, h);
  };
  step.gradient_cotangent = [options](const State& cotangent, const NamedTensors& h) {
    return gradient_cotangent(options, cotangent, h);
  };
  ReversibleMomentum reversible;
  reversible.dampened = options.dampened;
  reversible.rates = [options](const NamedTensors& h) {
    const Value rate = value_of(options.rate, h);
    if (!rate.tensor.defined() || rate.tensor.rank() == 0) return std::vector<double>{number_of(rate)};
    const std::size_t groups = static_cast<std::size_t>(rate.tensor.size());
    const std::size_t parameters = options.rate_groups.empty() ? groups : options.rate_groups.size();
    std::vector<double> numbers;
    for (const Value& each : rates_of(options, h, parameters)) numbers.push_back(number_of(each));
    return numbers;
  };
  reversible.momentum = [options](const NamedTensors& h) { return number_of(value_of(options.momentum, h)); };
  reversible.with_momentum = [options](const NamedTensors& h, double executed) {
    if (options.momentum.name.empty()) {
      NamedTensors rounded = h;
      rounded.add(executed_momentum, Tensor::scalar(executed));
      return rounded;
    }
    const Tensor& momentum = h[options.momentum.name];
    return h.with(options.momentum.name, Tensor::full(momentum.shape(), executed, momentum.dtype()));
  };
  step.reversible = std::move(reversible);
  return step;
}

}  // namespace hypertape::optim
