// What `hypertape tune` learns: the outer problem, its optimizer, its budget, and what it does when training
// diverges.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/hypergradient.h>
#include <hypertape/core/parallel.h>
#include "tune_grid.h"
#include "tune_report.h"
#include "tune_runs.h"

namespace {

using hypertape::Dataset;
using hypertape::GridRecord;
using hypertape::OuterAdam;
using hypertape::OuterRecord;
using hypertape::Penalties;
using hypertape::TrainingProblem;
using hypertape::TuneData;
using hypertape::TuneOptions;
using hypertape::TuneResult;

// Every sample's input is its number.
Dataset numbered(std::int64_t samples) {
  Dataset data;
  data.samples = samples;
  data.features = 1;
  data.classes = 2;
  data.name = "numbered";
  for (std::int64_t i = 0; i < samples; ++i) {
    data.inputs.push_back(static_cast<double>(i));
    data.labels.push_back(i % 2);
  }
  return data;
}

std::vector<double> gradient_of(const TrainingProblem& training, const std::string& group) {
  const auto found = hypertape::bilevel::hypergradient(
      training.problem, training.validation_loss, training.hyperparameters, hypertape::bilevel::Unrolled{});
  return found.gradients[group].to_vector<double>();
}

double lowest_validation_loss(const TuneResult& result) {
  double lowest = HUGE_VAL;
  for (const OuterRecord& each : result.history)
    if (each.validation_loss) lowest = std::min(lowest, *each.validation_loss);
  return lowest;
}

bool all_finite(const std::vector<double>& x) {
  return std::all_of(x.begin(), x.end(), [](double element) { return std::isfinite(element); });
}

}  // namespace

TEST_CASE("samples are split three ways: none is lost, none is used twice") {
  hypertape::TrainingOptions options;
  options.batch = 8;
  options.scale = hypertape::Scale::none;
  const TuneData data = hypertape::split_data(numbered(100), options);
  CHECK(data.test_samples == 20);
  CHECK(data.validation_samples == 16);
  CHECK(data.training->training_samples == 64);
  std::vector<double> all = data.test.inputs.to_vector<double>();
  const std::vector<double> test = all;
  const auto add = [&](const hypertape::Samples& samples) {
    const std::vector<double> inputs = samples.inputs.to_vector<double>();
    const std::vector<std::int64_t> labels = samples.labels.to_vector<std::int64_t>();
    for (std::size_t i = 0; i < inputs.size(); ++i)
      CHECK(labels[i] == static_cast<std::int64_t>(inputs[i]) % 2);
    all.insert(all.end(), inputs.begin(), inputs.end());
  };
  add(data.training->validation);
  for (const hypertape::Samples& batch : data.training->batches) add(batch);
  std::sort(all.begin(), all.end());
  CHECK(all == numbered(100).inputs);
  options.seed = 1;
  CHECK(hypertape::split_data(numbered(100), options).test.inputs.to_vector<double>() != test);
}

TEST_CASE("the test samples change nothing that is learned") {
  Dataset data = first_digits(130);
  TuneOptions options = small_tune_options();
  const TuneResult before = tuned(data, options);
  const TuneData split = hypertape::split_data(data, options.training);
  // Every test sample gets another label.
  const std::vector<double> test = split.test.inputs.to_vector<double>();
  std::int64_t changed = 0;
  for (std::int64_t i = 0; i < data.samples; ++i) {
    const double* row = data.inputs.data() + i * data.features;
    for (std::int64_t k = 0; k < split.test_samples; ++k) {
      const auto scaled = [](double pixel, double input) { return pixel / 16.0 == input; };
      if (!std::equal(row, row + data.features, test.data() + k * data.features, scaled)) continue;
      data.labels[static_cast<std::size_t>(i)] =
          (data.labels[static_cast<std::size_t>(i)] + 1) % data.classes;
      ++changed;
    }
  }
  CHECK(changed == 26);
  const TuneResult after = tuned(data, options);
  CHECK(hypertape::elements_of(after.hyperparameters) == hypertape::elements_of(before.hyperparameters));
  CHECK(after.after->validation.loss == before.after->validation.loss);
  CHECK(after.after->training.loss == before.after->training.loss);
  CHECK(after.after->test.loss != before.after->test.loss);
}

