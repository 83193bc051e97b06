// What each method needs, from runs of a few steps, and the choice among them.
#include <hypertape/bilevel/plan.h>

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <limits>
#include <ostream>
#include <sstream>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include <hypertape/core/memory.h>
#include "bilevel/plan/growth_curve.h"
#include "bilevel/run/checkpoint_schedule.h"
#include "bilevel/run/method.h"
#include "core/backend/digit_buffer.h"
#include "core/base/classic_print.h"
#include "core/base/default_floats.h"

namespace hypertape::bilevel {
namespace {

using detail::GrowthCurve;

// The first steps of a problem: per-step hyperparameters are cut after they have been prepared.
Problem shortened(const Problem& problem, std::int64_t steps) {
  Problem result = problem;
  result.on_step = {};
  if (steps == problem.steps) return result;
  result.steps = steps;
  if (problem.per_step.empty()) return result;
  result.prepare = [prepare = problem.prepare, names = problem.per_step, steps](const NamedTensors& h) {
    NamedTensors prepared = prepare ? prepare(h) : h;
    for (const std::string& name : names) prepared = prepared.with(name, slice(prepared[name], 0, 0, steps));
    return prepared;
  };
  return result;
}

std::string text_of_bytes(std::int64_t bytes) {
  const bool small = bytes < 1000000;  // tiny nets: not "0.0 MB"
  std::ostringstream text = hypertape::detail::text_stream();
  text << std::fixed << std::setprecision(1) << static_cast<double>(bytes) / (small ? 1e3 : 1e6)
       << (small ? " kB" : " MB");
  return text.str();
}

std::string label_of(const Estimator& estimator) {
  const std::string setting = estimator.setting();
  return estimator.name() + (setting.empty() ? "" : ", " + setting);
}

std::int64_t operations_of(const Prediction& prediction) {
  return prediction.gradients + prediction.hessian_vector_products;
}

bool is_cheaper(const Candidate& a, const Candidate& b) {
  const std::int64_t of_a = operations_of(a.prediction), of_b = operations_of(b.prediction);
  return of_a != of_b ? of_a < of_b : a.prediction.peak_bytes < b.prediction.peak_bytes;
}

}  // namespace

class Planner::Measured {
 public:
  Measured(Problem problem, OuterLoss outer, NamedTensors h)
      : problem_(std::move(problem)), outer_(std::move(outer)), h_(std::move(h)) {
    if (!outer_) fail("plan", "there is no outer loss");
    const Estimator any = Unrolled{};
    const detail::Run run(
        problem_, h_, std::make_shared<detail::Counters>(detail::Counters{.caller = "plan"}), any.method());
  }

  std::int64_t steps() const noexcept { return problem_.steps; }
  bool is_reversible() const { return problem_.step.reversible.has_value(); }

  Prediction unrolled() {
    if (!tape_) tape_ = curve(Unrolled{}, outer_, tape_steps_);
    return prediction(tape_steps_, tape_->at(steps()));
  }

  Prediction trajectory() {
    if (!states_) states_ = curve(Trajectory{}, outer_, trajectory_steps_);
    return prediction(trajectory_steps_, states_->at(steps()));
  }

  Prediction checkpointed(const Checkpointed& method) {
    measure_blocks();
    const detail::CheckpointSchedule schedule(steps(), method.checkpoints, method.segment);
    Prediction result = prediction(block_steps_, bytes_of(schedule));
    result.gradients += schedule.repeated_steps();
    return result;
  }

  /// Of those that run each step twice.
  Checkpointed fewest_bytes() {
    measure_blocks();
    Checkpointed best{steps()};
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    for (std::int64_t longest = 1; longest <= steps();) {
      // More checkpoints than these do not shorten the longest block.
      const std::int64_t count = (steps() + longest - 1) / longest;
      const std::int64_t bytes = bytes_at_most(count, longest, false);
      if (bytes < least) {
        least = bytes;
        best.checkpoints = count;
      }
      // The next length that needs fewer.
      longest = count == 1 ? steps() + 1 : (steps() + count - 2) / (count - 1);
    }
    return best;
  }

