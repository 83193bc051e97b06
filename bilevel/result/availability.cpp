#include "bilevel/result/availability.h"

#include <set>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>

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

// What depends on everything that the run reads: the initial state, and some steps from it. Only the graph
// counts, so that a loss that is not finite there is no failure.
TensorList read_by_run(const Run& run, const std::set<std::int64_t>& steps) {
  TensorList seen = run.initial_state().parameters;
  if (run.uses_solver()) return seen;
  TensorList rows = run.hyper().tensors();
  for (const std::int64_t t : steps) {
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
  std::vector<bool> by_run(h.size(), false), by_inner = by_run, by_operation = by_run;
  if (found.reads_parameters) {
    const auto by_steps = [&](const std::set<std::int64_t>& steps) {
      return reached_by([&](const TensorList& x) { return read_by_run(run_of(x), steps); }, h);
    };
    by_operation = reached_by(
        [&](const TensorList& x) {
          const Run run = run_of(x);
          TensorList read;
          for (std::size_t i = 0; i < found.first_read.size(); ++i)
            if (found.first_read[i] >= 0) read.push_back(run.hyper().tensors()[i]);
          return read;
        },
        h);
    std::set<std::int64_t> steps;
    for (const std::int64_t t : found.first_read)
      if (t >= 0) steps.insert(t);
    by_run = by_steps(steps);
    bool all_explained = true;
    for (std::size_t i = 0; i < h.size(); ++i)
      all_explained &= found.through_run[i] || by_run[i] || !by_operation[i];
    if (method.may_use_solver() && problem.solver) {
      // One step that nobody can look into.
      for (std::size_t i = 0; i < h.size(); ++i) by_run[i] = by_run[i] || by_operation[i];
    } else if (!all_explained) {
      // The first step that reads it need not be the first that depends on it.
      for (std::int64_t k = 0; k <= 6; ++k) steps.insert(k * (problem.steps - 1) / 6);
      by_run = by_steps(steps);
    }
    if (implicit)
      by_inner = reached_by(
          [&](const TensorList& x) {
            return TensorList{problem.full_loss(found.parameters, run_of(x).hyper())};
          },
          h);
  }
  for (std::size_t i = 0; i < h.size(); ++i) {
    if (found.through_run[i] || (cut && found.direct[i] && (by_run[i] || by_operation[i])))
      result[i] = cut ? Availability::partly_zero : Availability::defined;
    else if (by_inner[i] || (by_run[i] && !implicit))  // apart from the weights, or before the last steps
      result[i] = found.direct[i] ? Availability::defined : Availability::zero_by_construction;
    else if (by_run[i])
      result[i] = Availability::not_defined;
    else if (by_operation[i])
      result[i] = Availability::unknown;
    else if (found.direct[i])
      result[i] = Availability::defined;
  }
  return result;
}

}  // namespace detail
}  // namespace hypertape::bilevel
