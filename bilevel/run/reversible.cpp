// Training in fixed point, undone exactly step by step. (Maclaurin, Duvenaud and Adams 2015, algorithms 2 and
// 3; the position update uses the new velocity, which the printed algorithm 1 has wrong.)
//
// What is differentiated is the executed map, straight through its roundings. Of one step, with the executed
// velocities V before and V' after it, rate r and momentum m as executed, and l the cotangents:
//
//     V' = m V + s g          l_p = l_V' - r l_w'                 of the push s g, with s = 1 or 1 - m
//     w' = w - r V'           l_r = -<l_w', V'>
//                             l_m = <l_p, V>, less <l_p, g> if s = 1 - m
//                             l_V = m l_p,    l_w = l_w' + f_ww (s l_p),    l_h += f_hw (s l_p)
//
// V' must not be taken from m V + s g anew: V m loses up to 2^16 units of the grid to the digits in one step,
// which is all of a small velocity.
#include <optional>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/estimators.h>
#include <hypertape/core/error.h>
#include "autodiff/tape/node.h"
#include "bilevel/run/adjoint.h"
#include "bilevel/run/fixed_run.h"

namespace hypertape::bilevel {
namespace {

using detail::FixedRun;

// Rates and momenta of a step as functions of its hyperparameters.
class StepSettings {
 public:
  StepSettings(const FixedRun& fixed, const NamedTensors& h) {
    const optim::ReversibleMomentum& momentum = *fixed.run().problem().step.reversible;
    const TensorList& parameters = fixed.run().initial_state().parameters;
    auto [numbers, pullback] = vjp(
        [&](const TensorList& x) {
          const NamedTensors h_t = h.with(x);
          TensorList all = momentum.rates(parameters, h_t);
          rates_ = all.size();
          for (Tensor& each : momentum.momenta(parameters, h_t)) all.push_back(std::move(each));
          for (const Tensor& each : all) learned_.push_back(hypertape::detail::links_of(each).recorded);
          return all;
        },
        h.tensors());
    pullback_ = std::move(pullback);
    bars_.resize(numbers.size());
  }

  bool learns_rate(std::size_t parameter) const { return learned_[rate_at(parameter)]; }
  bool learns_momentum(std::size_t parameter) const { return learned_[momentum_at(parameter)]; }
  void add_rate(std::size_t parameter, Tensor bar) { add_to(rate_at(parameter), std::move(bar)); }
  void add_momentum(std::size_t parameter, Tensor bar) { add_to(momentum_at(parameter), std::move(bar)); }
  /// Cotangents of the hyperparameters.
  TensorList pull() { return pullback_->consume(bars_); }

 private:
  std::size_t rate_at(std::size_t parameter) const { return rates_ == 1 ? 0 : parameter; }
  std::size_t momentum_at(std::size_t parameter) const {
    return rates_ + (learned_.size() - rates_ == 1 ? 0 : parameter);
  }
  void add_to(std::size_t position, Tensor bar) {
    Tensor& sum = bars_[position];
    sum = sum.defined() ? add(std::move(sum), std::move(bar)) : std::move(bar);
  }