  /// Of those that run steps more often, within the budget; what takes the fewest bytes if none is.
  Checkpointed fewest_repeats(std::int64_t budget) {
    measure_blocks();
    Checkpointed best{1, 1};
    std::int64_t fewest = std::numeric_limits<std::int64_t>::max();
    for (std::int64_t segment = 1; segment <= steps(); ++segment) {
      const std::int64_t room = budget - bytes_at_most(1, segment, true);
      if (room < 0) break;
      // Each further checkpoint takes a state.
      const std::int64_t count = std::min(1 + room / std::max<std::int64_t>(state_bytes(), 1), steps());
      const std::int64_t repeated = detail::CheckpointSchedule(steps(), count, segment).repeated_steps();
      if (repeated >= fewest) continue;
      fewest = repeated;
      best = {count, segment};
    }
    return best;
  }

  Prediction reversible() {
    if (!reversible_) {
      const Estimator method = Reversible{};
      const std::int64_t probe = std::min(reversible_probe, steps());
      const std::int64_t bytes = measure(method, outer_, probe, reversible_steps_);
      reversible_ = bytes - plane_bytes(probe) + rows_bytes(steps()) - rows_bytes(probe);
    }
    return prediction(reversible_steps_, *reversible_ + plane_bytes(steps()));
  }

 private:
  // Operations of the longest run measured, and its steps.
  struct Counted {
    std::int64_t steps = 0, gradients = 0, products = 0;
  };

  // Long enough for the state that follows the first update.
  static constexpr std::int64_t reversible_probe = 4;

  std::int64_t measure(const Estimator& method, const OuterLoss& outer, std::int64_t steps,
                       Counted& counted) const {
    const Hypergradient result = hypergradient(shortened(problem_, steps), outer, h_, method);
    if (is_failure(result.status))
      fail("plan", "the first ", steps, steps == 1 ? " step" : " steps",
           ", from which memory is predicted, have no hypergradient by ", method.name(), ": ",
           result.message);
    counted = {steps, result.cost.gradients, result.cost.hessian_vector_products};
    return result.cost.peak_bytes;
  }

  GrowthCurve curve(const Estimator& method, const OuterLoss& outer, Counted& counted) {
    return GrowthCurve([&](std::int64_t steps) { return measure(method, outer, steps, counted); }, steps(),
                       state_bytes());
  }

  // Every method evaluates each step equally often, so that the counts of a short run are exact multiples.
  Prediction prediction(const Counted& counted, std::int64_t bytes) const {
    return {counted.gradients / counted.steps * steps(), counted.products / counted.steps * steps(), bytes};
  }

  // Of parameters and buffers as a run keeps them.
  std::int64_t state_bytes() {
    if (!state_bytes_) {
      const Problem few = shortened(problem_, std::min<std::int64_t>(2, steps()));
      const std::int64_t before = memory_statistics().live_bytes;
      const Solution state = detail::train_for("plan", few, h_);
      state_bytes_ = memory_statistics().live_bytes - before;
    }
    return *state_bytes_;
  }

  // With the outer loss, or going back through a block: its tape, the states, and but for the last block the
  // sums of the hyperparameters' cotangents.
  std::int64_t bytes_of(const detail::CheckpointSchedule& schedule) {
    const std::int64_t checkpoints = schedule.checkpoints();
    std::int64_t most = outer_bytes_ + (checkpoints - 1) * state_bytes();
    const bool is_repeated = schedule.repeated_steps() > 0;
    std::int64_t kept = checkpoints;
    schedule.go_back([&](std::int64_t) { ++kept; },
                     [&](std::int64_t block, bool is_kept) {
                       const std::int64_t states = is_repeated ? kept + (is_kept ? 0 : 1) : checkpoints;
                       const std::int64_t sums = block + 1 < schedule.blocks() ? sums_bytes_ : 0;
                       most = std::max(
                           most, block_->at(schedule.length_of(block)) + sums + (states - 1) * state_bytes());
                       if (is_kept) --kept;
                     });
    return most;
  }
  // At most that, without the schedule.
  std::int64_t bytes_at_most(std::int64_t checkpoints, std::int64_t segment, bool is_repeated) {
    const std::int64_t states = checkpoints + (is_repeated ? 1 : 0);
    return std::max(outer_bytes_ + (checkpoints - 1) * state_bytes(),
                    block_->at(segment) + sums_bytes_ + (states - 1) * state_bytes());
  }

