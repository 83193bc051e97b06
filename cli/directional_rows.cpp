#include "directional_rows.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <sstream>
#include <utility>

#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include <hypertape/core/memory.h>
#include "compared_methods.h"
#include "convert.h"
#include "method_failure.h"
#include "progress.h"
#include "ridders.h"

namespace hypertape {
namespace {

constexpr std::uint32_t direction_stream = 16;  // and one more for each group

// Hyperparameters are logarithms, logits or of the order of 1, so one step suits them all. Of kinks a smaller
// step meets fewer.
constexpr double smooth_first_step = 0.02;
constexpr double kinked_first_step = 1e-5;

// Multiply-adds of a training run that takes a good part of a second.
constexpr double long_run = 1e10;

void add(bilevel::Cost& total, const bilevel::Cost& cost) {
  total.seconds += cost.seconds;
  total.gradients += cost.gradients;
  total.hessian_vector_products += cost.hessian_vector_products;
  total.peak_bytes = std::max(total.peak_bytes, cost.peak_bytes);
}

std::string text_of(double number) {
  std::ostringstream text = detail::text_stream();
  text.precision(1);
  text << number;
  return text.str();
}

}  // namespace

void set_cost(ComparisonRow& row, const bilevel::Cost& cost) {
  row.seconds = cost.seconds;
  row.gradients = cost.gradients;
  row.hessian_vector_products = cost.hessian_vector_products;
  row.peak_bytes = cost.peak_bytes;
}

void set_finite(std::optional<double>& target, double value) {
  if (std::isfinite(value)) target = value;
}

DirectionalPlan directional_plan(const ComparedProblem& problem) {
  if (problem.multiply_adds > long_run) return {.directions = 1, .ridders_steps = 3, .ridders_runs = 6.0};
  if (problem.has_kinks) return {.directions = 2, .ridders_steps = 12, .ridders_runs = 16.0};
  return {.directions = 2, .ridders_steps = 14, .ridders_runs = 9.0};
}

DirectionalRows::DirectionalRows(const ComparedProblem& reference_problem, const ComparedProblem& problem,
                                 const bilevel::Hypergradient& reference, std::uint64_t seed,
                                 Progress& progress)
    : reference_problem_(reference_problem),
      problem_(problem),
      reference_(reference),
      progress_(progress),
      seed_(seed),
      plan_(directional_plan(problem)) {}

std::string DirectionalRows::directions_text() const {
  return plan_.directions == 1 ? "1 direction" : std::to_string(plan_.directions) + " directions";
}

NamedTensors DirectionalRows::direction(std::size_t group, std::int64_t number) const {
  const NamedTensors& h = problem_.hyperparameters;
  const Key key{seed_, direction_stream + static_cast<std::uint32_t>(group),
                static_cast<std::uint64_t>(number)};
  TensorList entries(h.size());
  const Tensor& at = h.tensors()[group];
  entries[group] = converted(random(at.shape(), Distribution::normal, key), at.dtype(), Dtype::float64);
  return h.with(std::move(entries));
}

DirectionalRows::Measured DirectionalRows::attempt(const Method& method, const NamedTensors& direction,
                                                   bilevel::Cost& cost) const {
  try {
    Measured measured = method(direction, cost);
    if (measured.status.empty() && !std::isfinite(measured.derivative))
      measured.status = "diverged (the validation loss is not finite along the direction)";
    return measured;
  } catch (const std::exception& error) {
    progress_.end();
    return {.status = hypertape::status_of(error), .has_failed = true};
  }
}

DirectionalRows::Result DirectionalRows::rows(ComparisonRow common, const Method& method,
                                              bool judges_reference) const {
  Result result;
  std::vector<ComparisonRow>& rows = result.rows;
  std::vector<bool> measured_all;  // of each row
  bilevel::Cost total;
  const bool has_reference = !reference_.availability.empty() || bilevel::is_failure(reference_.status);
  for (std::size_t group = 0; group < problem_.hyperparameters.size(); ++group) {
    ComparisonRow& row = rows.emplace_back(common);
    measured_all.push_back(has_reference && !bilevel::is_failure(reference_.status));
    row.group = problem_.hyperparameters.names()[group];
    row.status = has_reference ? status_of(reference_, group) : "no reference";
    if (!measured_all.back()) continue;
    const Tensor& gradient = reference_.gradients.tensors()[group];
    if (!gradient.defined()) continue;
    double worst = 0.0, own_error = 0.0;
    for (std::int64_t number = 0; number < plan_.directions; ++number) {
      const NamedTensors along = direction(group, number);
      const Measured measured = attempt(method, along, total);
      if (!measured.status.empty()) {
        row.status = measured.status;
        measured_all.back() = false;
        if (measured.has_failed && result.failure.empty()) result.failure = measured.status;
        worst = std::numeric_limits<double>::quiet_NaN();
        break;
      }
      const double expected = dot(gradient, along.tensors()[group]).item();
      // A reference may also be wrong by being something where there is nothing.
      const double scale =
          judges_reference ? std::max(std::abs(measured.derivative), std::abs(expected)) : std::abs(expected);
      const double distance = std::abs(measured.derivative - expected);
      if (distance > 0.0) worst = std::max(worst, distance / scale);
      own_error = std::max(own_error, measured.error / scale);
    }
    set_finite(row.relative_error, worst);
    if (judges_reference && row.relative_error) row.status = "approximate (to " + text_of(own_error) + ")";
  }
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (measured_all[i]) set_cost(rows[i], total);
  return result;
}

DirectionalRows::Result DirectionalRows::ridders() const {
  const double first_step = problem_.has_kinks ? kinked_first_step : smooth_first_step;
  ComparisonRow common;
  common.method = "ridders";
  common.setting = directions_text() + ", step " + text_of(first_step);
  const auto method = [&](const NamedTensors& along, bilevel::Cost& cost) {
    const double steps = static_cast<double>(reference_problem_.problem.steps);
    const NamedTensors& h = reference_problem_.hyperparameters;
    progress_.begin("ridders", plan_.ridders_runs * steps);
    const PeakScope peak;
    const auto start = std::chrono::steady_clock::now();
    Measured measured;
    std::int64_t runs = 0;
    const auto loss = [&](double distance) {
      TensorList moved = h.tensors();
      for (std::size_t i = 0; i < moved.size(); ++i)
        if (along.tensors()[i].defined()) moved[i] = moved[i] + distance * along.tensors()[i];
      ++runs;
      const NamedTensors at = h.with(std::move(moved));
      return reference_problem_.outer(bilevel::train(reference_problem_.problem, at).parameters, at).item();
    };
    try {
      const Extrapolation found = hypertape::ridders(loss, first_step, plan_.ridders_steps);
      measured.derivative = found.derivative;
      measured.error = found.error;
    } catch (const bilevel::TrainingDiverged& error) {
      measured.status = "diverged at step " + std::to_string(error.step());
    }
    bilevel::Cost one;
    one.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    one.gradients = runs * reference_problem_.problem.steps;  // at most, where a run diverged
    one.peak_bytes = peak.peak_bytes();
    add(cost, one);
    progress_.end();
    return measured;
  };
  return rows(std::move(common), method, true);
}

DirectionalRows::Result DirectionalRows::forward() const {
  ComparisonRow common;
  common.method = "forward";
  common.setting = directions_text();
  const auto method = [&](const NamedTensors& along, bilevel::Cost& cost) {
    progress_.begin("forward", plan_.forward_runs * static_cast<double>(problem_.problem.steps));
    const NamedTensors& h = problem_.hyperparameters;
    TensorList held = along.tensors();
    for (std::size_t i = 0; i < held.size(); ++i)
      if (held[i].defined()) held[i] = converted(held[i], h.tensors()[i].dtype(), h.tensors()[i].dtype());
    const bilevel::DirectionalDerivative result = bilevel::directional_derivative(
        problem_.problem, problem_.outer, h, h.with(std::move(held)), {.measure_growth = false});
    add(cost, result.cost);
    progress_.end();
    Measured measured;
    measured.derivative = result.derivative;
    if (bilevel::is_failure(result.status)) {
      measured.status = status_of(result.status, result.failed_step, result.message);
      measured.has_failed = true;
    }
    return measured;
  };
  return rows(std::move(common), method, false);
}

}  // namespace hypertape
