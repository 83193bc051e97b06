#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include "core/base/default_floats.h"
#include "optim/settings.h"

namespace hypertape::optim {
namespace {

using detail::Value;

std::vector<Value> rates_of(const SgdOptions& options, const NamedTensors& h, std::size_t parameters) {
  return detail::per_parameter("sgd", "rate", options.rate, options.rate_groups, h, parameters);
}

std::vector<Value> momenta_of(const SgdOptions& options, const NamedTensors& h, std::size_t parameters) {
  return detail::per_parameter("sgd", "momentum", options.momentum, options.rate_groups, h, parameters);
}

bool is_dampened(const SgdOptions& options) noexcept {
  return options.dampened || !detail::is_absent(options.dampening);
}

// (1 - dampening) x
Tensor dampened(const SgdOptions& options, const NamedTensors& h, const Value& momentum, Tensor x) {
  if (!is_dampened(options)) return x;
  const Value dampening =
      options.dampened ? momentum : detail::scalar_of("sgd", "dampening", options.dampening, h);
  return multiply(1.0 - dampening.as(x.dtype()), std::move(x));
}

State update(const SgdOptions& options, State state, TensorList gradients, const NamedTensors& h) {
  const std::size_t count = state.parameters.size();
  detail::require_state("sgd", state, gradients, 1, count);
  const std::vector<Value> rates = rates_of(options, h, count);
  const std::vector<Value> momenta = momenta_of(options, h, count);
  std::vector<Value> decays;
  if (!detail::is_absent(options.weight_decay))
    decays =
        detail::per_parameter("sgd", "weight decay", options.weight_decay, options.rate_groups, h, count);
  for (std::size_t i = 0; i < count; ++i) {
    Tensor &w = state.parameters[i], &v = state.buffers[i], &g = gradients[i];
    const Tensor rate = rates[i].as(w.dtype()), beta = momenta[i].as(w.dtype());
    if (!decays.empty()) g = multiply_add(decays[i].as(w.dtype()), w, std::move(g));
    Tensor push = dampened(options, h, momenta[i], std::move(g));
    if (options.nesterov) {
      v = multiply_add(beta, std::move(v), push);
      w = multiply_add(negate(rate), multiply_add(beta, v, std::move(push)), std::move(w));
    } else {
      SgdStep next = sgd_step(std::move(w), std::move(v), std::move(push), rate, beta);
      w = std::move(next.weights);
      v = std::move(next.velocity);
    }
  }
  return state;
}

// The push reaches v' directly, and w' by -rate times the move: v', or with Nesterov momentum v' + push,
// where v' counts times the momentum. All of that is independent of state and gradient.
TensorList gradient_cotangent(const SgdOptions& options, const State& cotangent, const NamedTensors& h) {
  const std::size_t count = cotangent.parameters.size();
  if (cotangent.buffers.size() != count)
    fail("sgd", cotangent.buffers.size(), " buffers for ", count,
         " parameter tensors; there must be as many");
  const std::vector<Value> rates = rates_of(options, h, count);
  const std::vector<Value> momenta = momenta_of(options, h, count);
  TensorList result(count);
  for (std::size_t i = 0; i < count; ++i) {
    const Tensor &w = cotangent.parameters[i], &v = cotangent.buffers[i];
    Tensor g = v;
    if (w.defined()) {
      Tensor step = negate(rates[i].as(w.dtype()));
      if (options.nesterov) step = step * (1.0 + momenta[i].as(w.dtype()));
      g = v.defined() ? multiply_add(step, w, v) : step * w;
    }
    if (g.defined()) g = dampened(options, h, momenta[i], g);
    result[i] = std::move(g);
  }
  return result;
}

void require_sensible(const SgdOptions& options) {
  detail::require_finite("sgd", "rate", options.rate);
  detail::require_share("sgd", "momentum", options.momentum);
  detail::require_share("sgd", "dampening", options.dampening);
  detail::require_not_negative("sgd", "weight decay", options.weight_decay);
  detail::require_groups("sgd", options.rate_groups);
  if (options.dampened && !detail::is_absent(options.dampening))
    fail("sgd", "both `dampened` and a dampening are given; `dampened` is the dampening by the momentum");
}

// What keeps the step from being undone exactly is part of its name, and so of the refusal.
std::string name_of(const SgdOptions& options) {
  std::string extras;
  const auto add = [&](bool given, const char* extra) {
    if (given) extras += (extras.empty() ? " with " : ", ") + std::string(extra);
  };
  add(options.nesterov, "Nesterov momentum");
  add(!detail::is_absent(options.dampening), "dampening");
  add(!detail::is_absent(options.weight_decay), "weight decay");
  return "sgd" + extras;
}

ReversibleMomentum reversible_form(const SgdOptions& options) {
  const auto setting = [options](const char* what, const Setting& given) {
    return [=](const TensorList& parameters, const NamedTensors& h) {
      const std::vector<Value> each =
          detail::per_parameter("sgd", what, given, options.rate_groups, h, parameters.size());
      TensorList tensors;
      for (std::size_t i = 0; i < parameters.size(); ++i)
        tensors.push_back(each[i].as(parameters[i].dtype()));
      const Tensor whole = detail::value_of("sgd", what, given, h).tensor;
      if (!whole.defined() || whole.rank() == 0) tensors.resize(1);
      return tensors;
    };
  };
  return {setting("rate", options.rate), setting("momentum", options.momentum), options.dampened};
}

}  // namespace

Step sgd(SgdOptions options) {
  const hypertape::detail::DefaultFloats floats;
  require_sensible(options);
  Step step;
  step.name = name_of(options);
  step.initial_buffers = [](const TensorList& parameters) {
    TensorList velocities;
    for (const Tensor& p : parameters) velocities.push_back(Tensor::zeros(p.shape(), p.dtype()));
    return velocities;
  };
  step.update = [options](State state, TensorList gradients, const NamedTensors& h) {
    return update(options, std::move(state), std::move(gradients), h);
  };
  step.gradient_cotangent = [options](const State& cotangent, const NamedTensors& h) {
    return gradient_cotangent(options, cotangent, h);
  };
  if (step.name == "sgd") step.reversible = reversible_form(options);
  return step;
}

}  // namespace hypertape::optim