  void measure_blocks() {
    if (block_) return;
    const OuterLoss linear = linear_outer();
    block_ = curve(Checkpointed{1}, linear, block_steps_);
    Counted ignored;
    outer_bytes_ = measure(Checkpointed{1}, outer_, 1, ignored);
    if (steps() < 2) return;
    // With a second block, as long as the one that was recorded before it.
    const std::int64_t length = std::min(block_->longest_measured(), steps() / 2);
    const std::int64_t two = measure(Checkpointed{2}, linear, 2 * length, ignored);
    sums_bytes_ = std::max<std::int64_t>(two - block_->at(length) - state_bytes(), 0) + rows_bytes(steps()) -
                  rows_bytes(2 * length);
  }

  // What the outer loss needs itself would hide what short tapes need. Its derivatives are what is held
  // meanwhile, so that a linear function with such derivatives takes its place.
  OuterLoss linear_outer() {
    const NamedTensors w = train(shortened(problem_, 1), h_).parameters;
    TensorList inputs = w.tensors();
    inputs.insert(inputs.end(), h_.tensors().begin(), h_.tensors().end());
    const auto middle = static_cast<std::ptrdiff_t>(w.size());
    const TensorList slopes = grad(
        [&](const TensorList& x) {
          return outer_(w.with({x.begin(), x.begin() + middle}), h_.with({x.begin() + middle, x.end()}));
        },
        inputs);
    return [slopes](const NamedTensors& at, const NamedTensors& h) {
      TensorList x = at.tensors();
      x.insert(x.end(), h.tensors().begin(), h.tensors().end());
      Tensor value;
      for (std::size_t i = 0; i < x.size(); ++i) {
        if (!slopes[i].defined()) continue;
        // Weights and hyperparameters may differ in dtype.
        Tensor term = astype(dot(slopes[i], x[i]), Dtype::float64);
        value = value.defined() ? value + term : term;
      }
      return value.defined() ? value : Tensor::scalar(0.0);
    };
  }

  // Of the per-step hyperparameters' cotangents, which are there for all steps from the first one pulled on.
  std::int64_t rows_bytes(std::int64_t steps) const {
    const Estimator any = Unrolled{};
    const detail::Run run(
        problem_, h_, std::make_shared<detail::Counters>(detail::Counters{.caller = "plan"}), any.method());
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < run.hyper().size(); ++i) {
      if (!run.is_per_step(i)) continue;
      const Tensor& whole = run.hyper().tensors()[i];
      bytes += accounted_bytes(static_cast<std::size_t>(whole.size() / problem_.steps * steps) *
                               size_of(whole.dtype()));
    }
    return static_cast<std::int64_t>(bytes);
  }

