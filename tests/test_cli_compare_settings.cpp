// `hypertape compare` in float32, with every optimizer, with methods that are not exact, and its new options.
#include <doctest/doctest.h>

#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include <hypertape/autodiff/ops.h>
#include "compare_runs.h"
#include "convert.h"
#include "ladder.h"
#include "program.h"
#include "progress.h"
#include "thrown.h"
#include "training_problem.h"

namespace {

using hypertape::CompareOptions;
using hypertape::Comparison;
using hypertape::ComparisonRow;
using hypertape::Dataset;
using hypertape::Dtype;
using hypertape::NamedTensors;
using hypertape::Optimizer;
using hypertape::Tensor;
using Words = std::vector<std::string>;

CompareOptions small_options(Optimizer optimizer, Dtype dtype) {
  CompareOptions options = small_compare_options();
  options.training.optimizer = optimizer;
  options.training.dtype = dtype;
  if (optimizer == Optimizer::adam) options.training.rate = 0.01;
  return options;
}

const ComparisonRow& row_of(const std::vector<ComparisonRow>& rows, const std::string& group) {
  for (const ComparisonRow& row : rows)
    if (row.group == group) return row;
  throw std::runtime_error("no row of " + group);
}

struct Outcome {
  int code;
  std::string out, err;
};

Outcome run(const Words& words) {
  std::vector<const char*> argv = {"hypertape"};
  for (const std::string& word : words) argv.push_back(word.c_str());
  std::ostringstream out, err;
  const int code = hypertape::run_program(static_cast<int>(argv.size()), argv.data(), out, err);
  return {code, out.str(), err.str()};
}

CompareOptions parse(const Words& words) {
  std::vector<const char*> argv = {"hypertape", "compare"};
  for (const std::string& word : words) argv.push_back(word.c_str());
  return hypertape::parse_arguments(static_cast<int>(argv.size()), argv.data()).compare;
}

}  // namespace

TEST_CASE("compare: in float32 every method follows the float64 reference, with every optimizer") {
  // T = 12 steps, each with sums of up to 64 terms and as many roundings of 6e-8; their effects add up to
  // about T sqrt(64) 6e-8 = 6e-6 while the adjoint does not grow. Adam's move g / (|g| + 1e-8) is nearly the
  // sign of g, and its derivative a difference in which |g| / 1e-8 times as much cancels: 1e3 for weights
  // from unused pixels, which the penalty of 1e-4 alone moves. Only log_l2 reads those, and
  // along a direction its derivative cancels once more.
  for (const Optimizer optimizer : {Optimizer::sgd, Optimizer::nesterov, Optimizer::adam}) {
    const bool is_adam = optimizer == Optimizer::adam;
    const auto bound_of = [&](const std::string& group) {
      return is_adam && group == "log_l2" ? 1e-3 : 1e-5;
    };
    const Comparison comparison = compared(small_options(optimizer, Dtype::float32));
    CHECK(comparison.failure.empty());
    CHECK(comparison.dtype == "float32");
    CHECK(comparison.reference == "unrolled in float64");
    CHECK(comparison.rows.size() == 4 * (5 + 3));
    const std::vector<ComparisonRow> tape = rows_of(comparison, "unrolled");
    for (const ComparisonRow& row : comparison.rows) {
      INFO(comparison.optimizer, " ", row.method, " ", row.setting, " ", row.group, " ", row.status);
      if (row.method == "reversible" && optimizer != Optimizer::sgd) {
        CHECK_FALSE(row.relative_error);
        continue;
      }
      REQUIRE(row.relative_error);
      if (row.method == "ridders") {
        // It judges the reference, in float64.
        CHECK(*row.relative_error <= (is_adam ? 1e-4 : 1e-6));
        continue;
      }
      CHECK(*row.relative_error > 1e-9);
      CHECK(*row.relative_error <= bound_of(row.group));
      CHECK(row.status == "exact");
      if (row.method == "checkpointed") CHECK(*row.relative_error == *row_of(tape, row.group).relative_error);
    }
    const Comparison twice = compared(small_options(optimizer, Dtype::float64));
    CHECK(*comparison.last_loss == doctest::Approx(*twice.last_loss).epsilon(1e-5));
    CHECK(*comparison.last_loss != *twice.last_loss);
    CHECK(*comparison.validation_loss == doctest::Approx(*twice.validation_loss).epsilon(1e-5));
    CHECK(*row_of(tape, "log_l2").peak_bytes <
          0.8 * static_cast<double>(*rows_of(twice, "unrolled")[0].peak_bytes));
  }
}

