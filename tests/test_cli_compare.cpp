// What `hypertape compare` computes: every method against the tape, on nets of a few weights.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/hypergradient.h>
#include "compare_runs.h"
#include "compared_problem.h"
#include "directional_rows.h"
#include "measures.h"
#include "progress.h"
#include "ridders.h"
#include "training_problem.h"

namespace {

using hypertape::CompareOptions;
using hypertape::Comparison;
using hypertape::ComparisonRow;
using hypertape::Dataset;
using Words = std::vector<std::string>;

}  // namespace

TEST_CASE("all methods agree with the tape on every group") {
  const Comparison comparison = compared(small_compare_options());
  CHECK(comparison.failure.empty());
  CHECK(comparison.reference == "unrolled");
  CHECK(comparison.rows.size() == 4 * (5 + 3));  // three budgets of checkpoints
  for (const ComparisonRow& row : comparison.rows) {
    INFO(row.method, " ", row.setting, " ", row.group, " ", row.status);
    REQUIRE(row.relative_error);
    if (row.method == "unrolled" || row.method == "checkpointed") {
      CHECK(*row.relative_error == 0.0);
      CHECK(*row.cosine == doctest::Approx(1.0).epsilon(1e-15));
    } else if (row.method == "ridders") {
      CHECK(*row.relative_error <= 1e-6);
      CHECK(row.status.starts_with("approximate (to "));
      CHECK_FALSE(row.cosine);
    } else if (row.method == "reversible") {
      CHECK(*row.relative_error <= 1e-7);
      CHECK(*row.relative_error > 0.0);  // it is another trajectory
    } else {
      CHECK(*row.relative_error <= 1e-10);
      CHECK(row.cosine.has_value() == (row.method == "trajectory"));
    }
    if (row.method != "ridders") CHECK(row.status == "exact");
    CHECK(*row.seconds > 0.0);
    CHECK(*row.training_runs == *row.seconds / *comparison.training_run_seconds);
    CHECK(*row.peak_bytes > 0);
  }
}

TEST_CASE("gradients and Hessian-vector products are counted per method") {
  const Comparison comparison = compared(small_compare_options());
  const auto counts = [&](const std::string& method) {
    const ComparisonRow row = rows_of(comparison, method).front();
    return std::pair(*row.gradients, *row.hessian_vector_products);
  };
  CHECK(counts("unrolled") == std::pair<std::int64_t, std::int64_t>{12, 12});
  CHECK(counts("checkpointed") == std::pair<std::int64_t, std::int64_t>{24, 12});
  CHECK(counts("trajectory") == std::pair<std::int64_t, std::int64_t>{24, 12});
  CHECK(counts("reversible") == std::pair<std::int64_t, std::int64_t>{24, 12});
  CHECK(counts("forward") ==
        std::pair<std::int64_t, std::int64_t>{12 * 8, 12 * 8});  // 4 groups, 2 directions
}

TEST_CASE("by default a net is compared by a few implicit methods with one setting each") {
  CompareOptions options = small_compare_options();
  options.methods.clear();
  options.training.groups = {"log_l2"};
  std::vector<std::string> found;
  for (const ComparisonRow& row : compared(options).rows) {
    if (found.empty() || found.back() != row.method)
      found.push_back(row.method);
    else
      CHECK(row.method == "checkpointed");
  }
  CHECK(found == std::vector<std::string>{"ridders", "unrolled", "checkpointed", "trajectory", "reversible",
                                          "forward", "implicit-cg", "implicit-neumann", "truncated",
                                          "t1-t2"});
}

TEST_CASE("rows are in the order of methods and groups") {
  CompareOptions options = small_compare_options();
  options.methods = {"unrolled", "trajectory"};
  options.training.groups = {"momenta", "log_l2"};
  const Comparison comparison = compared(options);
  Words order;
  for (const ComparisonRow& row : comparison.rows) order.push_back(row.method + ' ' + row.group);
  CHECK(order == Words{"unrolled momenta", "unrolled log_l2", "trajectory momenta", "trajectory log_l2"});
}