TEST_CASE("every weight has its penalty unless asked otherwise") {
  const TuneOptions options = small_tune_options();
  const TuneResult result = tuned(first_digits(130), options);
  CHECK(result.hyperparameters["log_l2"].size() == result.parameters);
}

TEST_CASE("tune: the table stays narrow where losses are huge") {
  TuneResult result = tuned(first_digits(130), small_tune_options());
  result.after->test.loss = 1.25e200;
  const std::string table = hypertape::tune_table(result);
  CHECK(table.find("  1.25e+200  ") != std::string::npos);
}

TEST_CASE("a penalty per layer is the penalties of its parameters moving together") {
  TuneOptions options = small_tune_options();
  options.training.l2 = 0.01;
  options.training.layers = {6, 5};
  const TuneData data = hypertape::split_data(first_digits(130), options.training);
  const TrainingProblem by_layer = make_tune_problem(data, options.training, Penalties::layer);
  const TrainingProblem by_weight = make_tune_problem(data, options.training, Penalties::weight);
  CHECK(by_layer.hyperparameters["log_l2"].shape() == hypertape::Shape{3});
  CHECK(by_weight.hyperparameters["log_l2"].size() == by_weight.net.parameter_count());
  // The same training, to the last bit.
  const auto end = [](const TrainingProblem& training) {
    return hypertape::bilevel::train(training.problem, training.hyperparameters)
        .parameters["weight_2"]
        .to_vector<double>();
  };
  CHECK(end(by_layer) == end(by_weight));
  const std::vector<double> together = gradient_of(by_layer, "log_l2"),
                            each = gradient_of(by_weight, "log_l2");
  const std::vector<std::size_t> sizes = {64 * 6 + 6, 6 * 5 + 5, 5 * 10 + 10};
  std::size_t at = 0;
  for (std::size_t layer = 0; layer < 3; ++layer) {
    double sum = 0.0, magnitude = 0.0;
    for (std::size_t i = 0; i < sizes[layer]; ++i, ++at) {
      sum += each[at];
      magnitude += std::abs(each[at]);
    }
    CHECK(std::abs(together[layer] - sum) <= 1e-12 * magnitude);
    CHECK(magnitude > 0.0);
  }
  CHECK(gradient_of(by_layer, "log_rates") == gradient_of(by_weight, "log_rates"));
}

TEST_CASE("the outer optimizer is Adam") {
  // By hand, in exact fractions: rate 1/2, decays 1/2 and 3/4, gradients 2 and -1.
  //   m: 1, 0           s: 1, 1              corrections: 1/2, 3/4 and 1/4, 7/16
  //   moves: -1/2 (1 / (1/2)) / sqrt(1 / (1/4)) = -1/2, and 0
  OuterAdam adam(1);
  const hypertape::OuterAdamOptions options{0.5, 0.5, 0.75};
  CHECK(adam.step(std::vector<double>{2.0}, options)[0] ==
        doctest::Approx(-0.5 / (1.0 + 0.5e-8)).epsilon(1e-15));
  CHECK(adam.step(std::vector<double>{-1.0}, options)[0] == 0.0);
  CHECK(adam.first == std::vector<double>{0.0});
  CHECK(adam.second == std::vector<double>{1.0});
  // A third gradient of 1: m = 1/2, s = 1, corrections 7/8 and 37/64.
  const double expected = -0.5 * (0.5 / 0.875) / (std::sqrt(1.0 / (37.0 / 64.0)) + 1e-8);
  CHECK(adam.step(std::vector<double>{1.0}, options)[0] == doctest::Approx(expected).epsilon(1e-15));
  // Elements do not see each other, and a zero gradient from the start moves nothing.
  OuterAdam two(2);
  const std::vector<double> move = two.step(std::vector<double>{-3.0, 0.0}, {0.04, 0.9, 0.999});
  CHECK(move[0] == doctest::Approx(0.04).epsilon(1e-7));
  CHECK(move[1] == 0.0);
  expect_text(thrown([&] { (void)two.step(std::vector<double>{1.0}, {}); }), "[outer adam]");
}

