#include "compare.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <sstream>

#include "available_memory.h"
#include "directional_rows.h"
#include "hypertape/autodiff/ops.h"
#include "hypertape/bilevel/hypergradient.h"
#include "hypertape/core/parallel.h"
#include "measures.h"
#include "progress.h"
#include "readable.h"
#include "thread_count_scope.h"
#include "training_problem.h"

namespace hypertape {
namespace {

using bilevel::Hypergradient;

bool contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::int64_t square_root_of(std::int64_t steps) {
  return static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(steps))));
}

// A reverse method with its settings.
struct ReverseMethod {
  bilevel::Estimator estimator;
  std::string setting;
  double bytes = 0.0;  // estimate of what it needs at its peak; 0 if that does not grow with T

  std::string label() const { return estimator.name() + (setting.empty() ? "" : ", " + setting); }
};

// About how many plain training runs a reverse method takes.
constexpr double typical_reverse_runs = 4.0;

// Bytes that methods hold for each step they remember.
struct BytesPerStep {
  double tape = 0.0, state = 0.0;
};

double checkpointed_bytes(const BytesPerStep& per_step, std::int64_t checkpoints, std::int64_t steps) {
  const auto longest = static_cast<double>((steps + checkpoints - 1) / checkpoints);
  return per_step.state * static_cast<double>(checkpoints) + per_step.tape * longest;
}

ReverseMethod checkpointed(const BytesPerStep& per_step, std::int64_t checkpoints, std::int64_t steps) {
  const bilevel::Estimator estimator = bilevel::Checkpointed{checkpoints};
  return {estimator, estimator.setting(), checkpointed_bytes(per_step, checkpoints, steps)};
}

// In the order of method_names.
std::vector<ReverseMethod> reverse_methods(const CompareOptions& options, const BytesPerStep& per_step) {
  std::vector<ReverseMethod> methods;
  const std::int64_t steps = options.training.steps;
  const auto all_steps = static_cast<double>(steps);
  if (contains(options.methods, "unrolled"))
    methods.push_back({bilevel::Unrolled{}, "", per_step.tape * all_steps});
  if (contains(options.methods, "checkpointed")) {
    // Half the square root of T, the root itself, and two and a half times that: 5, 10, 25 at T = 100.
    const std::int64_t root = square_root_of(steps);
    std::int64_t last = 0;
    for (const std::int64_t budget : {root / 2, root, root * 5 / 2}) {
      const std::int64_t possible = std::clamp<std::int64_t>(budget, 1, steps);
      if (possible != last) methods.push_back(checkpointed(per_step, possible, steps));
      last = possible;
    }
  }
  if (contains(options.methods, "trajectory"))
    methods.push_back({bilevel::Trajectory{}, "", per_step.state * all_steps});
  if (contains(options.methods, "reversible")) methods.push_back({bilevel::Reversible{}, "", 0.0});
  return methods;
}

std::string status_of(const Hypergradient& result) {
  std::ostringstream text;
  text << bilevel::name_of(result.status);
  text.precision(3);
  if (result.status == bilevel::Status::chaotic) {
    text << " (adjoint grew " << result.adjoint_growth << " times)";
  } else if (result.status == bilevel::Status::diverged) {
    if (result.failed_step >= 0)
      text << " at step " << result.failed_step;
    else
      text << " (" << result.message << ')';
  }
  return text.str();
}

class Comparer {
 public:
  Comparer(const Dataset& data, const CompareOptions& options, Progress& progress)
      : options_(options),
        progress_(progress),
        data_(prepare_data(data, options.training)),
        training_(make_training_problem(data_, options.training)) {
    training_.problem.on_step = [this](std::int64_t step, double loss) {
      if (records_losses_) {
        if (step == 0) result_.first_loss = loss;
        result_.last_loss = loss;
      }
      progress_.step();
    };
    describe(data);
  }