TEST_CASE("the tape is the reference also when it is not asked for") {
  CompareOptions options = small_compare_options();
  options.methods = {"reversible"};
  const Comparison comparison = compared(options);
  CHECK(comparison.rows.size() == 4);
  CHECK(*comparison.rows.front().relative_error <= 1e-7);
}

TEST_CASE("a group held constant trains the same net as one that is differentiated") {
  CompareOptions options = small_compare_options();
  options.methods = {"unrolled"};
  const Comparison all = compared(options);
  for (const char* group : hypertape::group_names) {
    options.training.groups = {group};
    const Comparison one = compared(options);
    CHECK(one.rows.size() == 1);
    CHECK(one.groups.size() == 1);
    CHECK(*one.last_loss == *all.last_loss);
    CHECK(*one.validation_loss == *all.validation_loss);
  }
}

TEST_CASE("one step and one sample per batch are enough") {
  CompareOptions options = small_compare_options();
  options.training.steps = 1;
  options.training.batch = 1;
  const Comparison comparison = compared(options);
  CHECK(comparison.failure.empty());
  for (const ComparisonRow& row : rows_of(comparison, "checkpointed")) {
    CHECK(row.setting == "1 checkpoint");
    CHECK(row.status == "exact");
    if (row.relative_error) CHECK(*row.relative_error == 0.0);
  }
  CHECK(rows_of(comparison, "checkpointed").size() == 4);
}

TEST_CASE("rectifiers too, though finite differences see their kinks") {
  CompareOptions options = small_compare_options();
  options.training.activation = hypertape::nn::Activation::relu;
  const Comparison comparison = compared(options);
  for (const ComparisonRow& row : comparison.rows) {
    INFO(row.method, " ", row.group);
    // A kink inside a difference step costs about the step's share of the whole move, whatever the order.
    CHECK(*row.relative_error <= (row.method == "ridders" ? 1e-3 : 1e-6));
  }
}

TEST_CASE("a wild rate gives the status chaotic, an absurd one names the step that diverged") {
  CompareOptions options = small_compare_options();
  options.methods = {"ridders", "unrolled", "reversible", "forward"};
  options.training.steps = 60;
  options.training.rate = 3.0;
  const Comparison wild = compared(options);
  CHECK(wild.failure.empty());
  for (const char* method : {"unrolled", "forward"})
    for (const ComparisonRow& row : rows_of(wild, method)) {
      CHECK(row.status.starts_with("chaotic (adjoint grew "));
      CHECK(row.relative_error);
    }

  options.training.rate = 1e12;
  const Comparison absurd = compared(options);
  CHECK(absurd.failure.starts_with("training diverged: "));
  CHECK_FALSE(absurd.training_run_seconds);
  CHECK_FALSE(absurd.validation_loss);
  CHECK(absurd.rows.size() == 16);
  for (const ComparisonRow& row : absurd.rows) {
    CHECK(row.status.starts_with("diverged at step "));
    CHECK_FALSE(row.relative_error);
    CHECK_FALSE(row.cosine);
    CHECK_FALSE(row.seconds);
    CHECK_FALSE(row.training_runs);
    CHECK_FALSE(row.gradients);
    CHECK_FALSE(row.peak_bytes);
  }
}

