#include "tune.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <sstream>
#include <utility>

#include <hypertape/bilevel/hypergradient.h>
#include <hypertape/core/parallel.h>
#include "hyperparameters_file.h"
#include "method_failure.h"
#include "progress.h"
#include "readable.h"
#include "thread_count_scope.h"
#include "tune_folder.h"
#include "tune_grid.h"
#include "tune_report.h"

namespace hypertape {
namespace {

using Json = nlohmann::ordered_json;
using bilevel::Hypergradient;

bilevel::Estimator estimator_of(const std::string& method) {
  if (method == "unrolled") return bilevel::Unrolled{};
  if (method == "trajectory") return bilevel::Trajectory{};
  if (method == "reversible") return bilevel::Reversible{};
  return bilevel::Checkpointed{};
}

std::string data_identity(const Dataset& data) {
  const auto bytes_of = [](const auto& values) {
    return std::string_view(reinterpret_cast<const char*>(values.data()), values.size() * sizeof values[0]);
  };
  return data.name + ", checksum " + checksum(bytes_of(data.inputs)) + checksum(bytes_of(data.labels));
}

std::string text_of(const Shape& shape) {
  std::ostringstream text;
  text << shape;
  return text.str();
}

NamedTensors initial_point(const TuneOptions& options, const NamedTensors& layout) {
  if (!options.start) return layout;
  const NamedTensors start = read_hyperparameters_file(*options.start);
  const auto refuse = [&](const std::string& what) {
    throw UsageError("--start: " + *options.start + " " + what +
                     "; see --groups, --penalties, --steps and --layers");
  };
  // In whatever order they are there.
  TensorList groups;
  for (std::size_t i = 0; i < layout.size(); ++i) {
    const std::string& name = layout.names()[i];
    if (!start.contains(name)) refuse("has no group " + name + ", which is learned here");
    const Shape shape = layout.tensors()[i].shape();
    if (start[name].shape() != shape)
      refuse("has " + name + " of shape " + text_of(start[name].shape()) + ", not " + text_of(shape));
    groups.push_back(start[name]);
  }
  for (const std::string& name : start.names())
    if (!layout.contains(name)) refuse("has a group " + name + ", which is not learned here");
  return groups_from(elements_of(layout.with(std::move(groups))), layout);  // in the dtype of training
}

// What decides the run's numbers; more --outer-steps, other --threads or a --baseline may be added later.
Json settings_of(const Dataset& data, const TuneOptions& options, const NamedTensors& start) {
  const TrainingOptions& training = options.training;
  Json settings = {{"--samples", options.samples},
                   {"--data", data_identity(data)},
                   {"--scale", scale_names[static_cast<std::size_t>(resolved(training.scale, data))]},
                   {"--seed", training.seed},
                   {"--layers", training.layers},
                   {"--activation", nn::name_of(training.activation)},
                   {"--steps", training.steps},
                   {"--batch", training.batch},
                   {"--groups", training.groups},
                   {"--penalties", penalties_names[static_cast<std::size_t>(options.penalties)]},
                   {"--optimizer", optimizer_names[static_cast<std::size_t>(training.optimizer)]},
                   {"--dtype", name_of(training.dtype)},
                   {"--rate", training.rate},
                   {"--momentum", training.momentum},
                   {"--l2", training.l2},
                   {"--method", options.method},
                   {"--outer-rate", options.outer.rate},
                   {"--outer-beta1", options.outer.beta1},
                   {"--outer-beta2", options.outer.beta2}};
  if (options.start) {
    const std::vector<double> elements = elements_of(start);
    settings["--start"] =
        checksum({reinterpret_cast<const char*>(elements.data()), elements.size() * sizeof elements[0]});
  } else {
    settings["--start"] = nullptr;
  }
  return settings;
}

// A state may come from anywhere.
std::string short_text(const Json& json) {
  constexpr std::size_t most = 200;
  const std::string text = json.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= most ? text : text.substr(0, most) + "...";
}

void require_same(const Json& now, const Json& before, const std::string& folder) {
  if (!before.contains("--scale"))
    throw UsageError("--scale: the run in " + folder +
                     " is of an earlier version, which divided all data by the largest number; give another "
                     "--output to start again");
  for (const auto& [option, value] : now.items()) {
    const Json other = before.contains(option) ? before[option] : Json(nullptr);
    if (other == value) continue;
    throw UsageError(option + ": the run in " + folder + " has " + short_text(other) + ", not " +
                     short_text(value) + "; give its options to continue it, or another --output");
  }
}

std::optional<double> finite_norm(const std::vector<double>& x) {
  double total = 0.0;
  for (const double element : x) total += element * element;
  return std::isfinite(total) ? std::optional(std::sqrt(total)) : std::nullopt;
}

class Tuner {
 public:
  Tuner(const Dataset& data, const TuneOptions& options, const TuneFolder* folder, Progress& progress)
      : options_(options),
        folder_(folder),
        progress_(progress),
        data_(split_data(data, options.training)),
        training_(make_tune_problem(data_, options.training, options.penalties)),
        state_(elements_of(initial_point(options, training_.hyperparameters))) {
    training_.problem.on_step = [this](std::int64_t, double) { progress_.step(); };
    state_.settings = settings_of(data, options, groups_from(state_.next, training_.hyperparameters));
    if (folder_ != nullptr) resume();
    describe(data);
  }