  Comparison run() {
    time_training();
    measure_memory();
    const std::vector<ReverseMethod> methods = reverse_methods(options_, per_step_);
    expect_work(methods);
    ReverseMethod reference{bilevel::Unrolled{}, "", per_step_.tape * steps()};
    if (!fits(reference))
      reference = checkpointed(per_step_, square_root_of(options_.training.steps), options_.training.steps);
    result_.reference = reference.label();
    reference_ = measure(reference);
    if (reference_.status != bilevel::Status::diverged) result_.validation_loss = reference_.value;
    const DirectionalRows directional(training_, options_.training, reference_, status_of(reference_),
                                      progress_);
    if (contains(options_.methods, "ridders")) append(directional.ridders());
    for (const ReverseMethod& method : methods) {
      if (!fits(method))
        append(skipped_rows(method));
      else if (method.label() == reference.label())
        append(rows_of(reference_, method.setting));
      else
        append(rows_of(measure(method), method.setting));
    }
    if (contains(options_.methods, "forward")) append(directional.forward());
    if (result_.training_run_seconds) time_training();
    for (ComparisonRow& row : result_.rows)
      if (row.seconds && result_.training_run_seconds)
        row.training_runs = *row.seconds / *result_.training_run_seconds;
    return std::move(result_);
  }

 private:
  double steps() const { return static_cast<double>(options_.training.steps); }

  void describe(const Dataset& data) {
    result_.data_name = data.name;
    result_.features = data.features;
    result_.classes = data.classes;
    result_.training_samples = data_->training_samples;
    result_.validation_samples = data.samples - data_->training_samples;
    result_.sizes = training_.net.sizes();
    result_.activation = nn::name_of(training_.net.activation());
    result_.parameters = training_.net.parameter_count();
    const NamedTensors& h = training_.hyperparameters;
    for (std::size_t i = 0; i < h.size(); ++i)
      result_.groups.emplace_back(h.names()[i], h.tensors()[i].size());
    result_.steps = options_.training.steps;
    result_.batch = options_.training.batch;
    result_.dtype = name_of(h.tensors().front().dtype());
    result_.threads = thread_count();
  }

  // Adds five plain runs, fewer if they take long; the unit is the median of all. A run that is not counted
  // comes first, and more are timed after the methods: a cold machine would make the unit long and every
  // method look cheap.
  void time_training() {
    constexpr std::size_t most_runs = 5;
    constexpr double enough_seconds = 2.0, short_run = 0.25;
    double total = 0.0;
    const bool first = plain_seconds_.empty();
    progress_.expect(static_cast<double>(most_runs) * steps());
    records_losses_ = first;
    for (std::size_t runs = 0; runs < most_runs && total < enough_seconds; ++runs) {
      progress_.begin("training", steps());
      const auto start = std::chrono::steady_clock::now();
      try {
        bilevel::train(training_.problem, training_.hyperparameters);
      } catch (const bilevel::TrainingDiverged& error) {
        records_losses_ = false;
        note_failure("training", error.what());
        return;
      }
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      progress_.end();
      records_losses_ = false;
      const bool warms_up = first && runs == 0 && seconds < short_run;
      if (!warms_up) plain_seconds_.push_back(seconds);
      total += seconds;
    }
    result_.training_run_seconds = median(plain_seconds_);
    if (*result_.training_run_seconds < short_run) repeats_ = 3;
  }

  // The tape of a few steps, from which that of all is extrapolated. Short runs are not worth it.
  void measure_memory() {
    constexpr std::int64_t few = 4, more = 12, short_run = 100;
    if (options_.training.steps <= short_run) return;
    per_step_.tape = (tape_bytes(more) - tape_bytes(few)) / static_cast<double>(more - few);
    constexpr double state_tensors = 2.0;  // a weight and its velocity
    per_step_.state = state_tensors * sizeof(double) * static_cast<double>(training_.net.parameter_count());
    // Close to the limit other programs would suffer.
    constexpr double usable = 0.8;
    const std::int64_t available = available_memory();
    if (options_.usable_bytes)
      usable_bytes_ = *options_.usable_bytes;
    else if (available != unknown_memory)
      usable_bytes_ = usable * static_cast<double>(available);
  }

  double tape_bytes(std::int64_t few_steps) const {
    TrainingOptions options = options_.training;
    options.steps = few_steps;
    const TrainingProblem training = make_training_problem(data_, options);
    return static_cast<double>(bilevel::hypergradient(training.problem, training.validation_loss,
                                                      training.hyperparameters, bilevel::Unrolled{})
                                   .cost.peak_bytes);
  }

