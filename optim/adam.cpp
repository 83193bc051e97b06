// Adam whose derivatives are right where others' are not: through both bias corrections, and where the second
// moment is 0.
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include "autodiff/tape/node.h"
#include "core/backend/backend.h"
#include "optim/settings.h"

namespace hypertape::optim {
namespace {

using detail::Value;

double least_moment(Dtype dtype) noexcept { return dtype == Dtype::float32 ? 0x1p-110 : 0x1p-200; }

// sqrt(x) with all derivatives 0 where x < least; the value there is 0.
//
// A second moment of 0 means that every gradient so far was 0, and the first moment with them. Let the
// gradients be g = theta a along some direction: the update is theta M / (|theta| V + epsilon), whose
// derivative at theta = 0 is M / epsilon, that of the first moment alone; sqrt's own, infinite, never enters,
// as its factor is the first moment, 0. From the second order on the derivatives from the left and from the
// right differ by sign, and 0 is between them. So sqrt counts as constant there: exact in the first
// derivative, finite in all. `least` is where the root is below epsilon's rounding (for epsilon = 1e-8), and
// keeps powers of 1 / sqrt(x) from overflowing.
Tensor moment_root(const Tensor& x) {
  const double least = least_moment(x.dtype());
  const Tensor plain = stop_gradient(x);
  const Tensor one_below = masked(Tensor::ones({}, x.dtype()), least - plain);
  return masked(sqrt(x + one_below), plain - least);
}

// Buffers: first moments, second moments, then 1 - product of the betas1 so far, and the same of the betas2.
// The latter are the moving averages of the number 1, and computed like the moments: without cancellation,
// and differentiable in every step's beta.
struct Buffers {
  explicit Buffers(std::size_t parameters) : count(parameters) {}
  std::size_t first(std::size_t i) const noexcept { return i; }
  std::size_t second(std::size_t i) const noexcept { return count + i; }
  std::size_t first_total() const noexcept { return 2 * count; }
  std::size_t second_total() const noexcept { return 2 * count + 1; }
  std::size_t size() const noexcept { return 2 * count + 2; }
  std::size_t count;
};

Dtype common_dtype(const TensorList& parameters) {
  if (parameters.empty()) fail("adam", "there are no parameters");
  const Dtype dtype = parameters.front().dtype();
  for (const Tensor& p : parameters)
    if (p.dtype() != dtype) fail("adam", "parameters of different dtypes: ", dtype, " and ", p.dtype());
  return dtype;
}

// The numbers of one tensor's step, each of rank 0. `rate` is -rate / (1 - product of all beta1).
struct Numbers {
  const Tensor &beta1, &beta2, &new1, &new2, &total2, &epsilon, &rate;
};

// One pass over memory instead of a dozen, with the bits of the operations in `update`: for tensors that no
// derivative looks at. Returns whether the step was one for it.
bool step_plainly(const Numbers& at, Tensor& w, Tensor& first, Tensor& second, Tensor& g) {
  using namespace hypertape::detail;
  if (is_watched()) return false;  // an operation at a time, each with a name
  for (const Tensor* x : {&w, &first, &second, &g}) {
    if (!x->defined() || links_of(*x).any() || x->dtype() != w.dtype() || x->shape() != w.shape())
      return false;
  }
  for (const Tensor* x : {&at.beta1, &at.beta2, &at.new1, &at.new2, &at.total2, &at.epsilon, &at.rate})
    if (links_of(*x).any() || x->dtype() != w.dtype() || x->rank() != 0) return false;
  const auto place = [](const Tensor& x) {
    const bool lends = is_held_alone(x) && !x.header()->tangents;
    return lends ? make_alias(x) : make_like(*x.header());
  };
  Tensor next_w = place(w), next_first = place(first), next_second = place(second);
  const Tensor read_w = make_contiguous(w), read_first = make_contiguous(first),
               read_second = make_contiguous(second), read_g = make_contiguous(g);
  AdamViews step{};
  step.w = view_of(read_w);
  step.m = view_of(read_first);
  step.v = view_of(read_second);
  step.g = view_of(read_g);
  step.beta1 = view_of(at.beta1);
  step.beta2 = view_of(at.beta2);
  step.new1 = view_of(at.new1);
  step.new2 = view_of(at.new2);
  step.total2 = view_of(at.total2);
  step.epsilon = view_of(at.epsilon);
  step.rate = view_of(at.rate);
  step.next_w = view_of(next_w);
  step.next_m = view_of(next_first);
  step.next_v = view_of(next_second);
  step.least = least_moment(w.dtype());
  backend_of(w)->adam_step(step);
  w = std::move(next_w);
  first = std::move(next_first);
  second = std::move(next_second);
  return true;
}

State update(const AdamOptions& options, State state, TensorList gradients, const NamedTensors& h) {
  const Buffers at(state.parameters.size());
  detail::require_state("adam", state, gradients, 2, at.size());
  const Dtype dtype = common_dtype(state.parameters);
  const auto scalar = [&](const char* what, const Setting& setting) {
    return detail::scalar_of("adam", what, setting, h).as(dtype);
  };
  const auto each = [&](const char* what, const Setting& setting) {
    return detail::per_parameter("adam", what, setting, options.rate_groups, h, at.count);
  };
  const Tensor beta1 = scalar("beta1", options.beta1), beta2 = scalar("beta2", options.beta2),
               epsilon = scalar("epsilon", options.epsilon);
  const Tensor new1 = 1.0 - beta1, new2 = 1.0 - beta2;
  const std::vector<Value> rates = each("rate", options.rate);
  std::vector<Value> decays;
  if (!detail::is_absent(options.weight_decay)) decays = each("weight decay", options.weight_decay);

  Tensor& total1 = state.buffers[at.first_total()];
  Tensor& total2 = state.buffers[at.second_total()];
  total1 = multiply_add(beta1, total1, new1);
  total2 = multiply_add(beta2, total2, new2);
  for (std::size_t i = 0; i < at.count; ++i) {
    const Tensor rate = rates[i].as(dtype);
    Tensor &w = state.parameters[i], &g = gradients[i];
    Tensor &first = state.buffers[at.first(i)], &second = state.buffers[at.second(i)];
    if (!decays.empty()) {
      const Tensor decay = decays[i].as(dtype);
      if (options.decoupled)
        w = multiply(1.0 - rate * decay, std::move(w));
      else
        g = multiply_add(decay, w, std::move(g));
    }
    const Tensor move_rate = negate(rate / total1);
    if (step_plainly({beta1, beta2, new1, new2, total2, epsilon, move_rate}, w, first, second, g)) continue;
    first = multiply_add(beta1, std::move(first), new1 * g);
    second = multiply_add(beta2, std::move(second), new2 * square(g));
    w = multiply_add(move_rate, first / (moment_root(second / total2) + epsilon), std::move(w));
  }
  return state;
}

}  // namespace

Step adam(AdamOptions options) {
  const hypertape::detail::DefaultFloats floats;
  detail::require_finite("adam", "rate", options.rate);
  detail::require_share("adam", "beta1", options.beta1);
  detail::require_share("adam", "beta2", options.beta2);
  detail::require_not_negative("adam", "epsilon", options.epsilon);
  if (detail::is_absent(options.epsilon))
    fail("adam", "epsilon is 0; where all gradients are 0 the step would be 0 / 0");
  detail::require_not_negative("adam", "weight decay", options.weight_decay);
  detail::require_groups("adam", options.rate_groups);
  Step step;
  step.name = options.decoupled ? "adamw" : "adam";
  step.initial_buffers = [](const TensorList& parameters) {
    const Dtype dtype = common_dtype(parameters);
    TensorList buffers;
    for (int moment = 0; moment < 2; ++moment)
      for (const Tensor& p : parameters) buffers.push_back(Tensor::zeros(p.shape(), dtype));
    for (int moment = 0; moment < 2; ++moment) buffers.push_back(Tensor::scalar(0.0, dtype));
    return buffers;
  };
  step.update = [options](State state, TensorList gradients, const NamedTensors& h) {
    return update(options, std::move(state), std::move(gradients), h);
  };
  return step;
}

}  // namespace hypertape::optim