TEST_CASE("compare: Nesterov and Adam agree in every method, and have no exact inverse") {
  for (const Optimizer optimizer : {Optimizer::nesterov, Optimizer::adam}) {
    const Comparison comparison = compared(small_options(optimizer, Dtype::float64));
    CHECK(comparison.failure.empty());
    CHECK(comparison.reference == "unrolled");
    const std::string name = optimizer == Optimizer::adam ? "adam" : "nesterov";
    CHECK(comparison.optimizer == name);
    for (const ComparisonRow& row : comparison.rows) {
      INFO(name, " ", row.method, " ", row.setting, " ", row.group, " ", row.status);
      if (row.method == "reversible") {
        CHECK(row.status == "not defined (" + name + " has no exact inverse)");
        CHECK_FALSE(row.relative_error);
        CHECK_FALSE(row.seconds);
        CHECK_FALSE(row.gradients);
        continue;
      }
      REQUIRE(row.relative_error);
      if (row.method == "ridders")
        CHECK(*row.relative_error <= (optimizer == Optimizer::adam ? 1e-4 : 1e-6));
      else
        CHECK(*row.relative_error <= (row.method == "checkpointed" ? 0.0 : 1e-10));
    }
  }
}

TEST_CASE("compare: the optimizers train differently") {
  CompareOptions options = small_options(Optimizer::sgd, Dtype::float64);
  options.methods = {"unrolled"};
  std::vector<double> losses;
  for (const Optimizer optimizer : {Optimizer::sgd, Optimizer::nesterov, Optimizer::adam}) {
    options.training.optimizer = optimizer;
    losses.push_back(*compared(options).last_loss);
  }
  CHECK(losses[0] != losses[1]);
  CHECK(losses[0] != losses[2]);
  CHECK(losses[1] != losses[2]);
}

TEST_CASE("compare: a float32 problem held in float64 has the same numbers") {
  CompareOptions options = small_options(Optimizer::sgd, Dtype::float32);
  const Dataset data = first_digits(130);
  const auto single = hypertape::prepare_data(data, options.training),
             held = hypertape::prepare_data(data, options.training, Dtype::float64);
  using hypertape::doubles_of;
  CHECK(single->batches[1].inputs.dtype() == Dtype::float32);
  CHECK(held->batches[1].inputs.dtype() == Dtype::float64);
  CHECK(doubles_of(single->batches[1].inputs) == doubles_of(held->batches[1].inputs));
  CHECK(doubles_of(single->validation.inputs) == doubles_of(held->validation.inputs));
  const auto a = hypertape::make_training_problem(single, options.training),
             b = hypertape::make_training_problem(held, options.training, Dtype::float64);
  for (const std::string& group : a.hyperparameters.names()) {
    CHECK(a.hyperparameters[group].dtype() == Dtype::float32);
    CHECK(b.hyperparameters[group].dtype() == Dtype::float64);
    CHECK(doubles_of(a.hyperparameters[group]) == doubles_of(b.hyperparameters[group]));
  }
  // 0.05 is no float32 number: the reference starts from the rounded one.
  options.training.dtype = Dtype::float64;
  const auto exact =
      hypertape::make_training_problem(hypertape::prepare_data(data, options.training), options.training);
  CHECK(doubles_of(exact.hyperparameters["log_rates"]) != doubles_of(b.hyperparameters["log_rates"]));
}

TEST_CASE("compare: a float64 reference that does not fit is checkpointed, where the float32 tape does") {
  CompareOptions options = small_options(Optimizer::sgd, Dtype::float32);
  options.methods = {"unrolled"};
  options.training.groups = {"momenta"};
  options.training.steps = 400;
  options.usable_bytes = 1e12;
  const auto needed = static_cast<double>(*rows_of(compared(options), "unrolled")[0].peak_bytes);
  options.usable_bytes = 1.2 * needed;
  const Comparison comparison = compared(options);
  CHECK(comparison.reference == "checkpointed, 20 checkpoints in float64");
  CHECK(*rows_of(comparison, "unrolled")[0].relative_error < 1e-3);
}

TEST_CASE("compare: the full loss is the mean of the batches' losses") {
  const CompareOptions options = small_options(Optimizer::sgd, Dtype::float64);
  const auto data = hypertape::prepare_data(first_digits(130), options.training);
  const auto training = hypertape::make_training_problem(data, options.training);
  const NamedTensors h = training.problem.prepare(training.hyperparameters), w = training.problem.init(h);
  REQUIRE(data->batches.size() == 5);
  double mean = 0.0;
  for (std::int64_t t = 0; t < 5; ++t) mean += training.problem.loss(w, h, {t, {}}).item() / 5.0;
  CHECK(training.problem.full_loss(w, h).item() == doctest::Approx(mean).epsilon(1e-14));
}

