// Every state is kept; each step is differentiated by a gradient with dual numbers, last step first.
#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/estimators.h>
#include "bilevel/run/adjoint.h"

namespace hypertape::bilevel {
namespace {

// Without the closed form, the gradient's cotangent needs the gradient itself: one more gradient per step,
// which the dual step need not give again.
detail::DualGradient dual_gradient_at(const detail::Run& run, const optim::State& state,
                                      const NamedTensors& h_t, std::int64_t t,
                                      const optim::State& cotangent) {
  if (run.problem().step.gradient_cotangent)
    return detail::dual_gradient(run, state.parameters, h_t, t,
                                 detail::gradient_cotangent(run, cotangent, h_t));
  TensorList gradient = run.gradient(state.parameters, h_t, t);
  auto [next, pullback] = vjp(
      [&](const TensorList& g) { return detail::join(run.problem().step.update(state, g, h_t)); }, gradient);
  detail::DualGradient dual =
      detail::dual_gradient(run, state.parameters, h_t, t, pullback.consume(detail::join(cotangent)), false);
  dual.gradient = std::move(gradient);
  return dual;
}

TensorList pull_trajectory(const detail::Run& run, const std::vector<optim::State>& states,
                           const TensorList& hyper, const TensorList& cotangents) {
  const detail::Run::Rows rows = run.rows(hyper);
  detail::HyperCotangent totals(run, hyper);
  optim::State bar =
      detail::split(cotangents, run.initial_state().parameters.size(), run.initial_state().buffers.size());
  for (std::int64_t t = run.steps() - 1; t >= 0; --t) {
    const optim::State& state = states[static_cast<std::size_t>(t)];
    const NamedTensors h_t = run.at_step(hyper, rows, t);
    detail::DualGradient dual = dual_gradient_at(run, state, h_t, t, bar);
    detail::pull_step(run, state, h_t, t, std::move(dual), bar, totals);
  }
  return detail::node_gradients(bar, totals);
}

class TrajectoryMethod final : public detail::Method {
 public:
  std::string name() const override { return "trajectory"; }
  bool repeats_steps() const noexcept override { return true; }
  optim::State solve(const detail::RunPointer& run) const override {
    const std::size_t parameters = run->initial_state().parameters.size(),
                      buffers = run->initial_state().buffers.size();
    const auto forward = [&](const TensorList& plain) {
      const TensorList hyper(plain.begin() + static_cast<std::ptrdiff_t>(parameters + buffers), plain.end());
      const detail::Run::Rows rows = run->rows(hyper);
      std::vector<optim::State> states;
      optim::State state = detail::split(plain, parameters, buffers);
      for (std::int64_t t = 0; t < run->steps(); ++t) {
        optim::State next = run->advance(state, run->at_step(hyper, rows, t), t, true);
        states.push_back(std::move(state));
        state = std::move(next);
      }
      return CustomVjp{detail::join(state),
                       [run, states = std::move(states), hyper](const TensorList& cotangents) {
                         return pull_trajectory(*run, states, hyper, cotangents);
                       }};
    };
    return detail::split(custom_vjp("trajectory", detail::node_inputs(*run), forward), parameters, buffers);
  }
};

}  // namespace

Trajectory::operator Estimator() const { return Estimator(std::make_shared<TrajectoryMethod>()); }

}  // namespace hypertape::bilevel
