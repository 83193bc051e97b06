#include "availability.h"

#include <utility>

#include "hypertape/autodiff/derivatives.h"
#include "hypertape/autodiff/ops.h"

namespace hypertape::bilevel {

std::string_view name_of(Availability availability) noexcept {
  switch (availability) {
    case Availability::defined:
      return "defined";
    case Availability::unused:
      return "unused";
    case Availability::not_defined:
      return "not defined";
    case Availability::zero_by_construction:
      return "zero by construction";
    case Availability::partly_zero:
      return "zero by construction before the last steps";
    case Availability::unknown:
      return "unknown";
  }
  return "unknown";
}

namespace detail {
namespace {

// Which hyperparameters have a path to what `f` returns.
template <class F>
std::vector<bool> reached_by(const F& f, const NamedTensors& h) {
  auto [values, pullback] = vjp(f, h.tensors());
  TensorList ones;
  for (const Tensor& value : values)
    ones.push_back(value.defined() && is_floating(value.dtype()) ? Tensor::ones(value.shape(), value.dtype())
                                                                 : Tensor());
  std::vector<bool> reached;
  for (const Tensor& gradient : pullback.consume(ones)) reached.push_back(gradient.defined());
  return reached;
}

// What depends on everything that the run reads: the initial state, and single steps from it. Only the graph
// counts, so that a loss that is not finite there is no failure.
TensorList read_by_run(const Run& run) {
  constexpr std::int64_t looked_at = 6;
  TensorList seen = run.initial_state().parameters;
  if (run.uses_solver()) return seen;
  TensorList rows = run.hyper().tensors();
  std::int64_t last = -1;
  for (std::int64_t k = 0; k <= looked_at; ++k) {
    const std::int64_t t = k * (run.steps() - 1) / looked_at;
    if (std::exchange(last, t) == t) continue;
    for (std::size_t i = 0; i < rows.size(); ++i)
      if (run.is_per_step(i)) rows[i] = slice(run.hyper().tensors()[i], 0, t, t + 1);
    const NamedTensors h_t = run.at_step(rows, run.rows(rows), 0);
    const optim::State& state = run.initial_state();
    TensorList gradient = grad([&](const TensorList& w) { return run.loss(w, h_t, t); }, state.parameters);
    fill_absent(gradient, state.parameters);
    for (Tensor& each : join(run.problem().step.update(state, gradient, h_t)))
      seen.push_back(std::move(each));
  }
  return seen;
}

}  // namespace

std::vector<Availability> availability_of(const Problem& problem, const NamedTensors& h, const Method& method,
                                          const Found& found) {
  std::vector<Availability> result(h.size(), Availability::unused);
  const bool implicit = method.reach() == Reach::inner_loss;
  const bool cut = !implicit && method.first_step(problem.steps) > 0;
  const auto run_of = [&](const TensorList& x) {
    return Run(problem, h.with(x), std::make_shared<Counters>(), method);
  };
  std::vector<bool> by_run(h.size(), false), by_inner = by_run;
  if (found.reads_parameters) {
    by_run = reached_by([&](const TensorList& x) { return read_by_run(run_of(x)); }, h);
    if (implicit)
      by_inner = reached_by(
          [&](const TensorList& x) {
            return TensorList{problem.full_loss(found.parameters, run_of(x).hyper())};
          },
          h);
  }
  for (std::size_t i = 0; i < h.size(); ++i) {
    if (found.through_run[i])
      result[i] = cut ? Availability::partly_zero : Availability::defined;
    else if (by_inner[i] || (by_run[i] && !implicit))  // apart from the weights, or before the last steps
      result[i] = found.direct[i] ? Availability::defined : Availability::zero_by_construction;
    else if (by_run[i])
      result[i] = Availability::not_defined;
    else if (found.direct[i])
      result[i] = Availability::defined;
  }
  return result;
}

}  // namespace detail
}  // namespace hypertape::bilevel