  TuneResult run() {
    expect_work();
    while (state_.outer_steps() < options_.outer_steps && failure().empty()) {
      take_outer_step();
      save();
    }
    result_.failure = failure();
    if (!state_.best.empty()) finish_learning();
    if (options_.baseline && result_.failure.empty()) search_grid();
    result_.before = state_.before;
    result_.history = state_.history;
    result_.best_step = state_.best_step;
    result_.grid = state_.grid;
    result_.gradients_of_work = gradients_of_work();
    return std::move(result_);
  }

 private:
  double steps() const { return static_cast<double>(options_.training.steps); }
  std::string path() const { return folder_->path_of("state"); }

  void resume() {
    const std::optional<std::string> bytes = folder_->state();
    if (!bytes) return;
    TuneState found = read_state(*bytes, path());
    require_same(state_.settings, found.settings, folder_->path());
    if (found.next.size() != state_.next.size())
      fail("read state", path(), ": it holds ", found.next.size(), " hyperparameters, not ",
           state_.next.size());
    if (found.outer_steps() > options_.outer_steps)
      throw UsageError("--outer-steps: the run in " + folder_->path() + " has taken " +
                       std::to_string(found.outer_steps()) + " already, more than " +
                       std::to_string(options_.outer_steps));
    // Far more than any method's steps take; the grid's size follows from it.
    const double most = 100.0 * steps() * static_cast<double>(found.outer_steps());
    if (static_cast<double>(found.gradients) + static_cast<double>(found.hessian_vector_products) > most)
      fail("read state", path(), ": it counts more work than its steps can have been");
    found.settings = std::move(state_.settings);  // the same, and nothing else
    state_ = std::move(found);
  }

  void save() const {
    if (folder_ != nullptr) folder_->write("state", state_bytes(state_));
  }

  void describe(const Dataset& data) {
    result_.data_name = data.name;
    result_.scale_text = data_.training->scaling.text();
    result_.data_notes = data.notes;
    result_.features = data.features;
    result_.classes = data.classes;
    result_.training_samples =
        static_cast<std::int64_t>(data_.training->batches.size()) * options_.training.batch;
    result_.validation_samples = data_.validation_samples;
    result_.test_samples = data_.test_samples;
    result_.sizes = training_.net.sizes();
    result_.activation = nn::name_of(training_.net.activation());
    result_.parameters = training_.net.parameter_count();
    result_.steps = options_.training.steps;
    result_.batch = options_.training.batch;
    result_.threads = thread_count();
    result_.optimizer = optimizer_names[static_cast<std::size_t>(options_.training.optimizer)];
    result_.dtype = name_of(options_.training.dtype);
    result_.method = options_.method;
    result_.settings = state_.settings;
  }

  // Plain training runs that an outer step takes, for progress.
  double runs_per_outer_step() const {
    const double replays = options_.method == "unrolled" ? 1.0 : 2.0;
    return replays + hessian_product_in_gradients(training_.net);
  }

  void expect_work() {
    const double outer_left = static_cast<double>(options_.outer_steps - state_.outer_steps());
    double runs = outer_left * runs_per_outer_step() + 2.0;
    if (options_.baseline)
      runs += static_cast<double>(options_.outer_steps) * runs_per_outer_step() -
              static_cast<double>(state_.grid.size());
    progress_.expect(runs * steps());
  }

  std::string failure() const {
    const std::string how = state_.history.empty() ? "" : state_.history.back().status;
    if (!state_.history.empty() && state_.accepted.empty())
      return "no hypergradient at the initial hyperparameters: " + how +
             "; start from a lower --rate or --momentum";
    if (state_.rejections >= most_rejections)
      return std::to_string(state_.rejections) + " outer steps in a row were " + how +
             "; use a lower --outer-rate";
    return "";
  }

