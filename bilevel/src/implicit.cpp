#include "implicit.h"

#include <cmath>
#include <utility>

#include "custom_function.h"
#include "hypertape/autodiff/derivatives.h"
#include "hypertape/autodiff/ops.h"
#include "hypertape/core/error.h"

namespace hypertape::bilevel::detail {
namespace {

using hypertape::detail::CustomFunction;

// The hyperparameters that are differentiated, apart from the rest.
struct Chosen {
  TensorList tensors;
  std::vector<std::size_t> positions;
};

Chosen choose(const TensorList& all, const std::vector<bool>& needed) {
  Chosen chosen;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!needed[i]) continue;
    chosen.tensors.push_back(all[i]);
    chosen.positions.push_back(i);
  }
  return chosen;
}

TensorList put_back(TensorList all, const Chosen& chosen, const TensorList& values) {
  for (std::size_t k = 0; k < values.size(); ++k) all[chosen.positions[k]] = values[k];
  return all;
}

TensorList negated(TensorList list) {
  for (Tensor& each : list)
    if (each.defined()) each = negate(std::move(each));
  return list;
}

Tensor or_zeros(Tensor tensor, const Tensor& like) {
  return tensor.defined() ? tensor : Tensor::zeros(like.shape(), like.dtype());
}

}  // namespace

InnerLoss::InnerLoss(RunPointer run, std::string method)
    : run_(std::move(run)), method_(std::move(method)), shapes_(run_->initial().shapes()) {
  const TensorList& w = run_->initial().tensors();
  for (std::size_t i = 0; i < w.size(); ++i)
    if (!is_floating(w[i].dtype()) || w[i].dtype() != w[0].dtype())
      fail(method_, "parameter '", run_->initial().names()[i], "' is ", w[i].dtype(),
           "; implicit methods need floating parameters of one dtype");
}

Tensor InnerLoss::flat(const TensorList& w) const { return flatten(w, shapes_); }
TensorList InnerLoss::pieces(const Tensor& w) const { return unflatten(w, shapes_); }

Tensor InnerLoss::operator()(const Tensor& w, const TensorList& h) const {
  return run_->problem().full_loss(run_->initial().with(pieces(w)), run_->hyper().with(h));
}

Tensor InnerLoss::gradient(const Tensor& w, const TensorList& h) const {
  ++run_->counters().gradients;
  return or_zeros(grad([&](const Tensor& x) { return (*this)(x, h); }, w), w);
}

Tensor InnerLoss::hessian_vector(const Tensor& w, const TensorList& h, const Tensor& v) const {
  ++run_->counters().hessian_vector_products;
  const auto f = [&](const Tensor& x) { return (*this)(x, h); };
  return or_zeros(jvp([&](const Tensor& x) { return or_zeros(grad(f, x), x); }, w, v).second, w);
}

TensorList InnerLoss::by_hyper(const Tensor& w, const TensorList& h, const std::vector<bool>& needed) const {
  const Chosen chosen = choose(h, needed);
  ++run_->counters().gradients;
  return put_back(
      TensorList(h.size()), chosen,
      grad([&](const TensorList& x) { return (*this)(w, put_back(h, chosen, x)); }, chosen.tensors));
}

TensorList InnerLoss::mixed(const Tensor& w, const TensorList& h, const Tensor& v,
                            const std::vector<bool>& needed) const {
  const Chosen chosen = choose(h, needed);
  ++run_->counters().hessian_vector_products;
  auto [gradient, along] = jvp(
      [&](const Tensor& x) {
        return grad([&](const TensorList& y) { return (*this)(x, put_back(h, chosen, y)); }, chosen.tensors);
      },
      w, v);
  return put_back(TensorList(h.size()), chosen, along);
}

LinearMap InnerLoss::hessian(const Tensor& w, const TensorList& h) const {
  ++run_->counters().gradients;
  const LinearMap map =
      hessian_operator([this, h](const TensorList& x) { return (*this)(x.front(), h); }, {w});
  return [map, run = run_](const TensorList& v) {
    ++run->counters().hessian_vector_products;
    return map(v);
  };
}

void note(const InnerLoss& inner, const LinearSolution& solution, bool may_be_short) {
  ImplicitRecord& record = inner.run().counters().implicit;
  record.status = solution.status;
  record.residuals = solution.residuals;
  record.iterations = solution.iterations;
  if (record.is_read || solution.status == LinearStatus::converged) return;
  if (may_be_short && solution.status == LinearStatus::not_converged) return;
  fail(inner.method(), "the linear system was not solved (", name_of(solution.status), ", relative residual ",
       solution.residuals.empty() ? 1.0 : solution.residuals.back(), " after ", solution.iterations,
       " iterations); change the method's settings, or use hypergradient(), which reports this as a status");
}

