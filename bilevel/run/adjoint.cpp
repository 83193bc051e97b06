#include "bilevel/run/adjoint.h"

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "core/backend/backend.h"

namespace hypertape::bilevel::detail {

HyperCotangent::HyperCotangent(const Run& run, const TensorList& hyper)
    : run_(run), hyper_(hyper), totals_(hyper.size()) {}

void HyperCotangent::add(std::size_t position, std::int64_t t, Tensor&& part) {
  if (!part.defined()) return;
  Tensor& total = totals_[position];
  if (!run_.is_per_step(position)) {
    total = total.defined() ? hypertape::add(std::move(total), std::move(part)) : std::move(part);
    return;
  }
  // One buffer for all rows, each written in its place: adding up T padded rows would be quadratic in T.
  if (!total.defined()) total = Tensor::zeros(hyper_[position].shape(), hyper_[position].dtype());
  const Tensor row = slice(total, 0, t, t + 1);
  const Tensor flat = hypertape::detail::make_view(row, part.shape(), nullptr, 0);
  hypertape::detail::backend_of(total)->copy(hypertape::detail::view_of(part),
                                             hypertape::detail::view_of(flat));
}

void HyperCotangent::add_step(std::int64_t t, TensorList&& direct, TensorList&& mixed) {
  add_gradients(direct, mixed);
  for (std::size_t i = 0; i < totals_.size(); ++i) add(i, t, std::move(direct[i]));
}

void add_gradients(TensorList& sums, TensorList& parts) {
  for (std::size_t i = 0; i < sums.size(); ++i) {
    if (!parts[i].defined()) continue;
    sums[i] = sums[i].defined() ? add(std::move(sums[i]), std::move(parts[i])) : std::move(parts[i]);
  }
}

DualGradient dual_gradient(const Run& run, const TensorList& w, const NamedTensors& h_t, std::int64_t t,
                           const TensorList& direction, bool wants_gradient) {
  ++run.counters().gradients;
  ++run.counters().hessian_vector_products;
  return run.in_step(t, [&] {
    return dual_gradient(
        [&](const TensorList& x, const TensorList& h) { return run.loss(x, h_t.with(h), t); }, w,
        h_t.tensors(), direction, wants_gradient);
  });
}

TensorList gradient_cotangent(const Run& run, const optim::State& cotangent, const NamedTensors& h_t) {
  return run.problem().step.gradient_cotangent(cotangent, h_t);
}

void pull_step(const Run& run, const optim::State& state, const NamedTensors& h_t, std::int64_t t,
               DualGradient&& dual, optim::State& cotangent, HyperCotangent& hyper) {
  const std::size_t parameters = state.parameters.size(), buffers = state.buffers.size();
  TensorList inputs = join(state);
  inputs.insert(inputs.end(), h_t.tensors().begin(), h_t.tensors().end());
  const auto first_hyper = static_cast<std::ptrdiff_t>(parameters + buffers);
  TensorList bars = run.in_step(t, [&] {
    return vjp(
               [&](const TensorList& x) {
                 return join(run.problem().step.update(split(x, parameters, buffers), dual.gradient,
                                                       h_t.with({x.begin() + first_hyper, x.end()})));
               },
               inputs)
        .second.consume(join(cotangent));
  });
  TensorList direct(bars.begin() + first_hyper, bars.end());
  bars.resize(parameters + buffers);
  cotangent = split(bars, parameters, buffers);
  bars.clear();
  add_gradients(cotangent.parameters, dual.hessian_vector);
  hyper.add_step(t, std::move(direct), std::move(dual.mixed));
}

TensorList node_inputs(const Run& run) {
  TensorList inputs = join(run.initial_state());
  inputs.insert(inputs.end(), run.hyper().tensors().begin(), run.hyper().tensors().end());
  return inputs;
}

TensorList node_gradients(const optim::State& cotangent, const HyperCotangent& hyper) {
  TensorList gradients = join(cotangent);
  gradients.insert(gradients.end(), hyper.totals().begin(), hyper.totals().end());
  return gradients;
}

}  // namespace hypertape::bilevel::detail