TEST_CASE("the validation loss falls, and the best hyperparameters are the result") {
  TuneOptions options = small_tune_options();
  options.outer_steps = 20;
  const TuneResult result = tuned(first_digits(130), options);
  CHECK(result.failure.empty());
  REQUIRE(result.history.size() == 20);
  CHECK(result.hyperparameters.names() == Words{"log_rates", "momenta", "log_init_scales", "log_l2"});
  REQUIRE(result.before);
  REQUIRE(result.after);
  CHECK(result.before->validation.loss == *result.history[0].validation_loss);
  CHECK(result.before->training.loss == *result.history[0].training_loss);
  CHECK(result.after->validation.loss == lowest_validation_loss(result));
  CHECK(*result.history[static_cast<std::size_t>(result.best_step)].validation_loss ==
        lowest_validation_loss(result));
  CHECK(result.after->validation.loss < 0.8 * result.before->validation.loss);
  for (const OuterRecord& each : result.history) {
    CHECK(each.status == "exact");
    CHECK(*each.gradient_norm > 0.0);
  }
}

TEST_CASE("the result is the best outer step, also when it is not the last one") {
  TuneOptions options = small_tune_options();
  options.outer_steps = 12;
  options.outer.rate = 1.0;
  const TuneResult result = tuned(first_digits(130), options);
  CHECK(result.best_step > 0);
  CHECK(result.best_step < 11);
  CHECK(result.after->validation.loss == lowest_validation_loss(result));
}

TEST_CASE("the first outer step moves every hyperparameter against its gradient by the rate") {
  TuneOptions options = small_tune_options();
  const TemporaryFolder folder;
  CHECK(run(with(small_tune, {"--outer-steps", "1", "--output", (folder / "o").string()})).code == 0);
  const hypertape::TuneState state = hypertape::read_state(content(folder / "o" / "state"), "state");
  const TuneData data = hypertape::split_data(first_digits(130), options.training);
  const TrainingProblem training = make_tune_problem(data, options.training, options.penalties);
  std::vector<double> gradient;
  for (const std::string& group : training.hyperparameters.names())
    for (const double element : gradient_of(training, group)) gradient.push_back(element);
  const std::vector<double> start = hypertape::elements_of(training.hyperparameters);
  REQUIRE(state.next.size() == start.size());
  for (std::size_t i = 0; i < start.size(); ++i) {
    const double g = gradient[i];
    CHECK(state.next[i] - start[i] == doctest::Approx(-0.04 * g / (std::abs(g) + 1e-8)).epsilon(1e-9));
  }
}

TEST_CASE("unrolled and checkpointed learn the same bits, the others the same numbers") {
  TuneOptions options = small_tune_options();
  const auto learned = [&](const char* method) {
    options.method = method;
    return hypertape::elements_of(tuned(first_digits(130), options).hyperparameters);
  };
  const std::vector<double> tape = learned("unrolled");
  CHECK(learned("checkpointed") == tape);
  for (const char* method : {"trajectory", "reversible"}) {
    const std::vector<double> other = learned(method);
    REQUIRE(other.size() == tape.size());
    double furthest = 0.0;
    for (std::size_t i = 0; i < tape.size(); ++i) furthest = std::max(furthest, std::abs(other[i] - tape[i]));
    INFO(method, " ", furthest);
    // Gradients of single penalties are as small as Adam's 1e-8, and errors of 1e-12 in them move a penalty
    // by up to 0.04 * 1e-4 a step.
    CHECK(furthest < 1e-4);
    CHECK(furthest > 0.0);
  }
}

TEST_CASE("a group that is not learned is held at the options' values") {
  TuneOptions options = small_tune_options();
  options.training.groups = {"momenta"};
  const TuneResult result = tuned(first_digits(130), options);
  CHECK(result.hyperparameters.names() == Words{"momenta"});
  CHECK(result.before->validation.loss ==
        tuned(first_digits(130), small_tune_options()).before->validation.loss);
}