  bool fits(const ReverseMethod& method) const { return method.bytes <= usable_bytes_; }

  void expect_work(const std::vector<ReverseMethod>& methods) {
    const DirectionalPlan plan = directional_plan(training_, options_.training);
    const double directions =
        static_cast<double>(plan.directions) * static_cast<double>(training_.hyperparameters.size());
    double runs = contains(options_.methods, "unrolled") ? 0.0 : typical_reverse_runs * repeats_;
    for (const ReverseMethod& method : methods)
      if (fits(method)) runs += typical_reverse_runs * repeats_;
    if (contains(options_.methods, "ridders")) runs += directions * plan.ridders_runs;
    if (contains(options_.methods, "forward")) runs += directions * plan.forward_runs;
    progress_.expect(runs * steps());
  }

  // The hypergradient, with the median of the seconds of several runs.
  Hypergradient measure(const ReverseMethod& method) {
    Hypergradient result;
    std::vector<double> seconds;
    for (int repeat = 0; repeat < repeats_; ++repeat) {
      progress_.begin(method.label(), typical_reverse_runs * steps());
      result = bilevel::hypergradient(training_.problem, training_.validation_loss, training_.hyperparameters,
                                      method.estimator);
      seconds.push_back(result.cost.seconds);
      progress_.end();
    }
    result.cost.seconds = median(seconds);
    if (result.status == bilevel::Status::diverged) note_failure(method.label(), result.message);
    return result;
  }

  std::vector<ComparisonRow> skipped_rows(const ReverseMethod& method) const {
    std::vector<ComparisonRow> rows;
    for (const std::string& group : training_.hyperparameters.names()) {
      ComparisonRow& row = rows.emplace_back();
      row.method = method.estimator.name();
      row.setting = method.setting;
      row.group = group;
      row.status =
          "skipped (needs about " + readable_bytes(static_cast<std::int64_t>(method.bytes)) + " of memory)";
    }
    return rows;
  }

  // The first failure is the one to name: later ones follow from it.
  void note_failure(const std::string& what, const std::string& message) {
    if (result_.failure.empty()) result_.failure = what + " diverged: " + message;
  }

  std::vector<ComparisonRow> rows_of(const Hypergradient& result, const std::string& setting) const {
    std::vector<ComparisonRow> rows;
    for (std::size_t i = 0; i < result.gradients.size(); ++i) {
      ComparisonRow row;
      row.method = result.method;
      row.setting = setting;
      row.group = result.gradients.names()[i];
      row.status = status_of(result);
      if (result.status != bilevel::Status::diverged) {
        set_cost(row, result.cost);
        const Tensor& gradient = result.gradients.tensors()[i];
        if (gradient.defined())
          compare_gradients(row, gradient, reference_.gradients.tensors()[i]);
        else
          row.status = "unused";
      }
      rows.push_back(std::move(row));
    }
    return rows;
  }

  static void compare_gradients(ComparisonRow& row, const Tensor& gradient, const Tensor& reference) {
    if (!reference.defined()) return;
    const std::vector<double> value = gradient.to_vector<double>(), other = reference.to_vector<double>();
    set_finite(row.relative_error, relative_error(value, other));
    set_finite(row.cosine, cosine(value, other));
  }

  void append(std::vector<ComparisonRow> rows) {
    for (ComparisonRow& row : rows) result_.rows.push_back(std::move(row));
  }

  const CompareOptions& options_;
  Progress& progress_;
  std::shared_ptr<const TrainingData> data_;
  TrainingProblem training_;
  Comparison result_;
  Hypergradient reference_;
  BytesPerStep per_step_;
  double usable_bytes_ = std::numeric_limits<double>::infinity();
  int repeats_ = 1;
  bool records_losses_ = false;
  std::vector<double> plain_seconds_;
};

}  // namespace

Comparison compare(const Dataset& data, const CompareOptions& options, Progress& progress) {
  const ThreadCountScope threads(options.threads == 0 ? available_cpus() : options.threads);
  return Comparer(data, options, progress).run();
}

}  // namespace hypertape
