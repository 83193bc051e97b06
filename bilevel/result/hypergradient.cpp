#include <hypertape/bilevel/hypergradient.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iomanip>
#include <limits>
#include <ostream>
#include <sstream>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include <hypertape/core/memory.h>
#include "autodiff/tape/node.h"
#include "bilevel/minimum/implicit.h"
#include "bilevel/result/availability.h"
#include "bilevel/run/method.h"
#include "core/base/classic_print.h"
#include "core/base/default_floats.h"

namespace hypertape::bilevel {
namespace {

using detail::Counters;
using detail::Run;

Solution solution_of(const Run& run, const optim::State& state) {
  return {run.initial().with(state.parameters), state.buffers};
}

// Fills in the cost of whatever happens between construction and finish().
class Meter {
 public:
  Cost finish(const Counters& counters) const {
    Cost cost;
    cost.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    cost.peak_bytes = peak_.peak_bytes();
    cost.gradients = counters.gradients;
    cost.hessian_vector_products = counters.hessian_vector_products;
    return cost;
  }

 private:
  PeakScope peak_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

template <class Result>
void set_failed(Result& result, ResultStatus status, std::int64_t step, const Error& error) {
  result.status = status;
  result.value = std::numeric_limits<double>::quiet_NaN();
  result.failed_step = step;
  result.message = error.what();
}

// Runs `work`; a run that diverges or does not replay is a result. Returns whether there is one of the other
// kind.
template <class Result, class Work>
bool succeeds(Result& result, const Counters& counters, const Work& work) {
  try {
    work();
    return true;
  } catch (const TrainingDiverged& error) {
    set_failed(result, ResultStatus::diverged, error.step(), error);
  } catch (const NotReplayed& error) {
    set_failed(result, ResultStatus::not_replayed, counters.failed_step, error);
  }
  return false;
}

// The outer loss, whose value must be the same at the end of every run.
Tensor outer_loss(const OuterLoss& outer, const NamedTensors& w, const NamedTensors& h, Counters& counters) {
  Tensor value = detail::in_function("in the outer loss", [&] { return outer(w, h); });
  if (!counters.outer_replay.agrees(0, 1, value))
    throw NotReplayed("hypergradient",
                      "the outer loss did not replay: " + counters.outer_replay.difference(0, value) +
                          std::string(detail::replay_advice()));
  return value;
}

// What a message about a failure says when the failure is looked at again.
template <class Result, class Again>
void explain(Result& result, const Problem& problem, const HypergradientOptions& options,
             const Again& again) {
  if (!options.anomaly || result.status != ResultStatus::diverged) return;
  Problem silent = problem;
  silent.on_step = {};
  const AnomalyScope watch;
  const Result second = again(silent);
  result.message = second.status == ResultStatus::diverged
                       ? second.message
                       : result.message + "; a second run, to look for the reason, was finite";
}

// Tensors shaped like w_0, without memory of their own, that receive dF/dw_0.
TensorList make_probes(const Problem& problem, const NamedTensors& h, const detail::Method& method) {
  TensorList probes;
  const Run run(problem, h, std::make_shared<Counters>(), method);
  for (const Tensor& w : run.initial().tensors())
    probes.push_back(expand(Tensor::scalar(0.0, w.dtype()), w.shape()));
  return probes;
}

// Who reads what an implicit solve notes; after that, solves that fail must throw.
class RecordReader {
 public:
  explicit RecordReader(Counters& counters) : counters_(counters) { counters_.implicit.is_read = true; }
  ~RecordReader() { counters_.implicit.is_read = false; }
  RecordReader(const RecordReader&) = delete;
  RecordReader& operator=(const RecordReader&) = delete;