TEST_CASE("a tape that does not fit into memory is skipped, and checkpointing is the reference") {
  CompareOptions options = small_compare_options();
  options.methods = {"unrolled", "checkpointed", "reversible"};
  options.training.groups = {"momenta"};
  options.training.steps = 400;
  options.usable_bytes = 3e6;
  const Comparison comparison = compared(options);
  CHECK(comparison.failure.empty());
  CHECK(comparison.reference == "checkpointed, 20 checkpoints");
  const ComparisonRow skipped = rows_of(comparison, "unrolled").front();
  CHECK(skipped.status.starts_with("skipped (needs about "));
  CHECK_FALSE(skipped.relative_error);
  CHECK_FALSE(skipped.peak_bytes);
  for (const ComparisonRow& row : rows_of(comparison, "checkpointed")) {
    CHECK(*row.relative_error == 0.0);
    CHECK(*row.peak_bytes < 3e6);
  }
  CHECK(*rows_of(comparison, "reversible").front().relative_error < 1e-6);

  // The estimate is close to what the tape takes.
  options.usable_bytes = 1e12;
  const double needed = static_cast<double>(*rows_of(compared(options), "unrolled").front().peak_bytes);
  options.usable_bytes = 1.1 * needed;
  CHECK(rows_of(compared(options), "unrolled").front().relative_error);
  options.usable_bytes = 0.9 * needed;
  CHECK_FALSE(rows_of(compared(options), "unrolled").front().relative_error);
}

TEST_CASE("a wrong reference shows against forward mode and against finite differences") {
  const CompareOptions options = small_compare_options();
  const auto training = hypertape::make_training_problem(
      hypertape::prepare_data(first_digits(130), options.training), options.training);
  hypertape::bilevel::Hypergradient reference = hypertape::bilevel::hypergradient(
      training.problem, training.validation_loss, training.hyperparameters, hypertape::bilevel::Unrolled{});
  hypertape::TensorList gradients = reference.gradients.tensors();
  gradients[0] = 1.0001 * gradients[0];
  gradients[1] = hypertape::Tensor();  // as if it had no path
  gradients[2] = -gradients[2];
  reference.gradients = reference.gradients.with(gradients);
  hypertape::Progress progress(nullptr);
  reference.availability[1] = hypertape::bilevel::Availability::unused;
  const hypertape::ComparedProblem problem = hypertape::compared(training, options.training);
  const hypertape::DirectionalRows directional(problem, problem, reference, options.training.seed, progress);
  for (const std::vector<ComparisonRow>& rows : {directional.ridders().rows, directional.forward().rows}) {
    REQUIRE(rows.size() == 4);
    CHECK(*rows[0].relative_error == doctest::Approx(1e-4).epsilon(1e-3));
    CHECK(rows[1].status == "unused");
    CHECK_FALSE(rows[1].relative_error);
    CHECK(*rows[2].relative_error == doctest::Approx(2.0).epsilon(1e-6));
    CHECK(*rows[3].relative_error <= 1e-6);
  }
}

TEST_CASE("a batch larger than the training set is refused") {
  CompareOptions options = small_compare_options();
  options.training.batch = 105;  // a fifth of 130 is for validation
  CHECK_THROWS_AS(compared(options), hypertape::UsageError);
  options.training.batch = 104;
  options.methods = {"unrolled"};
  CHECK(compared(options).training_samples == 104);
}

TEST_CASE("the momentum is one that fixed-point training executes as it is") {
  CHECK(hypertape::representable_momentum(0.9) == 58982.0 / 65536.0);
  CHECK(hypertape::representable_momentum(0.5) == 0.5);
}

TEST_CASE("the split uses every validation sample once and every batch in turn") {
  Dataset data;
  data.samples = 53;
  data.features = 1;
  data.classes = 2;
  for (int i = 0; i < 53; ++i) {
    data.inputs.push_back(i);
    data.labels.push_back(i % 2);
  }
  hypertape::TrainingOptions options;
  options.batch = 10;
  options.scale = hypertape::Scale::none;
  const auto split = hypertape::prepare_data(data, options);
  CHECK(split->training_samples == 43);
  REQUIRE(split->batches.size() == 4);
  std::vector<double> seen = split->validation.inputs.to_vector<double>();
  CHECK(seen.size() == 10);
  CHECK(split->batches[0].inputs.shares_storage_with(split->batches[3].inputs));
  for (const auto& batch : split->batches) {
    const std::vector<double> inputs = batch.inputs.to_vector<double>();
    const std::vector<std::int64_t> labels = batch.labels.to_vector<std::int64_t>();
    for (std::size_t i = 0; i < inputs.size(); ++i)
      CHECK(labels[i] == static_cast<std::int64_t>(inputs[i]) % 2);
    seen.insert(seen.end(), inputs.begin(), inputs.end());
  }
  std::sort(seen.begin(), seen.end());
  CHECK(seen.size() == 50);
  CHECK(std::adjacent_find(seen.begin(), seen.end()) == seen.end());  // no sample twice
}