TEST_CASE("every optimizer and dtype learns, and float32 learns what float64 does") {
  for (const char* optimizer : hypertape::optimizer_names) {
    for (const char* dtype : {"float64", "float32"}) {
      const TemporaryFolder folder;
      const std::string path = (folder / "o").string();
      const Outcome outcome =
          run(with(small_tune, {"--optimizer", optimizer, "--dtype", dtype, "--output", path}));
      INFO(optimizer, " ", dtype, " ", outcome.err);
      CHECK(outcome.code == 0);
      CHECK(contains(outcome.out, std::string(" parameters in ") + dtype));
      const hypertape::TuneState state = hypertape::read_state(content(folder / "o" / "state"), "state");
      const double first = *state.history[0].validation_loss;
      CHECK(*state.history[static_cast<std::size_t>(state.best_step)].validation_loss < 0.99 * first);
      for (const OuterRecord& each : state.history) CHECK(each.status == "exact");
    }
  }
  TuneOptions options = small_tune_options();
  const TuneResult in64 = tuned(first_digits(130), options);
  options.training.dtype = hypertape::Dtype::float32;
  const TuneResult in32 = tuned(first_digits(130), options);
  CHECK(in32.hyperparameters["log_rates"].dtype() == hypertape::Dtype::float32);
  // Single rounding errors of 1e-7, over 8 steps of training and 6 outer steps.
  CHECK(in32.after->validation.loss == doctest::Approx(in64.after->validation.loss).epsilon(1e-4));
  CHECK(in32.after->validation.loss != in64.after->validation.loss);
}

TEST_CASE("results have the same bits on any number of threads") {
  TuneOptions options = small_tune_options();
  const std::vector<double> one = hypertape::elements_of(tuned(first_digits(130), options).hyperparameters);
  options.threads = hypertape::available_cpus();
  CHECK(hypertape::elements_of(tuned(first_digits(130), options).hyperparameters) == one);
}

TEST_CASE("momenta stay where every method can execute them") {
  TuneOptions options = small_tune_options();
  options.training.groups = {"momenta"};
  options.outer.rate = 30.0;
  options.outer_steps = 4;
  options.method = "reversible";
  const TuneResult result = tuned(first_digits(130), options);
  CHECK(result.failure.empty());
  CHECK(result.history.size() == 4);
  for (const double logit : result.hyperparameters["momenta"].to_vector<double>())
    CHECK(std::abs(logit) <= hypertape::largest_logit);
}

TEST_CASE("work is counted in gradients: a step is one, a Hessian product its multiply-adds") {
  // 64-6-10: F = 384, R = 60, (2F + 6R) / (2F + 3R) = 1128 / 948.
  TuneOptions options = small_tune_options();
  const double product = 1128.0 / 948.0;
  options.method = "unrolled";
  CHECK(tuned(first_digits(130), options).gradients_of_work ==
        doctest::Approx(48 * (1 + product)).epsilon(1e-14));
  for (const char* method : {"checkpointed", "trajectory", "reversible"}) {
    options.method = method;
    CHECK(tuned(first_digits(130), options).gradients_of_work ==
          doctest::Approx(48 * (2 + product)).epsilon(1e-14));
  }
}

TEST_CASE("the grid has as many runs as the budget pays for, and not one more") {
  const hypertape::TrainingOptions options;
  CHECK(hypertape::grid_points(1, options).size() == 1);
  CHECK(hypertape::grid_points(2, options).size() == 2);
  CHECK(hypertape::grid_points(191, options).size() == 180);  // 6 x 6 x 5
  CHECK(hypertape::grid_points(216, options).size() == 216);  // 6 x 6 x 6
  for (std::int64_t runs = 1; runs < 300; ++runs) {
    const auto size = static_cast<std::int64_t>(hypertape::grid_points(runs, options).size());
    CHECK(size <= runs);
    CHECK(2 * size >= runs);
  }
}