  std::optional<PullbackOf<TensorList, TensorList>> pullback_;
  std::size_t rates_ = 0;
  std::vector<bool> learned_;
  TensorList bars_;
};

// Undoes the run's last step and pulls `bar`, the cotangent of the state after it, to the state before.
void pull_last_step(FixedRun& fixed, optim::State& bar, detail::HyperCotangent& totals) {
  const std::int64_t t = fixed.step() - 1;
  const FixedRun::Numbers at = fixed.numbers(t);
  StepSettings settings(fixed, at.h);
  const std::size_t count = bar.parameters.size();
  const auto number = [&](double x) { return Tensor::scalar(x, fixed.dtype()); };
  const auto share = [&](std::size_t i) { return fixed.is_dampened() ? 1.0 - at.momentum(i) : 1.0; };

  TensorList push(count), direction(count);
  {
    const TensorList velocities = fixed.velocities();
    for (std::size_t i = 0; i < count; ++i) {
      const Tensor& w = bar.parameters[i];
      Tensor& v = bar.buffers[i];
      if (w.defined()) {
        if (settings.learns_rate(i)) settings.add_rate(i, negate(dot(w, velocities[i])));
        const Tensor move = number(-at.rates[i]);
        push[i] = v.defined() ? multiply_add(move, w, std::move(v)) : move * w;
      } else {
        push[i] = std::move(v);
      }
      if (push[i].defined()) direction[i] = fixed.is_dampened() ? number(share(i)) * push[i] : push[i];
    }
  }
  fixed.undo_weights(at);
  detail::DualGradient dual = detail::dual_gradient(fixed.run(), fixed.weights(), at.h, t, direction);
  direction.clear();
  fixed.undo_velocities(at, dual.gradient);

  TensorList velocities;
  for (std::size_t i = 0; i < count; ++i) {
    if (push[i].defined() && settings.learns_momentum(i)) {
      if (velocities.empty()) velocities = fixed.velocities();
      settings.add_momentum(i, dot(push[i], velocities[i]));
      if (fixed.is_dampened()) settings.add_momentum(i, negate(dot(push[i], dual.gradient[i])));
    }
    bar.buffers[i] = push[i].defined() ? number(at.momentum(i)) * std::move(push[i]) : Tensor();
  }
  detail::add_gradients(bar.parameters, dual.hessian_vector);
  totals.add_step(t, settings.pull(), std::move(dual.mixed));
}

TensorList pull_run(FixedRun& fixed, const TensorList& cotangents) {
  fixed.train(false);  // does nothing unless an earlier pullback has gone back to the start
  detail::HyperCotangent totals(fixed.run(), fixed.hyper());
  const std::size_t count = fixed.run().initial_state().parameters.size();
  optim::State bar = detail::split(cotangents, count, count);
  while (fixed.step() > 0) pull_last_step(fixed, bar, totals);
  fixed.require_start();
  return detail::node_gradients(bar, totals);
}

void check(const detail::Run& run) {
  const optim::Step& step = run.problem().step;
  if (!step.reversible)
    fail("reversible", "the problem's step '", step.name,
         "' has no exact inverse (no reversible_step: its member `reversible` is empty); use sgd with plain "
         "or "
         "dampened momentum, or another method");
  const TensorList& parameters = run.initial_state().parameters;
  if (run.initial_state().buffers.size() != parameters.size())
    fail("reversible", "needs one velocity per parameter tensor, but there are ",
         run.initial_state().buffers.size(), " buffers for ", parameters.size(), " parameters");
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Tensor &p = parameters[i], &v = run.initial_state().buffers[i];
    if (p.dtype() != parameters.front().dtype())
      fail("reversible", "parameters of different dtypes: ", parameters.front().dtype(), " and ", p.dtype());
    if (v.dtype() != p.dtype() || v.shape() != p.shape())
      fail("reversible", "the initial velocity of '", run.initial().names()[i], "' is ", v.dtype(), ' ',
           v.shape(), ", but the parameter is ", p.dtype(), ' ', p.shape());
  }
}

class ReversibleMethod final : public detail::Method {
 public:
  std::string name() const override { return "reversible"; }
  bool repeats_steps() const noexcept override { return true; }
  optim::State solve(const detail::RunPointer& run) const override {
    check(*run);
    const TensorList outputs =
        custom_vjp("reversible", detail::node_inputs(*run), [&](const TensorList& plain) {
          auto fixed = std::make_shared<FixedRun>(run, plain);
          fixed->train(true);
          return CustomVjp{fixed->state(),
                           [fixed](const TensorList& cotangents) { return pull_run(*fixed, cotangents); }};
        });
    return detail::split(outputs, run->initial_state().parameters.size(),
                         run->initial_state().buffers.size());
  }
};

}  // namespace

Reversible::operator Estimator() const { return Estimator(std::make_shared<ReversibleMethod>()); }

}  // namespace hypertape::bilevel
