// The implicit methods: one inverse Hessian each.
#include <cmath>
#include <limits>
#include <sstream>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/estimators.h>
#include <hypertape/core/error.h>
#include "autodiff/tape/node.h"
#include "bilevel/minimum/implicit.h"
#include "core/base/default_floats.h"

namespace hypertape::bilevel {
namespace {

using detail::Aside;
using detail::Counters;
using detail::ImplicitRule;
using detail::InnerLossPointer;

std::string text_of(double number) {
  std::ostringstream text = hypertape::detail::text_stream();
  text.precision(3);
  text << number;
  return text.str();
}

// 1 term, 2 terms
std::string counted(std::int64_t count, const char* noun) {
  return std::to_string(count) + ' ' + noun + (count == 1 ? "" : "s");
}

// What a linear solve reached, in words.
std::string reached_by(const detail::ImplicitRecord& record) {
  const std::string iterations = counted(record.iterations, "iteration");
  if (record.residuals.empty()) return iterations;
  return "relative residual " + text_of(record.residuals.back()) + " after " + iterations;
}

class ImplicitMethod : public detail::Method {
 public:
  ImplicitMethod(std::string name, std::string setting, ImplicitRule rule, double inner_tolerance)
      : name_(std::move(name)),
        setting_(std::move(setting)),
        rule_(std::move(rule)),
        inner_tolerance_{inner_tolerance} {}
  std::string name() const override { return name_; }
  std::string setting() const override { return setting_; }
  detail::Reach reach() const noexcept override { return detail::Reach::inner_loss; }
  bool may_use_solver() const noexcept override { return true; }
  optim::State solve(const detail::RunPointer& run) const override {
    return detail::solve_implicitly(run, name_, rule_, inner_tolerance_);
  }
  void judge(const Problem&, const Counters& counters, Hypergradient& result) const override {
    const detail::ImplicitRecord& record = counters.implicit;
    result.inner_residual = record.inner_residual;
    result.linear_residuals = record.residuals;
    result.linear_iterations = record.iterations;
    result.distance = record.distance;
    result.condition = record.condition;
    result.linear_error = record.error;
    const double tolerance = inner_tolerance_.at(result.parameters.tensors().front().dtype());
    judge_linear(record, result);
    if (record.inner_residual <= tolerance) {
      judge_distance(record, result);
      return;
    }
    // What else is wrong explains the numbers: conjugate gradients that meet negative curvature return 0.
    std::string also;
    if (record.indefinite)
      also = "; the inner loss has negative curvature there";
    else if (record.status != LinearStatus::converged && record.status != LinearStatus::not_converged)
      also = "; " + result.message;
    result.status = ResultStatus::not_converged;
    result.message = "the inner problem is not at its minimum: residual " + text_of(record.inner_residual) +
                     ", tolerance " + text_of(tolerance) + also;
  }

 protected:
  virtual void judge_linear(const detail::ImplicitRecord& record, Hypergradient& result) const {
    result.status = ResultStatus::not_converged;
    switch (record.status) {
      case LinearStatus::converged:
        result.status = record.indefinite ? ResultStatus::negative_curvature : ResultStatus::converged;
        if (record.indefinite)
          result.message =
              "w is a stationary point of the inner loss, and this its derivative, but no minimum";
        return;
      case LinearStatus::negative_curvature:
        result.status = ResultStatus::negative_curvature;
        result.message =
            "the inner loss has negative curvature at w, where the solve stopped: " + reached_by(record);
        return;
      case LinearStatus::diverging:
        result.status = ResultStatus::unstable_series;
        result.message = "the series grows (" + reached_by(record) + "): " +
                         (record.indefinite ? "the inner loss has negative curvature at w"
                                            : "its rate is too large for the largest eigenvalue");
        return;
      case LinearStatus::singular:
        result.message = "the Hessian of the inner loss is singular at w: " + reached_by(record);
        return;
      case LinearStatus::not_finite:
        result.message = "the linear system led to numbers that are not finite: " + reached_by(record);
        return;
      case LinearStatus::out_of_range:
        result.message = "the linear system's solution does not fit into the dtype: scale a loss";
        return;
      case LinearStatus::not_converged:
        result.message = "the linear system is not solved: " + reached_by(record);
        return;
    }
  }

 private:
  // A small residual where f_ww is ill-conditioned.
  static void judge_distance(const detail::ImplicitRecord& record, Hypergradient& result) {
    const std::string condition = "the condition of the inner Hessian is " + text_of(record.condition);
    if (record.distance > record.distance_limit) {
      result.message = "the inner problem is not at its minimum: residual " + text_of(record.inner_residual) +
                       ", but a Newton step would move w by " + text_of(record.distance) +
                       " of its size, tolerance " + text_of(record.distance_limit) + "; " +
                       (record.indefinite        ? "the inner loss has negative curvature there"
                        : result.message.empty() ? condition
                                                 : result.message);
      result.status = ResultStatus::not_converged;
    } else if (result.status == ResultStatus::converged && record.error > record.error_limit) {
      result.message = "the linear system is solved, but " + condition +
                       ": the solution has a relative error of about " + text_of(record.error);
      result.status = ResultStatus::not_converged;
    }
  }

