#include <algorithm>
#include <cmath>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include "autodiff/tape/node.h"
#include "autodiff/tape/read_watch.h"
#include "bilevel/run/method.h"

namespace hypertape::bilevel {

TrainingDiverged::TrainingDiverged(std::string_view operation, std::int64_t step, const std::string& what)
    : Error(operation, step < 0 ? what : what + " at step " + std::to_string(step)), step_(step) {}
TrainingDiverged::~TrainingDiverged() = default;

OutOfRange::OutOfRange(std::string_view method, std::int64_t step, const std::string& what)
    : Error(method, what + " at step " + std::to_string(step)), step_(step) {}
OutOfRange::~OutOfRange() = default;

namespace detail {
namespace {

void require_same_form(const char* caller, const std::string& step, const char* what, const TensorList& after,
                       const TensorList& before) {
  if (after.size() != before.size())
    fail(caller, "step '", step, "' returned ", after.size(), " ", what, " for ", before.size());
  for (std::size_t i = 0; i < after.size(); ++i) {
    if (!after[i].defined()) fail(caller, "step '", step, "' returned an absent tensor among its ", what);
    const auto &a = *after[i].header(), &b = *before[i].header();
    if (a.dtype != b.dtype || a.rank != b.rank || !std::equal(a.extents(), a.extents() + a.rank, b.extents()))
      fail(caller, "step '", step, "' turned number ", i, " of its ", what, " from ", before[i].dtype(), " ",
           before[i].shape(), " into ", after[i].dtype(), " ", after[i].shape());
  }
}

// Apart from stream 0, which initial weights are usually drawn from.
constexpr std::uint32_t step_stream = 1;

constexpr std::int64_t most_steps = std::int64_t{1} << 40;

void check(const char* caller, const Problem& problem, const Method& method) {
  if (!problem.init) fail(caller, "the problem has no init");
  if (method.reach() == Reach::inner_loss && !problem.full_loss)
    fail(method.name(),
         "the problem has no full_loss, the inner loss whose minimum the method differentiates");
  if (method.may_use_solver() && problem.solver) return;
  if (!problem.loss) fail(caller, "the problem has no loss");
  if (!problem.step.update || !problem.step.initial_buffers) fail(caller, "the problem's step has no update");
  if (problem.steps < 1)
    fail(caller, "steps is ", problem.steps, "; at least 1 is needed",
         problem.solver ? " (only implicit methods and train use the problem's solver)" : "");
  if (problem.steps > most_steps)
    fail(caller, "steps is ", problem.steps, "; more than 2^40, about 1e12, are not counted");
}

using hypertape::detail::OpRule;
using hypertape::detail::Pull;
using hypertape::detail::Push;
using hypertape::detail::Supports;
constexpr OpRule passing_on(const OpRule& rule) {
  return hypertape::detail::with_supports(rule, Supports::dropped, Supports::moved);
}
constexpr OpRule identity_rule =
    passing_on({"identity", [](Pull& pull) { pull.gradients[0] = std::move(pull.cotangents[0]); },
                [](Push& push) { push.results[0] = push.tangents[0]; }});

// x, with a second operand that receives the same cotangent: what reads dF/dw_0.
constexpr OpRule probed_rule = passing_on({"probed",
                                           [](Pull& pull) {
                                             if (pull.needs(0)) pull.gradients[0] = pull.cotangents[0];
                                             if (pull.needs(1))
                                               pull.gradients[1] = std::move(pull.cotangents[0]);
                                           },
                                           [](Push& push) { push.results[0] = push.tangents[0]; }});

// The same values behind a node of the run's own. There the run's part of the cotangent is added up before it
// meets the outer loss's, in every method: hence the same bits with a tape of many steps and with one node.
Tensor with_own_node(const Tensor& x) {
  if (!x.defined() || !hypertape::detail::links_of(x).any()) return x;
  return hypertape::detail::finish_one(identity_rule, {}, hypertape::detail::NoAttributes{},
                                       hypertape::detail::make_alias(x), x);
}

// Methods that differentiate step by step start each step from plain cotangents; so does a tape of all steps.
void end_supports(const TensorList& list) {
  for (const Tensor& tensor : list) hypertape::detail::end_supports(tensor);
}

// The tensors of a state as nodes of their own: where two of them are one (slow weights at the start), their
// cotangents would be added up in another order with a tape than with a node that has two inputs.
optim::State separated(optim::State state) {
  std::vector<Tensor*> all;
  for (TensorList* list : {&state.parameters, &state.buffers})
    for (Tensor& tensor : *list) {
      const auto is_same = [&](const Tensor* other) {
        return tensor.header()->node == other->header()->node &&
               tensor.header()->output == other->header()->output;
      };
      if (tensor.defined() && hypertape::detail::links_of(tensor).recorded &&
          std::any_of(all.begin(), all.end(), is_same))
        tensor = with_own_node(tensor);
      if (tensor.defined()) all.push_back(&tensor);
    }
  end_supports(state.parameters);
  end_supports(state.buffers);
  return state;
}

}  // namespace

Run::Run(Problem problem, const NamedTensors& h, std::shared_ptr<Counters> counters, const Method& method,
         const TensorList& probes)
    : problem_(std::move(problem)),
      method_(method.name()),
      repeats_steps_(method.repeats_steps()),
      counters_(std::move(counters)) {
  const char* caller = counters_->caller;
  check(caller, problem_, method);
  uses_solver_ = method.may_use_solver() && problem_.solver;
  for (std::size_t i = 0; i < h.size(); ++i)
    if (!h.tensors()[i].defined()) fail(caller, "hyperparameter '", h.names()[i], "' is absent");
  hyper_ = problem_.prepare ? in_function("in prepare", [&] { return problem_.prepare(h); }) : h;
  TensorList own;
  for (const Tensor& tensor : hyper_.tensors()) own.push_back(with_own_node(tensor));
  hyper_ = hyper_.with(std::move(own));
  per_step_.assign(hyper_.size(), false);
  for (const std::string& name : problem_.per_step) {
    const Tensor& whole = hyper_[name];
    if (whole.rank() < 1 || whole.extent(0) != problem_.steps)
      fail(caller, "per-step hyperparameter '", name, "' has shape ", whole.shape(),
           "; its first axis must be the ", problem_.steps, " steps");
    per_step_[hyper_.find(name)] = true;
  }
  initial_ = in_function("in init", [&] { return problem_.init(hyper_); });
  if (initial_.empty()) fail(caller, "init returned no parameters");
  if (!probes.empty()) {
    TensorList probed;
    for (std::size_t i = 0; i < initial_.size(); ++i) {
      const Tensor& w = initial_.tensors()[i];
      probed.push_back(hypertape::detail::finish_one(probed_rule, {}, hypertape::detail::NoAttributes{},
                                                     hypertape::detail::make_alias(w), w, probes[i]));
    }
    initial_ = initial_.with(std::move(probed));
  }
  TensorList buffers;
  if (!uses_solver_)
    buffers = in_function("in initial_buffers", [&] {
      return problem_.initial_buffers ? problem_.initial_buffers(initial_, hyper_)
                                      : problem_.step.initial_buffers(initial_.tensors());
    });
  for (const Tensor& each : buffers)
    if (!each.defined()) fail(caller, "one of the initial buffers is absent");
  initial_state_ = separated({initial_.tensors(), std::move(buffers)});
}

Run::Rows Run::rows(const TensorList& hyper) const {
  Rows rows(hyper.size());
  for (std::size_t i = 0; i < hyper.size(); ++i)
    if (per_step_[i] && hypertape::detail::links_of(hyper[i]).any()) rows[i] = unstack(hyper[i]);
  return rows;
}

Tensor Run::row(const Tensor& whole, std::int64_t t) {
  const hypertape::detail::Header& header = *whole.header();
  const Shape shape(
      std::span<const std::int64_t>(header.extents() + 1, static_cast<std::size_t>(header.rank - 1)));
  return hypertape::detail::make_view(whole, shape, header.strides() + 1, t * header.strides()[0]);
}

NamedTensors Run::at_step(const TensorList& hyper, const Rows& rows, std::int64_t t,
                          std::int64_t first) const {
  TensorList seen = hyper;
  for (std::size_t i = 0; i < seen.size(); ++i) {
    if (!per_step_[i]) continue;
    seen[i] = rows[i].empty() ? row(hyper[i], t) : rows[i][static_cast<std::size_t>(t - first)];
  }
  return hyper_.with(std::move(seen));
}

Tensor Run::loss(const TensorList& w, const NamedTensors& h_t, std::int64_t t) const {
  const StepContext context{t, Key{problem_.seed, step_stream, static_cast<std::uint64_t>(t)}};
  Tensor value = problem_.loss(initial_.with(w), h_t, context);
  require_replay(t, value);
  return value;
}

TensorList Run::gradient(const TensorList& w, const NamedTensors& h_t, std::int64_t t, bool report) const {
  ++counters_->gradients;
  return in_step(t, [&] {
    auto [value, gradients] = value_and_grad([&](const TensorList& x) { return loss(x, h_t, t); }, w);
    const double number = value.item();
    if (!std::isfinite(number))
      diverge(counters_->caller, t, "the training loss is " + text_of(number), {value});
    if (report && problem_.on_step) problem_.on_step(t, number);
    fill_absent(gradients, w);
    return TensorList(std::move(gradients));
  });
}

optim::State Run::advance(optim::State state, const NamedTensors& h_t, std::int64_t t, bool report) const {
  TensorList gradients = gradient(state.parameters, h_t, t, report);
  end_supports(gradients);
  return in_step(t, [&] {
    // Watched, the operations must find what they read still there.
    const optim::State held = hypertape::detail::is_watched() ? state : optim::State{};
    const TensorList pushed = hypertape::detail::is_watched() ? gradients : TensorList{};
    optim::State next = problem_.step.update(std::move(state), std::move(gradients), h_t);
    require_same_form(counters_->caller, problem_.step.name, "parameters", next.parameters,
                      initial_state_.parameters);
    require_same_form(counters_->caller, problem_.step.name, "buffers", next.buffers, initial_state_.buffers);
    return separated(std::move(next));
  });
}

void Run::require_replay(std::int64_t t, const Tensor& loss) const {
  if (!repeats_steps_ || counters_->replay.agrees(t, problem_.steps, loss)) return;
  std::string text = "the training loss did not replay: " + counters_->replay.difference(t, loss);
  throw NotReplayed(method_, text.append(replay_advice()));
}

void Run::add_step(Error& error, std::int64_t t) const {
  if (dynamic_cast<const TrainingDiverged*>(&error)) return;  // says it itself
  counters_->failed_step = t;
  error.add_context("at step " + std::to_string(t) + " of " + std::to_string(problem_.steps));
}

std::string text_of(double number) {
  std::ostringstream text = hypertape::detail::text_stream();
  text << number;
  return text.str();
}

void diverge(const char* caller, std::int64_t step, const std::string& what, const TensorList& culprits) {
  TrainingDiverged error(caller, step, what);
  const std::string origin = hypertape::detail::origin_text(culprits);
  if (!origin.empty()) error.add_context(origin);
  throw error;
}

std::string_view replay_advice() noexcept {
  return "; what runs again may depend on its arguments alone: draw random numbers from context.key, choose "
         "batches by context.step, keep no generator, counter or queue, and change nothing that it reads "
         "before the derivative is there";
}

optim::State train_plainly(const Run& run, optim::State state, const TensorList& plain_hyper,
                           std::int64_t first, std::int64_t last) {
  const hypertape::detail::ReadWatch watch(plain_hyper.size());
  const hypertape::detail::ScopeMask mask({0, hypertape::detail::scope_bound()});
  for (TensorList* list : {&state.parameters, &state.buffers})
    for (Tensor& tensor : *list) tensor = stop_gradient(tensor);
  std::vector<std::int64_t>& first_read = run.counters().first_read;
  first_read.resize(plain_hyper.size(), -1);
  // Of whole hyperparameters; a row is looked after in its step. Once read, they go in as they are.
  TensorList watched(plain_hyper.size());
  const Run::Rows rows(plain_hyper.size());
  for (std::int64_t t = first; t < last; ++t) {
    NamedTensors h_t = run.at_step(plain_hyper, rows, t);
    bool is_any_unread = false;
    for (std::size_t i = 0; i < first_read.size(); ++i) is_any_unread |= first_read[i] < 0;
    if (is_any_unread) {
      TensorList seen = h_t.tensors();
      for (std::size_t i = 0; i < seen.size(); ++i) {
        if (first_read[i] >= 0) continue;
        if (run.is_per_step(i) || !watched[i].defined()) watched[i] = watch.watched(seen[i], i);
        seen[i] = watched[i];
      }
      h_t = h_t.with(std::move(seen));
    }
    state = run.advance(std::move(state), h_t, t, true);
    for (std::size_t i = 0; is_any_unread && i < first_read.size(); ++i)
      if (first_read[i] < 0 && watch.was_read(i)) first_read[i] = t;
  }
  // A step may have handed a hyperparameter on as part of the state.
  for (TensorList* list : {&state.parameters, &state.buffers})
    for (Tensor& tensor : *list) tensor = hypertape::detail::ReadWatch::released(tensor);
  for (std::size_t i = 0; i < first_read.size(); ++i)
    if (first_read[i] < 0 && watch.was_read(i)) first_read[i] = last - 1;
  return state;
}

namespace {
// The largest element would do as a unit, but costs a pass; squares go wrong only at the ends of the range.
double norm_of(const Tensor& x) {
  const bool narrow = x.dtype() == Dtype::float32;
  const double squares = dot(x, x).item();
  if (std::isnan(squares) || (std::isfinite(squares) && squares > (narrow ? 1e-30 : 1e-280)))
    return std::sqrt(squares);
  const double unit = narrow ? 0x1p80 : 0x1p510;
  const double factor = squares > 1.0 ? 1.0 / unit : unit;
  const Tensor scaled = x * factor;
  return std::sqrt(dot(scaled, scaled).item()) / factor;
}
}  // namespace

double norm(const TensorList& list) {
  double largest = 0.0;
  std::vector<double> norms;
  for (const Tensor& tensor : list) {
    if (!tensor.defined() || tensor.size() == 0) continue;
    norms.push_back(norm_of(stop_gradient(tensor)));
    if (std::isnan(norms.back())) return norms.back();
    largest = std::max(largest, norms.back());
  }
  if (largest == 0.0 || !std::isfinite(largest)) return largest;
  double total = 0.0;
  for (const double each : norms) total += (each / largest) * (each / largest);
  return largest * std::sqrt(total);
}

void require_plain(const char* operation, const TensorList& list) {
  for (const Tensor& each : list)
    if (each.defined() && hypertape::detail::links_of(each).any())
      fail(operation,
           "is not differentiable: its operator or right-hand side depends on a variable that is being "
           "differentiated; use an implicit estimator, neumann_series, or stop_gradient");
}

TensorList join(const optim::State& state) {
  TensorList list = state.parameters;
  list.insert(list.end(), state.buffers.begin(), state.buffers.end());
  return list;
}

optim::State split(const TensorList& list, std::size_t parameters, std::size_t buffers) {
  const auto middle = list.begin() + static_cast<std::ptrdiff_t>(parameters);
  return {{list.begin(), middle}, {middle, middle + static_cast<std::ptrdiff_t>(buffers)}};
}

void fill_absent(TensorList& list, const TensorList& like) {
  for (std::size_t i = 0; i < list.size(); ++i)
    if (!list[i].defined()) list[i] = Tensor::zeros(like[i].shape(), like[i].dtype());
}

}  // namespace detail
}  // namespace hypertape::bilevel