  // Digits that momentum drops, of all weights, in the planes of a run of that many steps.
  std::int64_t plane_bytes(std::int64_t steps) const {
    const Estimator method = Reversible{};
    const detail::Run run(problem_, h_,
                          std::make_shared<detail::Counters>(detail::Counters{.caller = "plan"}),
                          method.method());
    const detail::Run::Rows rows(run.hyper().size());
    const TensorList& parameters = run.initial_state().parameters;
    // One schedule for all weights, or one for each parameter tensor that has a momentum of its own.
    std::vector<hypertape::detail::DigitSchedule> schedules;
    for (std::int64_t t = 0; t < steps; ++t) {
      const TensorList momenta =
          problem_.step.reversible->momenta(parameters, run.at_step(run.hyper().tensors(), rows, t));
      schedules.resize(momenta.size());
      for (std::size_t i = 0; i < momenta.size(); ++i) {
        if (schedules[i].must_flush()) schedules[i].flush();
        schedules[i].advance(hypertape::detail::momentum_numerator(momenta[i].item()));
      }
    }
    std::size_t bytes = 0, weights = 0;
    for (const Tensor& w : parameters) weights += static_cast<std::size_t>(w.size());
    for (std::size_t i = 0; i < schedules.size(); ++i) {
      const std::size_t held =
          schedules.size() == 1 ? weights : static_cast<std::size_t>(parameters[i].size());
      bytes += schedules[i].planes() * accounted_bytes(held * sizeof(std::uint32_t));
    }
    return static_cast<std::int64_t>(bytes);
  }

  Problem problem_;
  OuterLoss outer_;
  NamedTensors h_;
  std::optional<std::int64_t> state_bytes_, reversible_;
  std::optional<GrowthCurve> tape_, states_;
  // Checkpointing: one block by its length, the outer loss, and what every block but the last finds there.
  std::optional<GrowthCurve> block_;
  std::int64_t outer_bytes_ = 0, sums_bytes_ = 0;
  Counted tape_steps_, trajectory_steps_, block_steps_, reversible_steps_;
};

Planner::Planner(Problem problem, OuterLoss outer, NamedTensors h) {
  const hypertape::detail::DefaultFloats floats;
  measured_ = std::make_unique<Measured>(std::move(problem), std::move(outer), std::move(h));
}
Planner::Planner(Planner&&) noexcept = default;
Planner& Planner::operator=(Planner&&) noexcept = default;
Planner::~Planner() = default;

Prediction Planner::predict(const Unrolled&) {
  const hypertape::detail::DefaultFloats floats;
  return measured_->unrolled();
}
Prediction Planner::predict(const Trajectory&) {
  const hypertape::detail::DefaultFloats floats;
  return measured_->trajectory();
}
Prediction Planner::predict(const Checkpointed& method) {
  const hypertape::detail::DefaultFloats floats;
  const Estimator checked = method;  // throws for settings out of range
  return measured_->checkpointed(method);
}
Prediction Planner::predict(const Reversible&) {
  const hypertape::detail::DefaultFloats floats;
  return measured_->reversible();
}

namespace {

// Why a candidate is not the choice.
std::string reason_against(const Candidate& candidate, const Candidate& choice, std::int64_t budget) {
  if (!candidate.fits) {
    const double times = static_cast<double>(candidate.prediction.peak_bytes) / static_cast<double>(budget);
    std::ostringstream text = hypertape::detail::text_stream();
    text << std::setprecision(3) << times << " times the budget";
    return text.str();
  }
  return operations_of(candidate.prediction) > operations_of(choice.prediction)
             ? "more operations"
             : "as many operations, more bytes";
}

std::string text_of_operations(const Prediction& prediction) {
  return std::to_string(prediction.gradients) + " gradients and " +
         std::to_string(prediction.hessian_vector_products) + " Hessian-vector products";
}

// Fills in fits, reasons, the choice and the message. `advice`: what else there is to do if nothing fits.
void decide(Plan& plan, std::optional<std::int64_t> budget, const char* advice) {
  std::stable_sort(plan.candidates.begin(), plan.candidates.end(), is_cheaper);
  for (std::size_t i = 0; i < plan.candidates.size(); ++i) {
    plan.candidates[i].fits = !budget || plan.candidates[i].prediction.peak_bytes <= *budget;
    if (plan.candidates[i].fits && !plan.chosen) plan.chosen = i;
  }
  std::ostringstream text = hypertape::detail::text_stream();
  if (!plan.chosen) {
    const auto least = std::min_element(
        plan.candidates.begin(), plan.candidates.end(),
        [](const auto& a, const auto& b) { return a.prediction.peak_bytes < b.prediction.peak_bytes; });
    for (Candidate& candidate : plan.candidates)
      candidate.reason = reason_against(candidate, *least, *budget);
    text << "nothing fits into " << text_of_bytes(*budget) << ": the least is "
         << text_of_bytes(least->prediction.peak_bytes) << ", by " << label_of(least->estimator) << " with "
         << text_of_operations(least->prediction)
         << "; take a larger budget, a smaller batch or net, or float32" << advice;
    plan.message = text.str();
    return;
  }
  Candidate& choice = plan.candidates[*plan.chosen];
  for (Candidate& candidate : plan.candidates)
    if (&candidate != &choice) candidate.reason = reason_against(candidate, choice, budget.value_or(0));
  choice.reason = "the fewest operations that fit";
  text << label_of(choice.estimator) << ": " << text_of_operations(choice.prediction) << " in "
       << text_of_bytes(choice.prediction.peak_bytes);
  if (budget) text << " of " << text_of_bytes(*budget);
  if (*plan.chosen == 0) {
    text << "; nothing takes fewer operations";
  } else {
    text << "; fewer operations would take";
    for (std::size_t i = 0; i < *plan.chosen; ++i)
      text << (i ? ", " : " ") << text_of_bytes(plan.candidates[i].prediction.peak_bytes) << " ("
           << label_of(plan.candidates[i].estimator) << ')';
  }
  plan.message = text.str();
}

}  // namespace