  std::string name_, setting_;
  ImplicitRule rule_;
  detail::InnerTolerance inner_tolerance_;
};

// A fixed amount of work is what the user asked for: short of the tolerance it is an approximation.
class SeriesMethod final : public ImplicitMethod {
 public:
  using ImplicitMethod::ImplicitMethod;

 protected:
  void judge_linear(const detail::ImplicitRecord& record, Hypergradient& result) const override {
    ImplicitMethod::judge_linear(record, result);
    if (record.status != LinearStatus::not_converged) return;
    result.status = ResultStatus::approximate;
    result.message = "a series cut short: " + reached_by(record);
  }
};

// The derivative of another problem: f_ww + damping I in the place of f_ww.
class DampedMethod final : public ImplicitMethod {
 public:
  using ImplicitMethod::ImplicitMethod;

 protected:
  void judge_linear(const detail::ImplicitRecord& record, Hypergradient& result) const override {
    ImplicitMethod::judge_linear(record, result);
    if (result.status != ResultStatus::converged) return;
    result.status = ResultStatus::approximate;
    result.message = "the damped system is solved: " + reached_by(record);
  }
};

// A multiple of the identity, right at no point in particular: the inner residual is not looked at.
class OneStepMethod final : public ImplicitMethod {
 public:
  OneStepMethod(std::string name, std::string setting, ImplicitRule rule, double)
      : ImplicitMethod(std::move(name), std::move(setting), std::move(rule),
                       std::numeric_limits<double>::infinity()) {}
  void judge(const Problem&, const Counters& counters, Hypergradient& result) const override {
    result.inner_residual = counters.implicit.inner_residual;
    result.status = ResultStatus::approximate;
    result.message = "a multiple of the identity stands for the inverse Hessian";
  }
};

ImplicitRule solving(detail::PlainSolver solver) {
  return detail::rule_of([solver](const InnerLossPointer& inner, const Tensor& w, const TensorList& h,
                                  const Tensor& u) { return inverse_hessian(inner, solver, w, h, u); });
}

void require_tolerance(const char* method, double inner_tolerance) {
  if (!(inner_tolerance >= 0.0)) fail(method, "inner_tolerance is ", inner_tolerance);
}

void require_rate(const char* method, double rate) {
  if (!(rate > 0.0 && std::isfinite(rate)))
    fail(method, "rate is ", rate, "; it must be positive, e.g. the learning rate of the training");
}

template <class M>
Estimator make(std::string name, std::string setting, ImplicitRule rule, double inner_tolerance) {
  return Estimator(
      std::make_shared<M>(std::move(name), std::move(setting), std::move(rule), inner_tolerance));
}

std::string iterations_text(std::int64_t iterations, double tolerance) {
  return counted(iterations, "iteration") + ", to " + text_of(tolerance);
}

void check(const char* method, double tolerance, std::int64_t iterations, double inner_tolerance) {
  require_tolerance(method, inner_tolerance);
  if (!(tolerance >= 0.0)) fail(method, "tolerance is ", tolerance);
  if (iterations < 1) fail(method, "iterations is ", iterations, "; at least 1 is needed");
}

// Whether f_h depends on w, told from the graph: a difference that happens to be zero is no answer.
std::vector<bool> interacts(const InnerLossPointer& inner, const Tensor& w, const TensorList& h,
                            const std::vector<bool>& needed) {
  TensorList plain;
  for (const Tensor& each : h) plain.push_back(each.defined() ? stop_gradient(each) : each);
  std::vector<bool> found(h.size());
  vjp(
      [&](const Tensor& x) {
        const TensorList by_hyper = inner->by_hyper(x, plain, needed);
        for (std::size_t i = 0; i < h.size(); ++i)
          found[i] = by_hyper[i].defined() && hypertape::detail::links_of(by_hyper[i]).recorded;
        return x;
      },
      stop_gradient(w));
  return found;
}

// f_h(w + e u) - f_h(w - e u) over 2 e: gradients in the place of a mixed product. The step e depends on u,
// and is recorded like everything else.
TensorList mixed_by_differences(const InnerLossPointer& inner, const Tensor& w, const TensorList& h,
                                const Tensor& u, double scale, std::vector<bool> needed) {
  if (detail::norm({u}) == 0.0) return inner->mixed(w, h, u, needed);
  needed = interacts(inner, w, h, needed);
  const Tensor e = scale / norm(u);
  const TensorList above = inner->by_hyper(w + e * u, h, needed),
                   below = inner->by_hyper(w - e * u, h, needed);
  TensorList mixed(h.size());
  for (std::size_t i = 0; i < h.size(); ++i)
    if (above[i].defined()) mixed[i] = (above[i] - below[i]) / (2.0 * e);
  return mixed;
}

}  // namespace

ImplicitCg::operator Estimator() const {
  const hypertape::detail::DefaultFloats floats;
  check("implicit-cg", tolerance, iterations, inner_tolerance);
  if (!(damping >= 0.0 && std::isfinite(damping)))
    fail("implicit-cg", "damping is ", damping, "; it must be finite and not negative");
  const CgOptions options{tolerance, iterations, damping};
  std::string setting = iterations_text(iterations, tolerance);
  if (damping != 0.0) setting += ", damping " + text_of(damping);
  ImplicitRule rule = solving({[options](const LinearMap& hessian, const TensorList& u, Aside* aside) {
                                 return detail::solve_definite("implicit-cg", hessian, u, options, aside);
                               },
                               tolerance});
  if (damping != 0.0) return make<DampedMethod>("implicit-cg", setting, std::move(rule), inner_tolerance);
  return make<ImplicitMethod>("implicit-cg", setting, std::move(rule), inner_tolerance);
}

ImplicitNormalCg::operator Estimator() const {
  const hypertape::detail::DefaultFloats floats;
  check("implicit-normal-cg", tolerance, iterations, inner_tolerance);
  const CgOptions options{tolerance, iterations, 0.0};
  return make<ImplicitMethod>(
      "implicit-normal-cg", iterations_text(iterations, tolerance),
      solving({[options](const LinearMap& hessian, const TensorList& u, Aside* aside) {
                 return detail::solve_normal("implicit-normal-cg", hessian, u, options, aside);
               },
               tolerance}),
      inner_tolerance);
}

ImplicitDense::operator Estimator() const {
  const hypertape::detail::DefaultFloats floats;
  require_tolerance("implicit-dense", inner_tolerance);
  if (most_parameters < 1) fail("implicit-dense", "most_parameters is ", most_parameters);
  if (!(tolerance >= 0.0)) fail("implicit-dense", "tolerance is ", tolerance);
  const DenseOptions options{tolerance, most_parameters};
  return make<ImplicitMethod>(
      "implicit-dense", "",
      solving({[options](const LinearMap& hessian, const TensorList& u, Aside* aside) {
                 return detail::solve_dense("implicit-dense", hessian, u, options, aside);
               },
               tolerance}),
      inner_tolerance);
}

ImplicitNeumann::operator Estimator() const {
  const hypertape::detail::DefaultFloats floats;
  require_tolerance("implicit-neumann", inner_tolerance);
  require_rate("implicit-neumann", rate);
  if (terms < 0) fail("implicit-neumann", "terms is ", terms);
  if (!(momentum >= 0.0 && momentum < 1.0))
    fail("implicit-neumann", "momentum ", momentum, " is not in [0, 1)");
  if (!(tolerance >= 0.0)) fail("implicit-neumann", "tolerance is ", tolerance);
  const NeumannOptions options{rate, terms, momentum, tolerance};
  std::string setting = counted(terms, "term") + ", rate " + text_of(rate);
  if (momentum != 0.0) setting += ", momentum " + text_of(momentum);
  // The series itself is recorded where it is differentiated: its derivatives are those of the series.
  const auto series = [options](const InnerLossPointer& inner, const Tensor& w, const TensorList& h,
                                const Tensor& u) {
    LinearSolution solution = neumann_series(inner->hessian(w, h), {u}, options);
    detail::ImplicitRecord& record = inner->run().counters().implicit;
    if (detail::is_doubtful(*inner)) {
      TensorList plain;
      for (const Tensor& each : h) plain.push_back(each.defined() ? stop_gradient(each) : each);
      record.distance =
          detail::distance_alone(*inner, inner->hessian(stop_gradient(w), plain), options.terms, solution);
    }
    record.error_limit = std::numeric_limits<double>::infinity();
    note(*inner, solution, true);
    return solution.x.front();
  };
  return make<SeriesMethod>("implicit-neumann", setting, detail::rule_of(series), inner_tolerance);
}

T1T2::operator Estimator() const {
  const hypertape::detail::DefaultFloats floats;
  require_rate("t1-t2", rate);
  const double factor = rate;
  return make<OneStepMethod>(
      "t1-t2", "rate " + text_of(rate),
      detail::rule_of([factor](const InnerLossPointer&, const Tensor&, const TensorList&, const Tensor& u) {
        return u * factor;
      }),
      0.0);
}

Darts::operator Estimator() const {
  const hypertape::detail::DefaultFloats floats;
  require_rate("darts", rate);
  if (!(scale > 0.0 && std::isfinite(scale))) fail("darts", "scale is ", scale, "; it must be positive");
  ImplicitRule rule;
  rule.pull = [rate = rate, scale = scale](const InnerLossPointer& inner, const Tensor& w,
                                           const TensorList& h, const Tensor& w_bar,
                                           const std::vector<bool>& needed) {
    TensorList gradients = mixed_by_differences(inner, w, h, w_bar, scale, needed);
    for (Tensor& each : gradients)
      if (each.defined()) each = each * -rate;
    return gradients;
  };
  return make<OneStepMethod>("darts", "rate " + text_of(rate) + ", scale " + text_of(scale), std::move(rule),
                             0.0);
}

}  // namespace hypertape::bilevel
