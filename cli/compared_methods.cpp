#include "compared_methods.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <span>
#include <sstream>

#include <hypertape/core/error.h>
#include "readable.h"

namespace hypertape {
namespace {

using bilevel::Estimator;

std::int64_t square_root_of(std::int64_t steps) {
  return static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(steps))));
}

template <class Settings>
ComparedMethod exact(const MemoryForecast& forecast, const Settings& settings) {
  const Estimator estimator = settings;
  ComparedMethod method{
      .estimator = estimator, .setting = estimator.setting(), .prediction = forecast(settings)};
  if (method.prediction) method.bytes = static_cast<double>(method.prediction->peak_bytes);
  return method;
}

// Terms of series. Truncated runs take a step more: where gradient descent has reached the minimum, that is
// the same hypergradient.
constexpr std::int64_t series_terms[] = {1, 5, 20, 100};
constexpr std::int64_t representative_terms[] = {20};

}  // namespace

Selection::Selection(const CompareOptions& options)
    : names(options.methods), is_small(options.problem != ProblemKind::net) {
  if (!names.empty()) return;
  every_setting = is_small;
  if (is_small)
    names.assign(std::begin(method_names), std::end(method_names));
  else
    names.assign(std::begin(net_method_names), std::end(net_method_names));
}

bool Selection::has(std::string_view name) const {
  return std::find(names.begin(), names.end(), name) != names.end();
}

ComparedMethod unrolled(const MemoryForecast& forecast) { return exact(forecast, bilevel::Unrolled{}); }

ComparedMethod checkpointed(const MemoryForecast& forecast, std::int64_t steps) {
  return exact(forecast, bilevel::Checkpointed{square_root_of(steps)});
}

std::vector<ComparedMethod> reverse_methods(const Selection& selection, const ComparedProblem& problem,
                                            const MemoryForecast& forecast) {
  std::vector<ComparedMethod> methods;
  const std::int64_t steps = problem.problem.steps;
  if (selection.has("unrolled")) methods.push_back(unrolled(forecast));
  if (selection.has("checkpointed")) {
    // Half the square root of T, the root itself, and two and a half times that: 5, 10, 25 at T = 100.
    const std::int64_t root = square_root_of(steps);
    std::int64_t last = 0;
    for (const std::int64_t budget : {root / 2, root, root * 5 / 2}) {
      const std::int64_t possible = std::clamp<std::int64_t>(budget, 1, steps);
      if (possible != last) methods.push_back(exact(forecast, bilevel::Checkpointed{possible}));
      last = possible;
    }
  }
  if (selection.has("trajectory")) methods.push_back(exact(forecast, bilevel::Trajectory{}));
  if (selection.has("reversible")) {
    ComparedMethod& method = methods.emplace_back(exact(forecast, bilevel::Reversible{}));
    if (!problem.no_inverse.empty()) method.refusal = "not defined (" + problem.no_inverse + ")";
  }
  return methods;
}

std::vector<ComparedMethod> approximate_methods(const Selection& selection, const ComparedProblem& problem,
                                                const MemoryForecast& forecast) {
  // A net's minimum is far away and its curvature indefinite: more iterations would say nothing more.
  constexpr std::int64_t few = 50, many = 1000;
  const std::int64_t iterations = selection.is_small ? many : few;
  const std::span<const std::int64_t> terms = selection.every_setting
                                                  ? std::span<const std::int64_t>(series_terms)
                                                  : std::span<const std::int64_t>(representative_terms);
  std::vector<ComparedMethod> methods;
  const auto add = [&](const Estimator& estimator, double bytes = 0.0) {
    ComparedMethod method{.estimator = estimator, .setting = estimator.setting(), .bytes = bytes};
    method.is_exact = false;
    methods.push_back(std::move(method));
  };
  if (selection.has("implicit-cg")) add(bilevel::ImplicitCg{.iterations = iterations});
  if (selection.has("implicit-dense")) {
    const bilevel::ImplicitDense dense;
    add(dense);
    if (problem.parameters > dense.most_parameters)
      methods.back().refusal = "skipped (" + readable_count(problem.parameters) + " parameters, at most " +
                               readable_count(dense.most_parameters) + ")";
  }
  if (selection.has("implicit-normal-cg")) add(bilevel::ImplicitNormalCg{.iterations = iterations});
  if (selection.has("implicit-neumann"))
    for (const double momentum : {0.0, problem.series_momentum})
      for (const std::int64_t count : terms)
        if (selection.every_setting || momentum == 0.0)
          add(bilevel::ImplicitNeumann{.terms = count, .rate = problem.series_rate, .momentum = momentum});
  if (selection.has("truncated")) {
    std::int64_t last = 0;
    const std::optional<bilevel::Prediction> tape = forecast(bilevel::Unrolled{});
    const double tape_step =
        tape ? static_cast<double>(tape->peak_bytes) / static_cast<double>(problem.problem.steps) : 0.0;
    for (const std::int64_t count : terms) {
      const std::int64_t steps = std::min(count + 1, problem.problem.steps);
      if (steps != last) add(bilevel::Truncated{steps}, tape_step * static_cast<double>(steps));
      last = steps;
    }
  }
  if (selection.has("t1-t2")) add(bilevel::T1T2{problem.series_rate});
  if (selection.has("darts")) add(bilevel::Darts{.rate = problem.series_rate});
  return methods;
}

std::string status_of(bilevel::ResultStatus failure, std::int64_t step, const std::string& message) {
  const std::string name(bilevel::name_of(failure));
  return step >= 0 ? name + " at step " + std::to_string(step) : name + " (" + message + ')';
}

std::string status_of(const bilevel::Hypergradient& result) {
  using bilevel::ResultStatus;
  if (bilevel::is_failure(result.status)) return status_of(result.status, result.failed_step, result.message);
  std::ostringstream text = detail::text_stream();
  text << bilevel::name_of(result.status);
  text.precision(3);
  if (result.status == ResultStatus::chaotic)
    text << " (adjoint grew " << result.adjoint_growth << " times)";
  else if (result.status == ResultStatus::not_converged ||
           result.status == ResultStatus::negative_curvature ||
           result.status == ResultStatus::unstable_series)
    text << " (" << result.message << ')';
  return text.str();
}

std::string status_of(const bilevel::Hypergradient& result, std::size_t group) {
  using bilevel::Availability;
  if (bilevel::is_failure(result.status)) return status_of(result);
  const Availability availability = result.availability.at(group);
  if (availability == Availability::defined) return status_of(result);
  const std::string reason(bilevel::name_of(availability));
  return availability == Availability::partly_zero ? status_of(result) + " (" + reason + ')' : reason;
}

}  // namespace hypertape