Plan Planner::plan(const PlanOptions& options) {
  const hypertape::detail::DefaultFloats floats;
  if (options.budget_bytes && *options.budget_bytes < 1)
    fail("plan", "budget_bytes is ", *options.budget_bytes, "; leave it absent for no limit");
  Plan plan;
  plan.candidates.push_back({Unrolled{}, predict(Unrolled{})});
  plan.candidates.push_back({Trajectory{}, predict(Trajectory{})});
  const Checkpointed once = measured_->fewest_bytes();
  plan.candidates.push_back({once, predict(once)});
  if (options.budget_bytes && plan.candidates.back().prediction.peak_bytes > *options.budget_bytes) {
    const Checkpointed repeated = measured_->fewest_repeats(*options.budget_bytes);
    plan.candidates.push_back({repeated, predict(repeated)});
  }
  if (options.fixed_point && measured_->is_reversible())
    plan.candidates.push_back({Reversible{}, predict(Reversible{})});
  decide(plan, options.budget_bytes,
         !options.fixed_point && measured_->is_reversible()
             ? ", or train in fixed point (fixed_point), which is another trajectory"
             : "");
  return plan;
}

Plan plan(const Problem& problem, const OuterLoss& outer, const NamedTensors& h, const PlanOptions& options) {
  return Planner(problem, outer, h).plan(options);
}

const Candidate& Plan::choice() const {
  if (!chosen) fail("plan", message);
  return candidates[*chosen];
}

namespace {

void print(std::ostream& out, const Plan& plan) {
  std::size_t width = 0;
  for (const Candidate& candidate : plan.candidates)
    width = std::max(width, label_of(candidate.estimator).size());
  for (std::size_t i = 0; i < plan.candidates.size(); ++i) {
    const Candidate& candidate = plan.candidates[i];
    std::ostringstream line = hypertape::detail::text_stream();
    line << (plan.chosen == i ? "> " : "  ") << std::left << std::setw(static_cast<int>(width))
         << label_of(candidate.estimator) << "  " << candidate.prediction.gradients << " gradients, "
         << candidate.prediction.hessian_vector_products << " Hessian-vector products, "
         << text_of_bytes(candidate.prediction.peak_bytes) << ": " << candidate.reason << '\n';
    out << line.str();
  }
  out << plan.message << '\n';
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Plan& plan) {
  return hypertape::detail::print_classic(out, [&](std::ostream& text) { print(text, plan); });
}

}  // namespace hypertape::bilevel
