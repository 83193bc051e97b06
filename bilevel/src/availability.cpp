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

// What depends on everything that the run reads: the initial state, and single steps from it. A few steps
// stand for all: the graph of one seldom differs from the others'.
TensorList read_by_run(const Run& run) {
  constexpr std::int64_t looked_at = 6;
  TensorList seen = run.initial_state().parameters;
  if (run.uses_solver()) return seen;
  const TensorList& hyper = run.hyper().tensors();
  TensorList recorded_rows = hyper;
  std::int64_t last = -1;
  for (std::int64_t k = 0; k <= looked_at; ++k) {
    const std::int64_t t = k * (run.steps() - 1) / looked_at;
    if (std::exchange(last, t) == t) continue;
    for (std::size_t i = 0; i < hyper.size(); ++i)
      if (run.is_per_step(i)) recorded_rows[i] = slice(hyper[i], 0, t, t + 1);
    for (const Tensor& each :
         join(run.advance(run.initial_state(), run.at_step(recorded_rows, run.rows(recorded_rows), 0), t)))
      seen.push_back(each);
  }
  return seen;
}

}  // namespace

std::vector<Availability> availability_of(const Problem& problem, const NamedTensors& h, const Method& method,
                                          const std::shared_ptr<Counters>& counters,
                                          const NamedTensors& parameters,
                                          const std::vector<bool>& through_run,
                                          const std::vector<bool>& direct) {
  std::vector<Availability> result(h.size(), Availability::unused);
  const Reach reach = method.reach();
  const auto run_of = [&](const TensorList& x) { return Run(problem, h.with(x), counters, method); };
  std::vector<bool> by_run(h.size(), false), by_rows = by_run, by_inner = by_run;
  if (reach != Reach::whole_run)
    by_run = reached_by([&](const TensorList& x) { return read_by_run(run_of(x)); }, h);
  if (reach == Reach::last_steps && method.first_step(problem.steps) > 0)
    by_rows = reached_by(
        [&](const TensorList& x) {
          const Run run = run_of(x);
          TensorList rows;
          for (std::size_t i = 0; i < run.hyper().size(); ++i)
            if (run.is_per_step(i)) rows.push_back(run.hyper().tensors()[i]);
          return rows;
        },
        h);
  if (reach == Reach::inner_loss)
    by_inner = reached_by(
        [&](const TensorList& x) { return TensorList{problem.full_loss(parameters, run_of(x).hyper())}; }, h);
  for (std::size_t i = 0; i < h.size(); ++i) {
    if (through_run[i])
      result[i] = by_rows[i] ? Availability::partly_zero : Availability::defined;
    else if (by_inner[i])  // in the inner loss, but apart from the weights
      result[i] = direct[i] ? Availability::defined : Availability::zero_by_construction;
    else if (by_run[i])
      result[i] = reach == Reach::inner_loss ? Availability::not_defined
                  : direct[i]                ? Availability::defined
                                             : Availability::zero_by_construction;
    else if (direct[i])
      result[i] = Availability::defined;
  }
  return result;
}

}  // namespace detail
}  // namespace hypertape::bilevel
