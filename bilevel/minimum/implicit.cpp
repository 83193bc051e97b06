#include "bilevel/minimum/implicit.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include "autodiff/tape/custom_function.h"
#include "autodiff/tape/read_watch.h"
#include "bilevel/minimum/linear_operator.h"
#include "core/tensor/header.h"

namespace hypertape::bilevel::detail {
namespace {

using hypertape::detail::CustomFunction;
using hypertape::detail::Wanted;

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
  Tensor value = in_function("in full_loss", [&] {
    return run_->problem().full_loss(run_->initial().with(pieces(w)), run_->hyper().with(h));
  });
  Counters& counters = run_->counters();
  if (w.header()->data == counters.minimum && !counters.inner_replay.agrees(0, 1, value))
    throw NotReplayed(method_, "full_loss did not replay: " + counters.inner_replay.difference(0, value) +
                                   std::string(replay_advice()));
  return value;
}

Tensor InnerLoss::gradient(const Tensor& w, const TensorList& h) const {
  ++run_->counters().gradients;
  return or_zeros(grad([&](const Tensor& x) { return (*this)(x, h); }, w), w);
}

Tensor InnerLoss::hessian_vector(const Tensor& w, const TensorList& h, const Tensor& v) const {
  ++run_->counters().hessian_vector_products;
  const auto f = [&](const Tensor& x) { return (*this)(x, h); };
  return or_zeros(hvp(f, w, v), w);
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
  TensorList inputs = {w}, tangents = {v};
  inputs.insert(inputs.end(), chosen.tensors.begin(), chosen.tensors.end());
  tangents.resize(inputs.size());
  std::vector<Wanted> wanted(inputs.size(), Wanted::tangent);
  wanted.front() = Wanted::nothing;
  const TensorList along =
      hypertape::detail::dual_gradients(
          method_.c_str(),
          [&](const TensorList& x) {
            return TensorList{(*this)(x.front(), put_back(h, chosen, {x.begin() + 1, x.end()}))};
          },
          inputs, tangents, wanted)
          .tangents;
  return put_back(TensorList(h.size()), chosen, {along.begin() + 1, along.end()});
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

namespace {

double rounding_of(Dtype dtype) {
  return dtype == Dtype::float32 ? static_cast<double>(std::numeric_limits<float>::epsilon())
                                 : std::numeric_limits<double>::epsilon();
}

// What rounding leaves of f_w at an exact minimum is no sign of a distance.
bool is_rounding(const InnerLoss& inner, double slope) {
  const ImplicitRecord& record = inner.run().counters().implicit;
  return slope <= 4.0 * rounding_of(inner.dtype()) * record.stretched;
}

}  // namespace

double distance_beside(const InnerLoss& inner, const LinearMap& hessian, const Aside& aside,
                       LinearSolution& solution) {
  const ImplicitRecord& record = inner.run().counters().implicit;
  if (record.slope.empty()) return record.distance;
  if (!(solution.largest_eigenvalue >= record.stretched / record.way))
    solution.largest_eigenvalue = record.stretched / record.way;
  double beyond = 0.0;
  if (aside.unseen() > 0.0) {
    // One product with what the solver did not see: the right-hand side may lack the smallest eigenvalue.
    if (is_doubtful(inner) && !is_rounding(inner, aside.unseen())) {
      const TensorList curved = hessian(aside.left());
      const double length = norm(aside.left()), stretch = norm(curved) / length;
      if (!(solution.smallest_eigenvalue <= stretch)) solution.smallest_eigenvalue = stretch;
      if (!(solution.largest_eigenvalue >= stretch)) solution.largest_eigenvalue = stretch;
      solution.indefinite |= inner_product(aside.left(), curved) / (length * length) <
                             -64.0 * rounding_of(inner.dtype()) * solution.largest_eigenvalue;
    }
    beyond = aside.unseen() / solution.smallest_eigenvalue;
  }
  return (aside.size() + beyond) / record.way;
}

double distance_alone(const InnerLoss& inner, const LinearMap& hessian, std::int64_t products,
                      LinearSolution& solution) {
  const ImplicitRecord& record = inner.run().counters().implicit;
  const LinearSolution newton =
      solve_definite(inner.method().c_str(), hessian, record.slope,
                     {.tolerance = 1e-2, .iterations = std::max<std::int64_t>(products, 1)}, nullptr);
  solution.indefinite |= newton.indefinite;
  if (newton.indefinite) return record.distance;
  return norm(newton.x) * (1.0 + newton.error) / record.way;
}

bool is_doubtful(const InnerLoss& inner) {
  const ImplicitRecord& record = inner.run().counters().implicit;
  return !record.slope.empty() && record.inner_residual <= record.inner_limit &&
         !is_rounding(inner, norm(record.slope));
}

void note(const InnerLoss& inner, const LinearSolution& solution, bool may_be_short) {
  ImplicitRecord& record = inner.run().counters().implicit;
  record.condition = solution.condition();
  record.error = solution.error;
  record.distance_limit = InnerTolerance{record.inner_limit}.of_distance(inner.dtype(), record.condition);
  record.status = solution.status;
  record.indefinite = solution.indefinite;
  record.residuals = solution.residuals;
  record.iterations = solution.iterations;
  if (record.is_read) return;
  if (record.distance > record.distance_limit)
    fail(inner.method(), "the inner problem is not at its minimum (a Newton step would move w by ",
         record.distance, " of its size, tolerance ", record.distance_limit,
         "); train longer, raise inner_tolerance, or use hypergradient(), which reports this as a status");
  if (solution.status == LinearStatus::converged && record.error > record.error_limit)
    fail(inner.method(), "the linear system is ill-conditioned (condition ", record.condition,
         "): its solution has a relative error of about ", record.error,
         "; add a penalty, or use hypergradient(), which reports this as a status");
  if (solution.status == LinearStatus::converged) return;
  if (may_be_short && solution.status == LinearStatus::not_converged) return;
  fail(inner.method(), "the linear system was not solved (", name_of(solution.status), ", relative residual ",
       solution.residuals.empty() ? 1.0 : solution.residuals.back(), " after ", solution.iterations,
       " iterations); change the method's settings, or use hypergradient(), which reports this as a status");
}

// What converged promises of a linear solution: two digits, or half of those that were asked for.
constexpr double least_digits = 1e-2;

Tensor inverse_hessian(const InnerLossPointer& inner, const PlainSolver& solver, const Tensor& w,
                       const TensorList& h, const Tensor& u) {
  auto function = std::make_shared<CustomFunction>();
  function->name = inner->method();
  const auto rest = [](const TensorList& inputs) { return TensorList(inputs.begin() + 2, inputs.end()); };
  function->value = [=](const TensorList& plain) {
    ImplicitRecord& record = inner->run().counters().implicit;
    const LinearMap hessian = inner->hessian(plain[0], rest(plain));
    const bool doubtful = is_doubtful(*inner);
    Aside aside(record.slope, doubtful);
    LinearSolution solution = solver.solve(hessian, {plain[1]}, &aside);
    record.distance = distance_beside(*inner, hessian, aside, solution);
    // Over the smallest eigenvalue rounding alone can look far; seldom, so that it may cost a solve then.
    if (!doubtful && record.inner_residual <= record.inner_limit &&
        record.distance >
            InnerTolerance{record.inner_limit}.of_distance(inner->dtype(), solution.condition()))
      record.distance = distance_alone(*inner, hessian, 100, solution);
    record.error_limit = std::max(least_digits, std::sqrt(solver.tolerance));
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
  // All is linear in u: with |u| near 1 on the way, what is in between fits into the dtype wherever the
  // Hessian does, and the scales of the two losses may be far apart.
  ImplicitRule rule;
  rule.pull = [inverse](const InnerLossPointer& inner, const Tensor& w, const TensorList& h,
                        const Tensor& w_bar, const std::vector<bool>& needed) {
    const int exponent = Scaled::exponent_of({w_bar});
    TensorList gradients =
        negated(inner->mixed(w, h, inverse(inner, w, h, shifted({w_bar}, -exponent).front()), needed));
    for (Tensor& each : gradients)
      if (each.defined()) each = shifted({each}, exponent).front();
    return gradients;
  };
  rule.push = [inverse](const InnerLossPointer& inner, const Tensor& w, const TensorList& h,
                        const TensorList& h_dot) {
    const Tensor right = jvp([&](const TensorList& x) { return inner->gradient(w, x); }, h, h_dot).second;
    if (!right.defined()) return right;
    const int exponent = Scaled::exponent_of({right});
    return negate(shifted({inverse(inner, w, h, shifted({right}, -exponent).front())}, exponent).front());
  };
  return rule;
}

TensorList ask_solver(const Run& run, const TensorList& w, const TensorList& h, const std::string& method) {
  const hypertape::detail::ReadWatch watch(h.size());
  TensorList seen = h;
  for (std::size_t i = 0; i < h.size(); ++i)
    if (h[i].defined()) seen[i] = watch.watched(h[i], i);
  const NamedTensors found = in_function(
      "in solver", [&] { return run.problem().solver(run.initial().with(w), run.hyper().with(seen)); });
  if (found.names() != run.initial().names())
    fail(method, "the problem's solver returned other parameters than init");
  for (std::size_t i = 0; i < w.size(); ++i) {
    const Tensor& tensor = found.tensors()[i];
    if (!tensor.defined() || tensor.shape() != w[i].shape() || tensor.dtype() != w[i].dtype())
      fail(method, "the problem's solver returned parameter '", found.names()[i],
           "' in another form than init: ", w[i].dtype(), " ", w[i].shape(), " expected");
  }
  TensorList end;
  for (const Tensor& tensor : found.tensors()) end.push_back(hypertape::detail::ReadWatch::released(tensor));
  run.counters().first_read.assign(h.size(), -1);
  for (std::size_t i = 0; i < h.size(); ++i)
    if (watch.was_read(i)) run.counters().first_read[i] = 0;
  return end;
}

namespace {

// |f_w| / max(|f_ww w|, |f_ww (w - w_0)|): free of the scales of f and w, and of where the run started. It is
// the distance to the minimum, relative to w or to the way that w has come, if f_ww is well conditioned; the
// solve of the linear system tells how far it is otherwise.
void look_at_slope(const InnerLoss& inner, const Tensor& w, const Tensor& start, const TensorList& h) {
  ImplicitRecord& record = inner.run().counters().implicit;
  const Tensor slope = inner.gradient(w, h);
  const double size = norm({slope});
  record.slope.clear();
  record.inner_residual = record.distance = 0.0;
  if (size == 0.0) return;
  const LinearMap hessian = inner.hessian(w, h);
  record.stretched = std::max(norm(hessian({w})), norm(hessian({w - start})));
  record.inner_residual =
      record.stretched > 0.0 ? size / record.stretched : std::numeric_limits<double>::infinity();
  record.way = std::max(norm({w}), norm({w - start}));
  record.distance = std::numeric_limits<double>::quiet_NaN();
  record.slope = {slope};
}

void require_minimum(const InnerLoss& inner, double tolerance) {
  const ImplicitRecord& record = inner.run().counters().implicit;
  if (record.is_read || record.inner_residual <= tolerance) return;
  fail(inner.method(), "the inner problem is not at its minimum (residual ", record.inner_residual,
       ", tolerance ", tolerance,
       "); train longer, raise inner_tolerance, or use hypergradient(), which reports this as a status");
}

}  // namespace

double InnerTolerance::at(Dtype dtype) const noexcept { return std::max(value, 64.0 * rounding_of(dtype)); }

double InnerTolerance::of_distance(Dtype dtype, double condition) const noexcept {
  const double rounding = rounding_of(dtype);
  const double explained = std::min(4.0 * rounding * condition, std::sqrt(64.0 * rounding));
  return std::isnan(explained) ? at(dtype) : std::max(at(dtype), explained);
}

optim::State solve_implicitly(const RunPointer& run, const std::string& method, ImplicitRule rule,
                              InnerTolerance tolerance) {
  const auto inner = std::make_shared<const InnerLoss>(run, method);
  const double limit = tolerance.at(run->initial().tensors().front().dtype());
  auto function = std::make_shared<CustomFunction>();
  function->name = method;
  function->value = [=](const TensorList& plain) {
    TensorList start;
    for (const Tensor& w : run->initial_state().parameters) start.push_back(stop_gradient(w));
    const TensorList end = run->uses_solver()
                               ? ask_solver(*run, start, plain, method)
                               : train_plainly(*run, run->initial_state(), plain, 0, run->steps()).parameters;
    const Tensor w = inner->flat(end);
    run->counters().minimum = w.header()->data;
    run->counters().inner_replay = {};
    ImplicitRecord& record = run->counters().implicit;
    record.inner_limit = limit;
    if (std::isinf(limit))
      record.inner_residual = std::numeric_limits<double>::quiet_NaN();
    else
      look_at_slope(*inner, w, inner->flat(start), plain);
    return w;
  };
  function->pull = [=](const TensorList& inputs, const Tensor& w, const Tensor& cotangent,
                       const std::vector<bool>& needed) {
    if (!std::isinf(limit)) require_minimum(*inner, limit);
    return rule.pull(inner, w, inputs, cotangent, needed);
  };
  function->push = [=](const TensorList& inputs, const Tensor& w, const TensorList& tangents) {
    if (!rule.push) fail(inner->method(), "has a pullback only: use it under grad or vjp, not under jvp");
    if (!std::isinf(limit)) require_minimum(*inner, limit);
    return rule.push(inner, w, inputs, tangents);
  };
  return {inner->pieces(call(function, run->hyper().tensors())), {}};
}

}  // namespace hypertape::bilevel::detail
