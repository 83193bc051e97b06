#include "compare.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include <hypertape/bilevel/hypergradient.h>
#include <hypertape/core/parallel.h>
#include "available_memory.h"
#include "compared_methods.h"
#include "convert.h"
#include "directional_rows.h"
#include "measures.h"
#include "method_failure.h"
#include "progress.h"
#include "readable.h"
#include "thread_count_scope.h"

namespace hypertape {
namespace {

using bilevel::Hypergradient;

class Comparer {
 public:
  Comparer(ComparisonSubject subject, const CompareOptions& options, Comparison result, Progress& progress)
      : options_(options),
        selection_(options),
        progress_(progress),
        subject_(std::move(subject)),
        result_(std::move(result)) {
    const auto on_step = [this](std::int64_t step, double loss) {
      if (records_losses_) {
        if (step == 0) result_.first_loss = loss;
        result_.last_loss = loss;
      }
      progress_.step();
    };
    subject_.problem.problem.on_step = on_step;
    if (subject_.reference) subject_.reference->problem.on_step = on_step;
    const NamedTensors& h = problem().hyperparameters;
    for (std::size_t i = 0; i < h.size(); ++i)
      result_.groups.emplace_back(h.names()[i], h.tensors()[i].size());
    result_.parameters = problem().parameters;
    result_.steps = problem().problem.steps;
    result_.dtype = name_of(dtype());
    result_.threads = thread_count();
  }

  Comparison run() {
    time_training();
    forecast_memory();
    std::vector<ComparedMethod> reverse = reverse_methods(selection_, problem(), forecast_);
    const std::vector<ComparedMethod> approximate = approximate_methods(selection_, problem(), forecast_);
    plan_memory(reverse);
    expect_work(reverse, approximate);
    const std::string measured = find_reference();
    const DirectionalRows directional(reference_problem(), problem(), reference_, options_.training.seed,
                                      progress_);
    if (selection_.has("ridders")) append("ridders", directional.ridders());
    for (const ComparedMethod& method : reverse) {
      if (has_reference_ && method.label() == measured)
        append(rows_of(reference_, method.setting));
      else
        append_rows(method);
    }
    if (selection_.has("forward")) append("forward", directional.forward());
    for (const ComparedMethod& method : approximate) append_rows(method);
    time_training_again();
    for (ComparisonRow& row : result_.rows)
      if (row.seconds && result_.training_run_seconds)
        row.training_runs = *row.seconds / *result_.training_run_seconds;
    if (result_.plan) add_measured_bytes(reverse);
    return std::move(result_);
  }

 private:
  const ComparedProblem& problem() const noexcept { return subject_.problem; }
  const ComparedProblem& reference_problem() const noexcept {
    return subject_.reference ? *subject_.reference : subject_.problem;
  }
  Dtype dtype() const { return problem().hyperparameters.tensors().front().dtype(); }
  double steps() const { return static_cast<double>(problem().problem.steps); }

  // Computes the reference. Returns the label of the method whose own result it is; empty if it is none's.
  std::string find_reference() {
    if (subject_.closed_form) {
      has_reference_ = true;
      reference_ = *subject_.closed_form;
      result_.reference = "the closed form";
      result_.validation_loss = reference_.value;
      return "";
    }
    // The reference's elements may be larger than the methods'.
    const double wider = subject_.reference
                             ? static_cast<double>(sizeof(double)) / static_cast<double>(size_of(dtype()))
                             : 1.0;
    const std::string where = subject_.reference ? " in float64" : "";
    ComparedMethod method = unrolled(forecast_);
    if (wider * method.bytes > usable_bytes_ || !try_reference(method, where)) {
      method = checkpointed(forecast_, problem().problem.steps);
      if (!try_reference(method, where)) {
        result_.reference = "none";
        return "";
      }
    }
    result_.reference = method.label() + where;
    if (!bilevel::is_failure(reference_.status)) result_.validation_loss = reference_.value;
    return subject_.reference ? "" : method.label();
  }