TEST_CASE("the grid spans the documented ranges evenly in logarithms") {
  hypertape::TrainingOptions options;
  options.rate = 0.5;
  options.l2 = 0.1;
  const std::vector<GridRecord> grid = hypertape::grid_points(27, options);
  REQUIRE(grid.size() == 27);
  CHECK(grid.front().rate == doctest::Approx(0.5 / 16).epsilon(1e-14));
  CHECK(grid[9].rate == doctest::Approx(0.5).epsilon(1e-14));
  CHECK(grid.back().rate == doctest::Approx(8.0).epsilon(1e-14));
  CHECK(grid.front().momentum == doctest::Approx(0.99).epsilon(1e-5));
  CHECK(grid.back().momentum == doctest::Approx(0.5).epsilon(1e-5));
  CHECK(grid.front().l2 == doctest::Approx(0.001).epsilon(1e-14));
  CHECK(grid[1].l2 == doctest::Approx(0.1).epsilon(1e-14));
  CHECK(grid.back().l2 == doctest::Approx(10.0).epsilon(1e-14));
  // Every combination once.
  for (std::size_t i = 0; i < grid.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      CHECK_FALSE(
          (grid[i].rate == grid[j].rate && grid[i].momentum == grid[j].momentum && grid[i].l2 == grid[j].l2));
  options.momentum = 0.2;
  CHECK(hypertape::grid_points(27, options).back().momentum == doctest::Approx(0.1).epsilon(1e-3));
}

TEST_CASE("the grid's choice is by validation loss, and its runs are plain training at its points") {
  TuneOptions options = small_tune_options();
  options.baseline = true;
  const Dataset data = first_digits(130);
  const TuneResult result = tuned(data, options);
  CHECK(static_cast<double>(result.grid.size()) * 8 <= result.gradients_of_work);
  REQUIRE(result.grid_best);
  REQUIRE(result.grid_evaluation);
  double lowest = HUGE_VAL;
  for (const GridRecord& each : result.grid)
    lowest = std::min(lowest, each.validation_loss.value_or(HUGE_VAL));
  CHECK(result.grid[*result.grid_best].validation_loss == lowest);
  CHECK(result.grid_evaluation->validation.loss == lowest);
  const GridRecord& point = result.grid[3];
  const auto training = make_tune_problem(hypertape::split_data(data, options.training),
                                          hypertape::options_at(point, options.training), Penalties::layer);
  const auto w = hypertape::bilevel::train(training.problem, training.hyperparameters).parameters;
  CHECK(training.validation_loss(w, training.hyperparameters).item() == *point.validation_loss);
  CHECK(std::exp(training.hyperparameters["log_rates"].to_vector<double>()[5]) ==
        doctest::Approx(point.rate).epsilon(1e-12));
  CHECK(hypertape::best_of({{1, 1, 1, std::nullopt}, {2, 1, 1, 0.5}, {3, 1, 1, 0.5}}) == 1);
  CHECK_FALSE(hypertape::best_of({{1, 1, 1, std::nullopt}}));
}

TEST_CASE("training that diverges at the start is a failure, with the history kept") {
  const TemporaryFolder folder;
  const Words words =
      with(small_tune, {"--rate", "1e12", "--steps", "60", "--output", (folder / "o").string()});
  const Outcome outcome = run(words);
  CHECK(outcome.code == 1);
  CHECK(contains(outcome.err,
                 "no hypergradient at the initial hyperparameters: rejected: training diverged at step "));
  CHECK(contains(outcome.err, "lower --rate"));
  CHECK(contains(content(folder / "o" / "history.csv"), "\n0,,,,"));
  CHECK_FALSE(std::filesystem::exists(folder / "o" / "hyperparameters.json"));
  const auto files = without_seconds(folder / "o");
  const Outcome again = run(words);
  CHECK(again.code == 1);
  CHECK(again.err == outcome.err);
  CHECK(without_seconds(folder / "o") == files);
}

TEST_CASE("a move to where training diverges is halved, and said so") {
  const TemporaryFolder folder;
  const std::string path = (folder / "o").string();
  const auto state_after = [&](const char* steps) {
    const Outcome outcome = run(with(small_tune, {"--outer-rate", "60", "--outer-steps", steps, "--groups",
                                                  "log_rates,log_init_scales", "--output", path}));
    CHECK(outcome.code == 0);
    return hypertape::read_state(content(folder / "o" / "state"), "state");
  };
  const hypertape::TuneState first = state_after("1"), second = state_after("2"), last = state_after("12");
  CHECK(second.history[1].status.starts_with("rejected: training diverged at step "));
  CHECK_FALSE(second.history[1].validation_loss);
  CHECK(second.rejections == 1);
  CHECK(second.accepted == first.accepted);
  CHECK(second.adam.first == first.adam.first);
  CHECK(second.adam.steps == 1);
  for (std::size_t i = 0; i < first.next.size(); ++i)
    CHECK(second.next[i] == first.accepted[i] + 0.5 * (first.next[i] - first.accepted[i]));
  CHECK(all_finite(last.next));
  CHECK(all_finite(last.best));
  CHECK(std::any_of(last.history.begin() + 2, last.history.end(),
                    [](const OuterRecord& each) { return each.validation_loss.has_value(); }));
  CHECK(contains(content(folder / "o" / "history.csv"), "\n1,,,,"));
}

TEST_CASE("a move to what the method cannot execute is rejected too, and the run goes on from it") {
  const TemporaryFolder folder;
  const auto tune = [&](const char* name, const char* steps, const Words& more) {
    return run(with(small_tune, with({"--method", "reversible", "--outer-steps", steps, "--output",
                                      (folder / name).string()},
                                     more)));
  };
  // Initial weights of e^60, beyond the range of fixed point.
  const Words far = {"--outer-rate", "60", "--groups", "log_init_scales"};
  CHECK(tune("o", "2", far).code == 0);
  CHECK(tune("o", "5", far).code == 0);
  const hypertape::TuneState state = hypertape::read_state(content(folder / "o" / "state"), "state");
  CHECK(state.history.size() == 5);
  CHECK(state.history[1].status.starts_with("rejected: training diverged at step 0"));
  CHECK(tune("p", "5", far).code == 0);
  CHECK(hypertape::read_state(content(folder / "p" / "state"), "state").next == state.next);
  // Momenta of 1 - 6e-6, where no move of tune's own goes.
  const Words momenta = {"--groups", "momenta"};
  CHECK(tune("m", "1", momenta).code == 0);
  hypertape::TuneState out = hypertape::read_state(content(folder / "m" / "state"), "state");
  std::fill(out.next.begin(), out.next.end(), 12.0);
  set_content(folder / "m" / "state", hypertape::state_bytes(out));
  CHECK(tune("m", "2", momenta).code == 0);
  out = hypertape::read_state(content(folder / "m" / "state"), "state");
  CHECK(contains(out.history[1].status, "rejected: [reversible] momentum 0.99999"));
  CHECK(out.rejections == 1);
}

TEST_CASE("too many rejections in a row end the run, and what was learned before is kept") {
  const TemporaryFolder folder;
  const std::string path = (folder / "o").string();
  CHECK(run(with(small_tune, {"--output", path})).code == 0);
  hypertape::TuneState state = hypertape::read_state(content(folder / "o" / "state"), "state");
  state.rejections = hypertape::most_rejections - 1;
  std::fill(state.next.begin(), state.next.end(), 600.0);
  set_content(folder / "o" / "state", hypertape::state_bytes(state));
  const Outcome outcome = run(with(small_tune, {"--outer-steps", "9", "--output", path}));
  CHECK(outcome.code == 1);
  CHECK(contains(outcome.err, "10 outer steps in a row were rejected"));
  CHECK(contains(outcome.out, "; 1 rejected\n"));
  CHECK(contains(outcome.out, "learned, outer step"));
  const hypertape::TuneState after = hypertape::read_state(content(folder / "o" / "state"), "state");
  CHECK(after.history.size() == 7);
  CHECK(after.best == state.best);
}

TEST_CASE("the table has all losses and accuracies, aligned") {
  const Outcome outcome = run(with(small_tune, {"--baseline"}));
  CHECK(outcome.code == 0);
  CHECK(outcome.err.empty());
  CHECK(contains(outcome.out,
                 "learned   486 hyperparameters: log_rates 16, momenta 8, log_init_scales 2, log_l2 460\n"));
  CHECK(contains(outcome.out, "data      digits, 80 training, 20 validation and 26 test samples"));
  std::istringstream lines(outcome.out.substr(outcome.out.find("\n\n") + 2));
  std::string header, line;
  std::getline(lines, header);
  CHECK(contains(header, "validation loss  accuracy"));
  for (const char* row : {"before", "learned, outer step ", "grid, best of "}) {
    std::getline(lines, line);
    CHECK(line.starts_with(row));
    CHECK(line.size() == header.size());
    CHECK(line.ends_with(" %"));
  }
}