Tensor inverse_hessian(const InnerLossPointer& inner, const PlainSolver& solver, const Tensor& w,
                       const TensorList& h, const Tensor& u) {
  auto function = std::make_shared<CustomFunction>();
  function->name = inner->method();
  const auto rest = [](const TensorList& inputs) { return TensorList(inputs.begin() + 2, inputs.end()); };
  function->value = [=](const TensorList& plain) {
    const LinearSolution solution = solver(inner->hessian(plain[0], rest(plain)), {plain[1]});
    note(*inner, solution);
    return solution.x.front();
  };
  // x = H^-1 u:  <b, dx> = <H^-1 b, du - dH x>
  function->pull = [=](const TensorList& inputs, const Tensor& x, const Tensor& cotangent,
                       const std::vector<bool>& needed) {
    const Tensor& point = inputs[0];
    const TensorList hyper = rest(inputs);
    const Tensor y = inverse_hessian(inner, solver, point, hyper, cotangent);
    TensorList gradients(inputs.size());
    std::vector<bool> curved = needed;
    curved[1] = false;
    const Chosen chosen = choose(inputs, curved);
    if (!chosen.tensors.empty()) {
      const TensorList by_operator = grad(
          [&](const TensorList& moved) {
            const TensorList all = put_back(inputs, chosen, moved);
            return dot(y, inner->hessian_vector(all[0], rest(all), x));
          },
          chosen.tensors);
      gradients = put_back(std::move(gradients), chosen, negated(by_operator));
    }
    if (needed[1]) gradients[1] = y;
    return gradients;
  };
  function->push = [=](const TensorList& inputs, const Tensor& x, const TensorList& tangents) {
    Tensor right = tangents[1];
    TensorList moving = tangents;
    moving[1] = Tensor();
    const Tensor by_operator =
        jvp([&](const TensorList& moved) { return inner->hessian_vector(moved[0], rest(moved), x); }, inputs,
            moving)
            .second;
    if (by_operator.defined()) right = right.defined() ? right - by_operator : negate(by_operator);
    if (!right.defined()) return Tensor();
    return inverse_hessian(inner, solver, inputs[0], rest(inputs), right);
  };
  TensorList inputs = {w, u};
  inputs.insert(inputs.end(), h.begin(), h.end());
  return call(function, inputs);
}

ImplicitRule rule_of(Inverse inverse) {
  ImplicitRule rule;
  rule.pull = [inverse](const InnerLossPointer& inner, const Tensor& w, const TensorList& h,
                        const Tensor& w_bar, const std::vector<bool>& needed) {
    return negated(inner->mixed(w, h, inverse(inner, w, h, w_bar), needed));
  };
  rule.push = [inverse](const InnerLossPointer& inner, const Tensor& w, const TensorList& h,
                        const TensorList& h_dot) {
    const Tensor right = jvp([&](const TensorList& x) { return inner->gradient(w, x); }, h, h_dot).second;
    return right.defined() ? negate(inverse(inner, w, h, right)) : Tensor();
  };
  return rule;
}

namespace {

TensorList ask_solver(const Run& run, const TensorList& w, const TensorList& h, const std::string& method) {
  const NamedTensors found = run.problem().solver(run.initial().with(w), run.hyper().with(h));
  if (found.names() != run.initial().names())
    fail(method, "the problem's solver returned other parameters than init");
  for (std::size_t i = 0; i < w.size(); ++i) {
    const Tensor& tensor = found.tensors()[i];
    if (!tensor.defined() || tensor.shape() != w[i].shape() || tensor.dtype() != w[i].dtype())
      fail(method, "the problem's solver returned parameter '", found.names()[i],
           "' in another form than init: ", w[i].dtype(), " ", w[i].shape(), " expected");
  }
  return found.tensors();
}

}  // namespace

optim::State solve_implicitly(const RunPointer& run, const std::string& method, ImplicitRule rule) {
  const auto inner = std::make_shared<const InnerLoss>(run, method);
  auto function = std::make_shared<CustomFunction>();
  function->name = method;
  function->value = [=](const TensorList& plain) {
    TensorList start;
    for (const Tensor& w : run->initial_state().parameters) start.push_back(stop_gradient(w));
    ImplicitRecord& record = run->counters().implicit;
    record.initial_gradient = norm({inner->gradient(inner->flat(start), plain)});
    TensorList end = run->uses_solver()
                         ? ask_solver(*run, start, plain, method)
                         : train_plainly(*run, run->initial_state(), plain, 0, run->steps()).parameters;
    const Tensor w = inner->flat(end);
    record.final_gradient = norm({inner->gradient(w, plain)});
    return w;
  };
  function->pull = [inner, rule](const TensorList& inputs, const Tensor& w, const Tensor& cotangent,
                                 const std::vector<bool>& needed) {
    return rule.pull(inner, w, inputs, cotangent, needed);
  };
  function->push = [inner, rule](const TensorList& inputs, const Tensor& w, const TensorList& tangents) {
    if (!rule.push) fail(inner->method(), "has a pullback only: use it under grad or vjp, not under jvp");
    return rule.push(inner, w, inputs, tangents);
  };
  return {inner->pieces(call(function, run->hyper().tensors())), {}};
}

}  // namespace hypertape::bilevel::detail