  // Whether the method has a result; what failed is kept, so that it need not fail twice.
  bool try_reference(const ComparedMethod& method, const std::string& where) {
    try {
      reference_ = measure(method, reference_problem());
      has_reference_ = true;
    } catch (const std::exception& error) {
      progress_.end();
      const std::string status = status_of(error);
      note_failure(method.label() + where, status);
      if (!subject_.reference) failed_.emplace_back(method.label(), status);
      reference_.gradients = problem().hyperparameters.with(TensorList(problem().hyperparameters.size()));
    }
    return has_reference_;
  }

  // Adds five plain runs, fewer if they take long; the unit is the median of all. A run that is not counted
  // comes first, and more are timed after the methods: a cold machine would make the unit long and every
  // method look cheap.
  void time_training() {
    constexpr std::size_t most_runs = 5;
    constexpr double enough_seconds = 2.0, short_run = 0.25, tiny_run = 0.01;
    double total = 0.0;
    const bool first = plain_seconds_.empty();
    progress_.expect(static_cast<double>(most_runs) * steps());
    records_losses_ = first;
    for (std::size_t runs = 0; runs < most_runs && total < enough_seconds; ++runs) {
      progress_.begin("training", steps());
      const auto start = std::chrono::steady_clock::now();
      try {
        bilevel::train(problem().problem, problem().hyperparameters);
      } catch (const bilevel::TrainingDiverged& error) {
        records_losses_ = false;
        note_failure("training", std::string("diverged: ") + error.what());
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
    if (*result_.training_run_seconds < tiny_run) approximate_repeats_ = 3;
  }

  // The rows stay, whatever happens here.
  void time_training_again() {
    if (!result_.training_run_seconds) return;
    try {
      time_training();
    } catch (const std::exception& error) {
      note_failure("training, timed again", status_of(error));
    }
  }

  void forecast_memory() {
    if (!subject_.is_large) return;
    forecast_ = MemoryForecast(problem());
    // Close to the limit other programs would suffer.
    constexpr double usable = 0.8;
    const std::int64_t available = available_memory();
    if (options_.usable_bytes)
      usable_bytes_ = *options_.usable_bytes;
    else if (available != unknown_memory)
      usable_bytes_ = usable * static_cast<double>(available);
  }

  // The planner's choice: within the budget, if there is one, and then compared too.
  void plan_memory(std::vector<ComparedMethod>& reverse) {
    if (!subject_.is_large) return;
    std::optional<std::int64_t> budget = options_.memory_bytes;
    if (!budget && usable_bytes_ < static_cast<double>(unknown_memory))
      budget = std::max<std::int64_t>(1, static_cast<std::int64_t>(usable_bytes_));
    const std::optional<bilevel::Plan> plan =
        forecast_.plan({.budget_bytes = budget, .fixed_point = options_.fixed_point});
    ComparedPlan& compared = result_.plan.emplace();
    compared.budget_bytes = budget;
    compared.message = plan ? plan->message : forecast_.failure();
    if (!plan) return;
    for (std::size_t i = 0; i < plan->candidates.size(); ++i) {
      const bilevel::Candidate& candidate = plan->candidates[i];
      compared.rows.push_back({.method = candidate.estimator.name(),
                               .setting = candidate.estimator.setting(),
                               .gradients = candidate.prediction.gradients,
                               .hessian_vector_products = candidate.prediction.hessian_vector_products,
                               .predicted_bytes = candidate.prediction.peak_bytes,
                               .measured_bytes = {},
                               .is_chosen = plan->chosen == i,
                               .reason = candidate.reason});
    }
    if (!options_.memory_bytes || !plan->chosen) return;
    const bilevel::Candidate& choice = plan->choice();
    ComparedMethod method{.estimator = choice.estimator, .setting = choice.estimator.setting()};
    const auto is_same = [&](const ComparedMethod& other) { return other.label() == method.label(); };
    if (std::any_of(reverse.begin(), reverse.end(), is_same)) return;
    method.prediction = choice.prediction;
    method.bytes = static_cast<double>(choice.prediction.peak_bytes);
    reverse.push_back(std::move(method));
  }

  void add_measured_bytes(const std::vector<ComparedMethod>& reverse) {
    std::vector<PlanRow>& rows = result_.plan->rows;
    const auto row_of = [&](const std::string& method, const std::string& setting) {
      return std::find_if(rows.begin(), rows.end(),
                          [&](const PlanRow& row) { return row.method == method && row.setting == setting; });
    };
    for (const ComparedMethod& method : reverse)
      if (method.prediction && row_of(method.estimator.name(), method.setting) == rows.end())
        rows.push_back({.method = method.estimator.name(),
                        .setting = method.setting,
                        .gradients = method.prediction->gradients,
                        .hessian_vector_products = method.prediction->hessian_vector_products,
                        .predicted_bytes = method.prediction->peak_bytes,
                        .measured_bytes = {},
                        .is_chosen = false,
                        .reason = {}});
    for (const ComparisonRow& row : result_.rows) {
      const auto planned = row_of(row.method, row.setting);
      if (planned != rows.end()) planned->measured_bytes = row.peak_bytes;
    }
  }

  bool fits(const ComparedMethod& method) const { return method.bytes <= usable_bytes_; }

  int repeats_of(const ComparedMethod& method) const {
    return method.is_exact ? repeats_ : approximate_repeats_;
  }

  void expect_work(const std::vector<ComparedMethod>& reverse,
                   const std::vector<ComparedMethod>& approximate) {
    const DirectionalPlan plan = directional_plan(problem());
    const double directions =
        static_cast<double>(plan.directions) * static_cast<double>(problem().hyperparameters.size());
    double runs = selection_.has("unrolled") ? 0.0 : ComparedMethod::typical_runs * repeats_;
    for (const std::vector<ComparedMethod>& methods : {reverse, approximate})
      for (const ComparedMethod& method : methods)
        if (fits(method) && method.refusal.empty()) runs += ComparedMethod::typical_runs * repeats_of(method);
    if (selection_.has("ridders")) runs += directions * plan.ridders_runs;
    if (selection_.has("forward")) runs += directions * plan.forward_runs;
    progress_.expect(runs * steps());
  }

  // The hypergradient, with the median of the seconds of several runs.
  Hypergradient measure(const ComparedMethod& method, const ComparedProblem& on) {
    Hypergradient result;
    std::vector<double> seconds;
    for (int repeat = 0; repeat < repeats_of(method); ++repeat) {
      progress_.begin(method.label(), ComparedMethod::typical_runs * steps());
      result = bilevel::hypergradient(on.problem, on.outer, on.hyperparameters, method.estimator);
      seconds.push_back(result.cost.seconds);
      progress_.end();
    }
    result.cost.seconds = median(seconds);
    if (bilevel::is_failure(result.status))
      note_failure(method.label(), std::string(name_of(result.status)) + ": " + result.message);
    return result;
  }

  void append_rows(const ComparedMethod& method) {
    const auto before = std::find_if(failed_.begin(), failed_.end(),
                                     [&](const auto& each) { return each.first == method.label(); });
    if (!method.refusal.empty())
      append(rows_without_result(method, method.refusal));
    else if (!fits(method))
      append(rows_without_result(
          method,
          "skipped (needs about " + readable_bytes(static_cast<std::int64_t>(method.bytes)) + " of memory)"));
    else if (before != failed_.end())
      append(rows_without_result(method, before->second));
    else
      append(rows_of(method));
  }

  // A method that cannot do it ends with its own rows.
  std::vector<ComparisonRow> rows_of(const ComparedMethod& method) {
    try {
      return rows_of(measure(method, problem()), method.setting);
    } catch (const std::exception& error) {
      progress_.end();
      note_failure(method.label(), status_of(error));
      return rows_without_result(method, status_of(error));
    }
  }

  std::vector<ComparisonRow> rows_without_result(const ComparedMethod& method,
                                                 const std::string& status) const {
    std::vector<ComparisonRow> rows;
    for (const std::string& group : problem().hyperparameters.names()) {
      ComparisonRow& row = rows.emplace_back();
      row.method = method.estimator.name();
      row.setting = method.setting;
      row.group = group;
      row.status = status;
    }
    return rows;
  }

  // The first failure is the one to name: later ones follow from it.
  void note_failure(const std::string& what, const std::string& message) {
    if (result_.failure.empty()) result_.failure = what + ' ' + message;
  }

  std::vector<ComparisonRow> rows_of(const Hypergradient& result, const std::string& setting) const {
    std::vector<ComparisonRow> rows;
    for (std::size_t i = 0; i < result.gradients.size(); ++i) {
      ComparisonRow row;
      row.method = result.method;
      row.setting = setting;
      row.group = result.gradients.names()[i];
      row.status = status_of(result, i);
      if (!bilevel::is_failure(result.status)) {
        set_cost(row, result.cost);
        const Tensor& gradient = result.gradients.tensors()[i];
        if (gradient.defined()) compare_gradients(row, gradient, reference_.gradients.tensors()[i]);
      }
      rows.push_back(std::move(row));
    }
    return rows;
  }

  static void compare_gradients(ComparisonRow& row, const Tensor& gradient, const Tensor& reference) {
    if (!reference.defined()) return;
    const std::vector<double> value = doubles_of(gradient), other = doubles_of(reference);
    set_finite(row.relative_error, relative_error(value, other));
    set_finite(row.cosine, cosine(value, other));
  }

  void append(const std::string& method, DirectionalRows::Result found) {
    if (!found.failure.empty()) note_failure(method, found.failure);
    append(std::move(found.rows));
  }

  void append(std::vector<ComparisonRow> rows) {
    for (ComparisonRow& row : rows) result_.rows.push_back(std::move(row));
  }

  const CompareOptions& options_;
  const Selection selection_;
  Progress& progress_;
  ComparisonSubject subject_;
  Comparison result_;
  Hypergradient reference_;  // has no gradients where there is none
  bool has_reference_ = false;
  std::vector<std::pair<std::string, std::string>> failed_;  // labels and statuses
  MemoryForecast forecast_;
  double usable_bytes_ = std::numeric_limits<double>::infinity();
  int repeats_ = 1, approximate_repeats_ = 1;
  bool records_losses_ = false;
  std::vector<double> plain_seconds_;
};

}  // namespace

Comparison compare(ComparisonSubject subject, const CompareOptions& options, Comparison known,
                   Progress& progress) {
  return Comparer(std::move(subject), options, std::move(known), progress).run();
}

Comparison compare(Dataset data, const CompareOptions& options, Progress& progress) {
  const ThreadCountScope threads(options.threads == 0 ? thread_count() : options.threads);
  const TrainingOptions& training = options.training;
  const auto prepared = prepare_data(data, training);
  const TrainingProblem net = make_training_problem(prepared, training);
  ComparisonSubject subject{.problem = compared(net, training)};
  if (training.dtype != Dtype::float64)
    subject.reference = compared(
        make_training_problem(prepare_data(data, training, Dtype::float64), training, Dtype::float64),
        training);
  subject.is_large = true;
  Comparison result;
  result.problem = "net";
  result.optimizer = optimizer_names[static_cast<std::size_t>(training.optimizer)];
  result.data_name = data.name;
  result.features = data.features;
  result.classes = data.classes;
  result.training_samples = prepared->training_samples;
  result.validation_samples = data.samples - prepared->training_samples;
  result.sizes = net.net.sizes();
  result.activation = nn::name_of(net.net.activation());
  result.batch = training.batch;
  result.scale = prepared->scaling.name();
  result.scale_text = prepared->scaling.text();
  result.data_notes = std::move(data.notes);
  data = {};  // the tensors hold what is needed
  return compare(std::move(subject), options, std::move(result), progress);
}

Comparison compare_closed(const CompareOptions& options, Progress& progress) {
  const ThreadCountScope threads(options.threads == 0 ? thread_count() : options.threads);
  const ClosedProblem closed =
      make_closed_problem(options.problem, options.training.seed, options.training.steps);
  ComparisonSubject subject{.problem = compared(closed)};
  const NamedTensors& h = subject.problem.hyperparameters;
  Hypergradient& exact = subject.closed_form.emplace();
  exact.value = closed.exact.value;
  exact.gradients = h.with(TensorList{Tensor::from(closed.exact.gradient, h.tensors().front().shape())});
  exact.availability = {bilevel::Availability::defined};
  Comparison result;
  result.problem = problem_names[static_cast<std::size_t>(options.problem)];
  result.description = closed.description;
  result.optimizer = optimizer_names[static_cast<std::size_t>(Optimizer::sgd)];
  result.rate = closed.rate;
  return compare(std::move(subject), options, std::move(result), progress);
}

}  // namespace hypertape