 private:
  Counters& counters_;
};

std::vector<bool> are_defined(const TensorList& list, std::size_t count) {
  std::vector<bool> defined(count);
  for (std::size_t i = 0; i < count; ++i) defined[i] = list[i].defined();
  return defined;
}

// Adds F_h where the method is defined, and says where it is not.
void add_direct(const Problem& problem, const NamedTensors& h, const detail::Method& method,
                const TensorList& direct, bool reads_parameters, const Counters& counters,
                TensorList& gradients, Hypergradient& result) {
  result.availability =
      availability_of(problem, h, method,
                      {result.parameters, are_defined(gradients, h.size()), are_defined(direct, h.size()),
                       reads_parameters, counters.first_read});
  for (std::size_t i = 0; i < h.size(); ++i) {
    if (result.availability[i] == Availability::not_defined ||
        result.availability[i] == Availability::unknown)
      gradients[i] = Tensor();
    else if (direct[i].defined())
      gradients[i] = gradients[i].defined() ? gradients[i] + direct[i] : direct[i];
  }
}

void differentiate_in_reverse(const Problem& problem, const OuterLoss& outer, const NamedTensors& h,
                              const detail::Method& method, const std::shared_ptr<Counters>& counters,
                              Hypergradient& result) {
  TensorList inputs = h.tensors();
  const auto count = static_cast<std::ptrdiff_t>(inputs.size());
  for (Tensor& probe : make_probes(problem, h, method)) inputs.push_back(std::move(probe));
  NamedTensors names;
  const auto solve_from = [&](const TensorList& x) {
    const auto run = std::make_shared<const Run>(problem, h.with({x.begin(), x.begin() + count}), counters,
                                                 method, TensorList(x.begin() + count, x.end()));
    const optim::State state = method.solve(run);
    names = run->initial().with(TensorList(state.parameters.size()));
    return state.parameters;
  };
  auto [w, pullback] = vjp(solve_from, inputs);
  result.parameters = names.with(w);

  TensorList outer_inputs = w;
  outer_inputs.insert(outer_inputs.end(), h.tensors().begin(), h.tensors().end());
  const auto split = static_cast<std::ptrdiff_t>(w.size());
  auto [value, bars] = value_and_grad(
      [&](const TensorList& x) {
        return outer_loss(outer, names.with({x.begin(), x.begin() + split}),
                          h.with({x.begin() + split, x.end()}), *counters);
      },
      outer_inputs);
  result.value = value.item();
  if (!std::isfinite(result.value))
    detail::diverge(counters->caller, -1, "the outer loss is not finite after the last step", {value});

  const TensorList w_bar(bars.begin(), bars.begin() + split);
  TensorList direct(bars.begin() + split, bars.end());  // F_h
  bars.clear();
  TensorList gradients;
  if (method.reach() == detail::Reach::whole_run) {
    direct.resize(inputs.size());
    gradients = pullback.consume(w_bar, std::move(direct));
  } else {
    gradients = pullback.consume(w_bar);
    const bool reads_parameters =
        std::any_of(w_bar.begin(), w_bar.end(), [](const Tensor& bar) { return bar.defined(); });
    add_direct(problem, h, method, direct, reads_parameters, *counters, gradients, result);
  }
  result.gradients = h.with({gradients.begin(), gradients.begin() + count});
  const double end = detail::norm(w_bar);
  const double start = detail::norm({gradients.begin() + count, gradients.end()});
  if (end > 0.0) result.adjoint_growth = start / end;
}

// One run with dual numbers.
struct Pushed {
  double value = 0.0;
  Tensor derivative;  ///< absent if the direction has no path to the outer loss
  NamedTensors parameters;
};

Pushed push(const Problem& problem, const OuterLoss& outer, const NamedTensors& h,
            const detail::Method& method, const TensorList& direction,
            const std::shared_ptr<Counters>& counters) {
  Pushed pushed;
  auto [value, derivative] = jvp(
      [&](const TensorList& x) {
        const NamedTensors moved = h.with(x);
        const auto run = std::make_shared<const Run>(problem, moved, counters, method);
        const optim::State state = method.solve(run);
        TensorList plain;
        for (const Tensor& w : state.parameters) plain.push_back(stop_gradient(w));
        pushed.parameters = run->initial().with(std::move(plain));
        return outer_loss(outer, run->initial().with(state.parameters), moved, *counters);
      },
      h.tensors(), direction);
  pushed.value = value.item();
  pushed.derivative = std::move(derivative);
  if (!std::isfinite(pushed.value) ||
      (pushed.derivative.defined() && !std::isfinite(pushed.derivative.item())))
    detail::diverge(counters->caller, -1,
                    "the outer loss or its derivative is not finite after the last step",
                    {value, pushed.derivative});
  return pushed;
}

// How much a random change of the initial weights grows over the run: for a generic outer loss about the
// growth of the adjoint, whose mean square over all directions is the same, the Jacobian's Frobenius norm.
double random_growth(const Problem& problem, const NamedTensors& h, const detail::Method& method,
                     const std::shared_ptr<Counters>& counters) {
  constexpr std::uint32_t growth_stream = 2;
  Problem moved = problem;
  moved.on_step = {};
  const NamedTensors initial = Run(moved, h, counters, method).initial();
  TensorList start = initial.tensors(), changes(initial.size());
  for (std::size_t i = 0; i < start.size(); ++i)
    if (is_floating(start[i].dtype()))
      changes[i] = random(start[i].shape(), Distribution::normal, Key{problem.seed, growth_stream, i},
                          start[i].dtype());
  const auto end_of = [&](const TensorList& w) {
    moved.init = [&](const NamedTensors&) { return initial.with(w); };
    return method.solve(std::make_shared<const Run>(moved, h, counters, method)).parameters;
  };
  const double before = detail::norm(changes);
  return before > 0.0 ? detail::norm(jvp(end_of, start, changes).second) / before : 0.0;
}

// One directional derivative per scalar hyperparameter.
void differentiate_forward(const Problem& problem, const OuterLoss& outer, const NamedTensors& h,
                           const detail::Method& method, const std::shared_ptr<Counters>& counters,
                           const HypergradientOptions& options, Hypergradient& result) {
  std::int64_t scalars = 0;
  for (const Tensor& tensor : h.tensors())
    scalars += tensor.defined() && is_floating(tensor.dtype()) ? tensor.size() : 0;
  method.check_size(scalars);
  const auto along = [&](TensorList direction) {
    Pushed pushed = push(problem, outer, h, method, direction, counters);
    result.value = pushed.value;
    result.parameters = std::move(pushed.parameters);
    return std::move(pushed.derivative);
  };
  if (scalars == 0) along(TensorList(h.size()));
  TensorList gradients(h.size());
  for (std::size_t i = 0; i < h.size(); ++i) {
    const Tensor& whole = h.tensors()[i];
    if (!whole.defined()) fail("hypergradient", "hyperparameter '", h.names()[i], "' is absent");
    if (!is_floating(whole.dtype())) continue;
    auto column = hypertape::detail::list_of<std::vector<double>>(whole.size());
    bool used = false;
    for (std::int64_t k = 0; k < whole.size(); ++k) {
      const Tensor unit = pad(Tensor::ones({1}, whole.dtype()), 0, k, whole.size());
      TensorList direction(h.size());
      direction[i] = reshape(unit, whole.shape());
      const Tensor derivative = along(std::move(direction));
      if (!derivative.defined()) continue;
      used = true;
      column[static_cast<std::size_t>(k)] = derivative.item();
    }
    if (!used) continue;
    if (whole.dtype() == Dtype::float64) {
      gradients[i] = Tensor::from(column, whole.shape());
    } else {
      gradients[i] = Tensor::from(std::vector<float>(column.begin(), column.end()), whole.shape());
    }
  }
  result.gradients = h.with(std::move(gradients));
  if (options.measure_growth) result.adjoint_growth = random_growth(problem, h, method, counters);
}

std::string growth_text(const char* what, double growth) {
  std::ostringstream text = hypertape::detail::text_stream();
  if (std::isfinite(growth))
    text << what << " grew " << std::setprecision(3) << growth << " times over the run";
  else
    text << what << " grew beyond the range of its numbers over the run";
  return text.str();
}
constexpr const char* adjoint = "the adjoint";
constexpr const char* random_change = "a random change of the initial weights";

void judge(const Problem& problem, const detail::Method& method, const Counters& counters,
           Hypergradient& result) {
  if (!(result.adjoint_growth <= chaotic_growth)) {  // a growth that overflowed may be NaN
    result.status = ResultStatus::chaotic;
    result.message = growth_text(method.is_forward() ? random_change : adjoint, result.adjoint_growth);
  }
  const bool finite =
      std::none_of(result.gradients.tensors().begin(), result.gradients.tensors().end(),
                   [](const Tensor& gradient) { return gradient.defined() && has_non_finite(gradient); });
  // An implicit method knows better than its result what went wrong.
  if (finite || method.reach() == detail::Reach::inner_loss) method.judge(problem, counters, result);
  if (finite) return;
  const std::string origin = hypertape::detail::origin_text(result.gradients.tensors());
  result.gradients = result.gradients.with(TensorList(result.gradients.size()));
  if (method.reach() == detail::Reach::inner_loss && result.status != ResultStatus::converged) return;
  result.status = ResultStatus::diverged;
  result.message =
      "the hypergradient is not finite (" +
      (origin.empty() ? std::string("the option `anomaly` names the operation and the step") : origin) + ")";
}

// Where the graph of the whole run decides, what is absent is unused; but integers have no derivative,
// whether they are used or not.
void name_absent(const NamedTensors& h, Hypergradient& result) {
  if (result.availability.empty())
    for (const Tensor& gradient : result.gradients.tensors())
      result.availability.push_back(gradient.defined() ? Availability::defined : Availability::unused);
  for (std::size_t i = 0; i < h.size(); ++i)
    if (!is_floating(h.tensors()[i].dtype())) result.availability[i] = Availability::not_defined;
}

}  // namespace

std::string Estimator::name() const { return method_->name(); }
std::string Estimator::setting() const { return method_->setting(); }

std::string_view name_of(ResultStatus status) noexcept {
  switch (status) {
    case ResultStatus::exact:
      return "exact";
    case ResultStatus::chaotic:
      return "chaotic";
    case ResultStatus::diverged:
      return "diverged";
    case ResultStatus::approximate:
      return "approximate";
    case ResultStatus::converged:
      return "converged";
    case ResultStatus::not_converged:
      return "not converged";
    case ResultStatus::negative_curvature:
      return "negative curvature";
    case ResultStatus::unstable_series:
      return "unstable series";
    case ResultStatus::not_replayed:
      return "not replayed";
  }
  return "unknown";
}

bool is_failure(ResultStatus status) noexcept {
  return status == ResultStatus::diverged || status == ResultStatus::not_replayed;
}

Solution solve(const Problem& problem, const NamedTensors& h, const Estimator& estimator) {
  const hypertape::detail::DefaultFloats floats;
  const auto run = std::make_shared<const Run>(
      problem, h, std::make_shared<Counters>(Counters{.caller = "solve"}), estimator.method());
  return solution_of(*run, estimator.method().solve(run));
}

namespace {
// The problem's solver, or its steps.
class Training final : public detail::Method {
 public:
  std::string name() const override { return "train"; }
  bool may_use_solver() const noexcept override { return true; }
  optim::State solve(const detail::RunPointer& run) const override {
    const optim::State& start = run->initial_state();
    const TensorList& hyper = run->hyper().tensors();
    if (run->uses_solver()) return {detail::ask_solver(*run, start.parameters, hyper, name()), {}};
    return detail::train_plainly(*run, start, hyper, 0, run->steps());
  }
};
}  // namespace

Solution detail::train_for(const char* caller, const Problem& problem, const NamedTensors& h) {
  const hypertape::detail::DefaultFloats floats;
  // Masked, so that nothing is recorded even if the problem's functions use variables being differentiated.
  const hypertape::detail::ScopeMask mask({0, hypertape::detail::scope_bound()});
  const Training training;
  const auto run = std::make_shared<const Run>(
      problem, h, std::make_shared<Counters>(Counters{.caller = caller}), training);
  return solution_of(*run, training.solve(run));
}

Solution train(const Problem& problem, const NamedTensors& h) {
  return detail::train_for("train", problem, h);
}

std::vector<std::string> Hypergradient::unused() const {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < gradients.size(); ++i)
    if (i < availability.size() && availability[i] == Availability::unused)
      names.push_back(gradients.names()[i]);
  return names;
}

namespace {
template <class Result>
void note_kinks(Result& result, const std::vector<std::string>& operations) {
  result.kinks = operations;
  for (const std::string& operation : operations) {
    if (!result.message.empty()) result.message += "; ";
    result.message += "second derivatives met the kink of " + operation + " at 0 and took 0 for it";
  }
}
}  // namespace

Hypergradient hypergradient(const Problem& problem, const OuterLoss& outer, const NamedTensors& h,
                            const Estimator& estimator, const HypergradientOptions& options) {
  const hypertape::detail::DefaultFloats floats;
  if (!outer) fail("hypergradient", "there is no outer loss");
  Hypergradient result;
  result.method = estimator.name();
  result.setting = estimator.setting();
  const auto counters = std::make_shared<Counters>();
  const RecordReader reader(*counters);
  const Meter meter;
  const KinkWatch watch;
  const bool succeeded = succeeds(result, *counters, [&] {
    if (estimator.method().is_forward())
      differentiate_forward(problem, outer, h, estimator.method(), counters, options, result);
    else
      differentiate_in_reverse(problem, outer, h, estimator.method(), counters, result);
    name_absent(h, result);
    judge(problem, estimator.method(), *counters, result);
  });
  if (!succeeded) {
    result.gradients = h.with(TensorList(h.size()));
    result.availability.assign(h.size(), Availability::unknown);
  }
  note_kinks(result, watch.operations());
  result.cost = meter.finish(*counters);
  explain(result, problem, options,
          [&](const Problem& again) { return hypergradient(again, outer, h, estimator); });
  return result;
}

DirectionalDerivative directional_derivative(const Problem& problem, const OuterLoss& outer,
                                             const NamedTensors& h, const NamedTensors& direction,
                                             const HypergradientOptions& options) {
  const hypertape::detail::DefaultFloats floats;
  if (!outer) fail("directional_derivative", "there is no outer loss");
  if (direction.names() != h.names())
    fail("directional_derivative", "the direction must have the hyperparameters' names, in their order");
  for (std::size_t i = 0; i < h.size(); ++i) {
    const Tensor& whole = h.tensors()[i];
    if (direction.tensors()[i].defined() && whole.defined() && !is_floating(whole.dtype()))
      fail("directional_derivative", "hyperparameter '", h.names()[i], "' is ", whole.dtype(),
           ", in which nothing has a derivative; leave its direction absent");
  }
  DirectionalDerivative result;
  const auto counters = std::make_shared<Counters>(Counters{.caller = "directional_derivative"});
  const Meter meter;
  std::vector<std::string> kinks;
  succeeds(result, *counters, [&] {
    const Estimator forward = Forward{};
    const Pushed pushed = [&] {
      const KinkWatch watch;
      try {
        Pushed along = push(problem, outer, h, forward.method(), direction.tensors(), counters);
        kinks = watch.operations();
        return along;
      } catch (...) {
        kinks = watch.operations();
        throw;
      }
    }();
    result.value = pushed.value;
    if (pushed.derivative.defined())
      result.derivative = pushed.derivative.item();
    else
      result.message = "the direction has no path to the outer loss: zero by construction";
    if (options.measure_growth) result.growth = random_growth(problem, h, forward.method(), counters);
    if (!(result.growth <= chaotic_growth)) {
      result.status = ResultStatus::chaotic;
      if (!result.message.empty()) result.message += "; ";
      result.message += growth_text(random_change, result.growth);
    }
  });
  note_kinks(result, kinks);
  result.cost = meter.finish(*counters);
  explain(result, problem, options,
          [&](const Problem& again) { return directional_derivative(again, outer, h, direction); });
  return result;
}

namespace {

void print(std::ostream& out, const Hypergradient& result) {
  out << "method   " << result.method << (result.setting.empty() ? "" : ", ") << result.setting << '\n'
      << "status   " << name_of(result.status) << (result.message.empty() ? "" : ": ") << result.message
      << '\n'
      << "value    " << result.value << '\n'
      << "cost     " << result.cost.gradients << " gradients, " << result.cost.hessian_vector_products
      << " Hessian-vector products, " << result.cost.seconds << " s, peak " << result.cost.peak_bytes
      << " bytes\n";
  std::size_t width = 0;
  for (const std::string& name : result.gradients.names()) width = std::max(width, name.size());
  for (std::size_t i = 0; i < result.gradients.size(); ++i) {
    const Tensor& gradient = result.gradients.tensors()[i];
    // One that somebody else has put together may not say.
    const Availability availability =
        i < result.availability.size() ? result.availability[i] : Availability::unknown;
    out << "  " << std::left << std::setw(static_cast<int>(width)) << result.gradients.names()[i] << "  ";
    if (!gradient.defined())
      out << (is_failure(result.status) ? "none" : name_of(availability)) << '\n';
    else
      out << "norm " << detail::norm({gradient}) << ", shape " << gradient.shape()
          << (availability == Availability::partly_zero ? ", " + std::string(name_of(availability)) : "")
          << '\n';
  }
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Hypergradient& result) {
  return hypertape::detail::print_classic(out, [&](std::ostream& text) { print(text, result); });
}

}  // namespace hypertape::bilevel