  NamedTensors groups(const std::vector<double>& elements) const {
    return groups_from(elements, training_.hyperparameters);
  }

  void take_outer_step() {
    const std::int64_t k = state_.outer_steps();
    progress_.begin(
        "outer step " + std::to_string(k + 1) + " of " + std::to_string(options_.outer_steps) + best_so_far(),
        runs_per_outer_step() * steps());
    const auto start = std::chrono::steady_clock::now();
    std::string refusal;
    const Hypergradient found = hypergradient_at(groups(state_.next), refusal);
    state_.gradients += found.cost.gradients;
    state_.hessian_vector_products += found.cost.hessian_vector_products;
    OuterRecord record;
    const std::vector<double> gradient = gradient_of(found);
    // No other status vouches for the gradient.
    if (found.status == bilevel::ResultStatus::exact || found.status == bilevel::ResultStatus::chaotic)
      record.gradient_norm = finite_norm(gradient);
    if (record.gradient_norm) {
      record.validation_loss = found.value;
      record.training_loss = training_quality(data_, training_.net, found.parameters).loss;
      record.status = bilevel::name_of(found.status);
      accept(k, found.value, gradient);
      if (k == 0) evaluate_start();
    } else {
      record.status = "rejected: " + (refusal.empty() ? reason_of(found) : refusal);
      reject();
    }
    record.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    state_.history.push_back(std::move(record));
    progress_.end();
  }

  // What the method cannot do at this point is no hypergradient either. Memory is not the point's: going back
  // would not help, and the files would depend on the machine.
  Hypergradient hypergradient_at(const NamedTensors& h, std::string& refusal) const {
    try {
      return bilevel::hypergradient(training_.problem, training_.validation_loss, h,
                                    estimator_of(options_.method));
    } catch (const std::exception& error) {
      if (is_out_of_memory(error)) throw;
      refusal = error.what();
      Hypergradient none;
      none.status = bilevel::ResultStatus::diverged;
      none.gradients = h.with(TensorList(h.size()));
      return none;
    }
  }

  std::string best_so_far() const {
    if (state_.best_step < 0) return "";
    const OuterRecord& best = state_.history[static_cast<std::size_t>(state_.best_step)];
    return ", validation loss " + formatted("%.4g", *best.validation_loss);
  }

  static std::string reason_of(const Hypergradient& found) {
    using bilevel::ResultStatus;
    if (found.status != ResultStatus::diverged && found.status != ResultStatus::exact &&
        found.status != ResultStatus::chaotic)
      return std::string(bilevel::name_of(found.status)) + ": " + found.message;
    if (found.failed_step >= 0) return "training diverged at step " + std::to_string(found.failed_step);
    if (found.status == ResultStatus::diverged) return "the validation loss or its gradient is not finite";
    return "the gradient's squares overflow";
  }

  // Zero for hyperparameters without a path to the validation loss.
  std::vector<double> gradient_of(const Hypergradient& found) const {
    TensorList parts;
    for (std::size_t i = 0; i < found.gradients.size(); ++i) {
      const Tensor& part = found.gradients.tensors()[i];
      parts.push_back(part.defined() ? part
                                     : Tensor::zeros(training_.hyperparameters.tensors()[i].shape(),
                                                     options_.training.dtype));
    }
    return elements_of(training_.hyperparameters.with(std::move(parts)));
  }

  void accept(std::int64_t k, double value, const std::vector<double>& gradient) {
    state_.rejections = 0;
    state_.accepted = state_.next;
    const auto best_value = [&] {
      return *state_.history[static_cast<std::size_t>(state_.best_step)].validation_loss;
    };
    if (state_.best.empty() || value < best_value()) {
      state_.best = state_.accepted;
      state_.best_step = k;
    }
    const std::vector<double> move = state_.adam.step(gradient, options_.outer);
    for (std::size_t i = 0; i < move.size(); ++i) state_.next[i] += move[i];
    keep_momenta_in_range();
  }

  // Halfway back; from the initial point there is no way back.
  void reject() {
    ++state_.rejections;
    for (std::size_t i = 0; i < state_.accepted.size(); ++i)
      state_.next[i] = state_.accepted[i] + 0.5 * (state_.next[i] - state_.accepted[i]);
  }