TEST_CASE("compare: methods that are not exact say so, group by group") {
  CompareOptions options = small_options(Optimizer::sgd, Dtype::float64);
  options.methods = {"unrolled",         "implicit-cg", "implicit-dense", "implicit-normal-cg",
                     "implicit-neumann", "truncated",   "t1-t2",          "darts"};
  const Comparison comparison = compared(options);
  CHECK(comparison.failure.empty());
  CHECK(rows_of(comparison, "implicit-neumann").size() == 8 * 4);
  CHECK(rows_of(comparison, "truncated").size() == 3 * 4);  // 2, 6 and all 12 steps
  for (const ComparisonRow& row : comparison.rows) {
    INFO(row.method, " ", row.setting, " ", row.group, " ", row.status);
    const bool is_implicit = row.method.starts_with("implicit");
    if (is_implicit || row.method == "t1-t2" || row.method == "darts") {
      // The inner loss has penalties alone.
      if (row.group != "log_l2") {
        CHECK(row.status == "not defined");
        CHECK_FALSE(row.relative_error);
        continue;
      }
      // Twelve steps from random weights are far from a minimum.
      CHECK(row.status.find(is_implicit ? "(the inner problem is not at its minimum" : "approximate") !=
            std::string::npos);
      CHECK(*row.relative_error > 0.1);
    } else if (row.method == "truncated" && row.setting == "12 steps") {
      CHECK(*row.relative_error <= 1e-12);
    } else if (row.method == "truncated") {
      if (row.group == "log_init_scales") {
        CHECK(row.status == "zero by construction");
      } else {
        CHECK(row.status.starts_with("approximate"));
        CHECK(*row.relative_error > 0.1);
      }
      if (row.group == "momenta") CHECK(contains(row.status, "zero by construction before the last steps"));
    }
  }
  // Nothing that an implicit method differentiates.
  options.training.groups = {"log_rates"};
  for (const ComparisonRow& row : compared(options).rows)
    if (row.method.starts_with("implicit")) CHECK(row.status == "not defined");
}

TEST_CASE("compare: new options reach their settings, and Adam has a rate of its own") {
  const CompareOptions options = parse({"--optimizer", "nesterov", "--dtype", "float32"});
  CHECK(options.problem == hypertape::ProblemKind::net);
  CHECK(options.training.optimizer == Optimizer::nesterov);
  CHECK(options.training.dtype == Dtype::float32);
  CHECK(options.training.rate == 0.05);
  CHECK(parse({"--optimizer", "adam"}).training.rate == 0.002);
  CHECK(parse({"--optimizer", "adam", "--rate", "0.5"}).training.rate == 0.5);
  const CompareOptions closed = parse({"--problem", "logistic"});
  CHECK(closed.problem == hypertape::ProblemKind::logistic);
  CHECK(closed.training.steps == 0);
  CHECK(parse({"--problem", "ridge", "--steps", "7"}).training.steps == 7);
}

TEST_CASE("compare: a combination without sense is bad usage that names the option") {
  const std::vector<Words> only_nets = {
      {"--data", "x"},        {"--samples", "9"},      {"--layers", "4"},      {"--activation", "relu"},
      {"--batch", "5"},       {"--rate", "0.1"},       {"--momentum", "0.5"},  {"--l2", "0.1"},
      {"--groups", "log_l2"}, {"--optimizer", "adam"}, {"--dtype", "float32"}, {"--scale", "none"}};
  for (const Words& words : only_nets) {
    const Outcome outcome = run({"compare", "--problem", "ridge", words[0], words[1]});
    CHECK(outcome.code == 2);
    CHECK(outcome.out.empty());
    CHECK(contains(outcome.err, words[0] + ": is for training a net, not for --problem ridge"));
  }
  for (const Words& words :
       std::vector<Words>{{"--problem", "lasso"}, {"--optimizer", "sdg"}, {"--dtype", "half"}}) {
    const Outcome outcome = run({"compare", words[0], words[1]});
    CHECK(outcome.code == 2);
    CHECK(contains(outcome.err, words[0] + ": must be"));
  }
}

TEST_CASE("compare: the reports name problem, optimizer and dtype") {
  const Words tiny = {"compare", "--layers",    "4",    "--steps",   "2",        "--batch",
                      "10",      "--samples",   "60",   "--methods", "unrolled", "--groups",
                      "momenta", "--optimizer", "adam", "--dtype",   "float32"};
  const auto with = [&](const char* format) {
    Words words = tiny;
    words.insert(words.end(), {"--format", format});
    const Outcome outcome = run(words);
    CHECK(outcome.code == 0);
    CHECK(outcome.err.empty());
    return outcome.out;
  };
  CHECK(contains(with("json"), "\"optimizer\": \"adam\""));
  CHECK(contains(with("json"), "\"dtype\": \"float32\""));
  CHECK(with("csv").ends_with(",net,adam,float32,max\n"));
  CHECK(contains(with("table"), "2 steps of Adam, batch 10"));
  const Outcome closed =
      run({"compare", "--problem", "quadratic", "--methods", "unrolled", "--format", "csv"});
  CHECK(closed.code == 0);
  CHECK(closed.out.ends_with(",exact,quadratic,sgd,float64,\n"));
}