TEST_CASE("the training loss is the cross entropy plus the weight decay") {
  // One weight per class and no hidden layer's worth of freedom: cross entropy of 1-1-2 computed by hand.
  Dataset data;
  data.samples = 5;
  data.features = 1;
  data.classes = 2;
  data.inputs = {0.5, 0.5, 0.5, 0.5, 0.5};
  data.labels = {1, 1, 1, 1, 1};
  hypertape::TrainingOptions options;
  options.layers = {1};
  options.batch = 1;
  options.steps = 1;
  options.l2 = 0.3;
  options.scale = hypertape::Scale::none;
  const auto training = hypertape::make_training_problem(hypertape::prepare_data(data, options), options);
  const hypertape::NamedTensors h = training.problem.prepare(training.hyperparameters);
  using hypertape::Tensor;
  const hypertape::NamedTensors w = {{"weight_1", Tensor::from({0.4}, {1, 1})},
                                     {"bias_1", Tensor::from({0.1}, {1})},
                                     {"weight_2", Tensor::from({0.7, -0.2}, {1, 2})},
                                     {"bias_2", Tensor::from({0.0, 0.3}, {2})}};
  const double hidden = std::tanh(0.5 * 0.4 + 0.1);
  const double cross_entropy = std::log1p(std::exp(0.7 * hidden - (-0.2 * hidden + 0.3)));
  const double decay = 0.5 * 0.3 * (0.16 + 0.01 + 0.49 + 0.04 + 0.09);
  CHECK(training.problem.loss(w, h, {}).item() == doctest::Approx(cross_entropy + decay).epsilon(1e-14));
  CHECK(training.validation_loss(w, training.hyperparameters).item() ==
        doctest::Approx(cross_entropy).epsilon(1e-14));
}

TEST_CASE("Ridders extrapolation finds derivatives of smooth functions") {
  const auto sine = hypertape::ridders([](double x) { return std::sin(1.0 + x); }, 0.5, 10);
  CHECK(std::abs(sine.derivative - std::cos(1.0)) < 1e-9);
  CHECK(sine.error < 1e-8);
  // Much too large a first step: 28 periods.
  const auto fast = hypertape::ridders([](double x) { return std::sin(437 * x); }, 0.4, 16);
  CHECK(std::abs(fast.derivative - 437.0) < 1e-4);
  const auto constant = hypertape::ridders([](double) { return 3.0; }, 0.5, 10);
  CHECK(constant.derivative == 0.0);
}

TEST_CASE("relative error and cosine") {
  using hypertape::cosine;
  using hypertape::relative_error;
  CHECK(relative_error({3.0, 4.0}, {3.0, 4.0}) == 0.0);
  CHECK(relative_error({0.0, 0.0}, {0.0, 0.0}) == 0.0);
  CHECK(relative_error({3.0, 9.0}, {3.0, 4.0}) == doctest::Approx(1.0).epsilon(1e-15));
  CHECK(relative_error({1e-200}, {2e-200}) == doctest::Approx(0.5));  // squares would vanish
  CHECK(relative_error({1e200}, {2e200}) == doctest::Approx(0.5));    // and overflow
  CHECK(std::isinf(relative_error({1.0}, {0.0})));
  CHECK(cosine({1.0, 0.0}, {0.0, 1.0}) == 0.0);
  CHECK(cosine({-2.0}, {3.0}) == -1.0);
  CHECK(std::isnan(cosine({0.0}, {3.0})));
  CHECK(hypertape::median({5.0, 1.0, 2.0}) == 2.0);
  CHECK(hypertape::median({4.0, 1.0}) == 2.5);
}