  void keep_momenta_in_range() {
    std::size_t start = 0;
    const NamedTensors& layout = training_.hyperparameters;
    for (std::size_t i = 0; i < layout.size(); ++i) {
      const std::size_t stop = start + static_cast<std::size_t>(layout.tensors()[i].size());
      if (layout.names()[i] == "momenta")
        for (std::size_t j = start; j < stop; ++j)
          state_.next[j] = std::clamp(state_.next[j], -largest_logit, largest_logit);
      start = stop;
    }
  }

  // The hypergradient's own run may have been in fixed point, and knows nothing of the test set.
  void evaluate_start() {
    try {
      state_.before = evaluate(data_, training_, groups(state_.accepted));
    } catch (const bilevel::TrainingDiverged&) {  // by rounding alone; the row stays empty
    }
  }

  void finish_learning() {
    result_.hyperparameters = groups(state_.best);
    progress_.begin("training with the learned hyperparameters", steps());
    try {
      result_.after = evaluate(data_, training_, result_.hyperparameters);
    } catch (const bilevel::TrainingDiverged& error) {
      if (result_.failure.empty())
        result_.failure =
            std::string("plain training with the learned hyperparameters diverged: ") + error.what();
    }
    progress_.end();
  }

  double gradients_of_work() const {
    return static_cast<double>(state_.gradients) +
           static_cast<double>(state_.hessian_vector_products) * hessian_product_in_gradients(training_.net);
  }

  TrainingProblem problem_at(const GridRecord& point) const {
    TrainingProblem training =
        make_tune_problem(data_, options_at(point, options_.training), options_.penalties);
    training.problem.on_step = training_.problem.on_step;
    return training;
  }

  // What was searched before stays, unless more outer steps have made the grid another one.
  void keep_searched(const std::vector<GridRecord>& points) {
    const auto same = [](const GridRecord& a, const GridRecord& b) {
      return a.rate == b.rate && a.momentum == b.momentum && a.l2 == b.l2;
    };
    if (state_.grid.size() > points.size() ||
        !std::equal(state_.grid.begin(), state_.grid.end(), points.begin(), same))
      state_.grid.clear();
  }

  void search_grid() {
    const std::vector<GridRecord> points =
        grid_points(static_cast<std::int64_t>(gradients_of_work() / steps()), options_.training);
    keep_searched(points);
    while (state_.grid.size() < points.size()) {
      GridRecord point = points[state_.grid.size()];
      progress_.begin(
          "grid, run " + std::to_string(state_.grid.size() + 1) + " of " + std::to_string(points.size()),
          steps());
      const TrainingProblem training = problem_at(point);
      try {
        const NamedTensors& h = training.hyperparameters;
        const double loss =
            training.validation_loss(bilevel::train(training.problem, h).parameters, h).item();
        if (std::isfinite(loss)) point.validation_loss = loss;
      } catch (const bilevel::TrainingDiverged&) {
      }
      state_.grid.push_back(point);
      progress_.end();
      save();
    }
    result_.grid_best = best_of(state_.grid);
    if (!result_.grid_best) return;
    const TrainingProblem training = problem_at(state_.grid[*result_.grid_best]);
    result_.grid_evaluation = evaluate(data_, training, training.hyperparameters);
  }

  const TuneOptions& options_;
  const TuneFolder* folder_;
  Progress& progress_;
  TuneData data_;
  TrainingProblem training_;
  TuneState state_;
  TuneResult result_;
};

}  // namespace

TuneResult tune(Dataset data, const TuneOptions& options, const TuneFolder* folder, Progress& progress) {
  const ThreadCountScope threads(options.threads == 0 ? thread_count() : options.threads);
  Tuner tuner(data, options, folder, progress);
  data = {};  // the tensors hold what is needed
  return tuner.run();
}

void write_results(const TuneResult& result, const TuneFolder& folder) {
  if (!result.hyperparameters.empty()) {
    const OuterRecord& best = result.history[static_cast<std::size_t>(result.best_step)];
    folder.write("hyperparameters.json",
                 hyperparameters_json(result.hyperparameters, {{"outer_step", result.best_step},
                                                               {"validation_loss", *best.validation_loss},
                                                               {"settings", result.settings}}));
    folder.write("hyperparameters.npz", hyperparameters_npz(result.hyperparameters));
    folder.write("figure.svg", tune_figure(result));
  }
  if (!result.grid.empty()) folder.write("baseline.csv", baseline_csv(result));
  folder.write("history.csv", history_csv(result));
  folder.write("results.csv", results_csv(result));
}

}  // namespace hypertape
