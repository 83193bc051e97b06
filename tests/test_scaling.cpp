// What is done to the data's columns before training.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <hypertape/core/error.h>
#include "data.h"
#include "program_run.h"
#include "scaling.h"
#include "temporary_folder.h"
#include "training_problem.h"
#include "tune_problem.h"

namespace {

using hypertape::Dataset;
using hypertape::Scale;
using hypertape::Scaling;
using Values = std::vector<double>;
using Samples = std::vector<std::int64_t>;

Dataset dataset(std::int64_t features, Values inputs) {
  Dataset data;
  data.features = features;
  data.samples = std::ssize(inputs) / features;
  data.classes = 2;
  data.name = "t.csv";
  data.inputs = std::move(inputs);
  for (std::int64_t i = 0; i < data.samples; ++i) data.labels.push_back(i % 2);
  return data;
}

// A column after scaling.
Values column(const Dataset& data, const Scaling& scaling, std::size_t which) {
  Values values;
  for (std::int64_t i = 0; i < data.samples; ++i)
    values.push_back(scaling(data.inputs[static_cast<std::size_t>(i * data.features) + which], which));
  return values;
}

// Samples on a line with columns of scale 1 and `factor`.
Dataset two_scales(double factor) {
  Dataset data;
  data.features = 2;
  data.classes = 2;
  data.samples = 40;
  data.name = "t.csv";
  for (int i = 0; i < 40; ++i) {
    data.inputs.push_back(std::sin(static_cast<double>(i)));
    data.inputs.push_back(factor * std::cos(3.0 * static_cast<double>(i)));
    data.labels.push_back(data.inputs[static_cast<std::size_t>(2 * i)] > 0.0 ? 1 : 0);
  }
  return data;
}

}  // namespace

TEST_CASE("standard: mean 0 and standard deviation 1 over the training samples alone") {
  // Training samples 0, 2, 3; by hand: means 3 and 20, variances 14/3 and 200/3.
  const Dataset data = dataset(2, {1, 10, 100, 1000, 2, 20, 6, 30});
  const Samples training = {0, 2, 3};
  const Scaling scaling(Scale::standard, data, training);
  const double a = std::sqrt(14.0 / 3.0), b = std::sqrt(200.0 / 3.0);
  const Values first = column(data, scaling, 0), second = column(data, scaling, 1);
  const Values expected_first{-2 / a, 97 / a, -1 / a, 3 / a}, expected_second{-10 / b, 980 / b, 0, 10 / b};
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(first[i] == doctest::Approx(expected_first[i]).epsilon(1e-14));
    CHECK(second[i] == doctest::Approx(expected_second[i]).epsilon(1e-14));
  }
  CHECK(scaling.constant_columns() == 0);
  CHECK(scaling.text() ==
        "standard: each column less its mean, over its standard deviation, in the training samples");
}

TEST_CASE("standard: large values with little variation keep their digits") {
  // 1e9 + k/8 for k = 0..9: by hand, the mean is 4.5/8 above and the variance (100 - 1)/12/64.
  Values inputs;
  for (int k = 0; k < 10; ++k) inputs.push_back(1e9 + k / 8.0);
  const Dataset data = dataset(1, inputs);
  Samples all(10);
  std::iota(all.begin(), all.end(), 0);
  const Values values = column(data, Scaling(Scale::standard, data, all), 0);
  for (int k = 0; k < 10; ++k)
    CHECK(values[static_cast<std::size_t>(k)] ==
          doctest::Approx((k - 4.5) / 8.0 / std::sqrt(99.0 / 12.0 / 64.0)).epsilon(1e-12));
}

TEST_CASE("columns that are constant in training are 0 everywhere, also where rounding blurs their mean") {
  // Three times 0.1 has no mean of 0.1 in floating point.
  const Dataset data = dataset(2, {0.1, 1, 0.1, 2, 0.1, 3, 7.0, 4});
  const Samples training = {0, 1, 2};
  for (const Scale scale : {Scale::standard, Scale::range}) {
    const Scaling scaling(scale, data, training);
    CHECK(column(data, scaling, 0) == Values{0, 0, 0, 0});
    CHECK(scaling.constant_columns() == 1);
    CHECK(contains(scaling.text(), "; 1 constant column is 0"));
  }
}

TEST_CASE("standard and range do not overflow or underflow") {
  const double huge = std::numeric_limits<double>::max(), tiny = std::numeric_limits<double>::denorm_min();
  const Dataset data = dataset(2, {huge, 0, -huge, tiny});
  const Samples both = {0, 1};
  const Scaling standard(Scale::standard, data, both), range(Scale::range, data, both);
  CHECK(column(data, standard, 0) == Values{1, -1});
  CHECK(column(data, standard, 1) == Values{-1, 1});
  CHECK(column(data, range, 0) == Values{1, 0});
  CHECK(column(data, range, 1) == Values{0, 1});
}

TEST_CASE("range, max and none") {
  const Dataset data = dataset(2, {2, -8, 4, 0, 3, 16});
  const Samples training = {0, 1};
  const Scaling range(Scale::range, data, training), max(Scale::max, data, training),
      none(Scale::none, data, training);
  CHECK(column(data, range, 0) == Values{0, 1, 0.5});
  CHECK(column(data, range, 1) == Values{0, 1, 3});
  CHECK(column(data, max, 0) == Values{0.25, 0.5, 0.375});
  CHECK(column(data, max, 1) == Values{-1, 0, 2});
  CHECK(max.text() == "max: all values over the largest of the training samples, 8");
  CHECK(column(data, none, 1) == Values{-8, 0, 16});
  const Dataset zeros = dataset(1, {0, 0});
  CHECK(column(zeros, Scaling(Scale::max, zeros, Samples{0, 1}), 0) == Values{0, 0});
}

TEST_CASE("without a choice images are divided by the largest value, other columns standardised") {
  Dataset data = dataset(1, {1, 2});
  CHECK(Scaling(Scale::automatic, data, Samples{0, 1}).name() == std::string("standard"));
  data.images = true;
  CHECK(Scaling(Scale::automatic, data, Samples{0, 1}).name() == std::string("max"));
  CHECK(hypertape::builtin_digits().images);
}

TEST_CASE("the tensors are scaled by the training samples, whatever the others hold") {
  Dataset data = two_scales(100.0);
  hypertape::TrainingOptions options;
  options.batch = 4;
  const hypertape::TuneData before = hypertape::split_data(data, options);
  const hypertape::TrainingData& training = *before.training;
  // 8 test, 6 validation and 26 training samples, of which 24 fill batches.
  REQUIRE(training.training_samples == 26);
  // Change what is no training sample: the training tensors stay.
  const Values kept = training.all.inputs.to_vector<double>(),
               validation = training.validation.inputs.to_vector<double>(),
               test = before.test.inputs.to_vector<double>();
  for (std::int64_t i = 0; i < data.samples; ++i) {
    const double x = data.inputs[static_cast<std::size_t>(2 * i)], scaled = training.scaling(x, 0);
    const auto holds = [&](const Values& values) {
      for (std::size_t k = 0; k < values.size(); k += 2)
        if (values[k] == scaled) return true;
      return false;
    };
    if (holds(validation) || holds(test)) data.inputs[static_cast<std::size_t>(2 * i + 1)] = 1e6;
  }
  const hypertape::TuneData after = hypertape::split_data(data, options);
  CHECK(after.training->all.inputs.to_vector<double>() == kept);
  CHECK(after.training->validation.inputs.to_vector<double>() != validation);
  CHECK(after.test.inputs.to_vector<double>() != test);
}

TEST_CASE("a column's unit changes nothing under standard and range") {
  hypertape::TrainingOptions options;
  options.batch = 8;
  for (const Scale scale : {Scale::standard, Scale::range}) {
    options.scale = scale;
    const auto small = hypertape::prepare_data(two_scales(1.0), options),
               large = hypertape::prepare_data(two_scales(128.0), options);  // a power of two: the same bits
    CHECK(small->all.inputs.to_vector<double>() == large->all.inputs.to_vector<double>());
    CHECK(small->validation.inputs.to_vector<double>() == large->validation.inputs.to_vector<double>());
  }
  options.scale = Scale::max;
  CHECK(hypertape::prepare_data(two_scales(1.0), options)->all.inputs.to_vector<double>() !=
        hypertape::prepare_data(two_scales(128.0), options)->all.inputs.to_vector<double>());
}

TEST_CASE("a number that is not finite once scaled is refused by its place") {
  Dataset data = two_scales(1.0);
  hypertape::TrainingOptions options;
  options.batch = 8;
  options.scale = Scale::none;
  data.inputs[7] = 1e300;
  CHECK(thrown([&] { hypertape::prepare_data(data, options); }) == "nothing thrown");
  options.dtype = hypertape::Dtype::float32;
  CHECK(thrown([&] { hypertape::prepare_data(data, options); }) ==
        "[load data] t.csv: value 2 of sample 4, 1e+300, is not finite in float32 with --scale none: it is "
        "too large, "
        "or far outside the training samples; mend it or choose another --scale");
  CHECK(contains(thrown([&] { hypertape::prepare_data(data, options, hypertape::Dtype::float64); }),
                 "is not finite in float32"));
}

TEST_CASE("compare and tune say what was done, and learn from columns of very different scales") {
  const TemporaryFolder folder;
  std::string text = "a,b,label\n";
  const Dataset data = two_scales(1e6);
  for (int i = 0; i < 40; ++i)
    text += std::to_string(data.inputs[static_cast<std::size_t>(2 * i)]) + "," +
            std::to_string(data.inputs[static_cast<std::size_t>(2 * i + 1)]) + "," +
            std::to_string(data.labels[static_cast<std::size_t>(i)]) + "\n";
  set_content(folder / "t.csv", text);
  const Words common = {"--data", (folder / "t.csv").string(), "--layers", "4", "--steps", "30", "--batch",
                        "8"};
  const Outcome compared =
      run(with(with({"compare"}, common), {"--methods", "unrolled", "--groups", "momenta"}));
  CHECK(compared.code == 0);
  CHECK(contains(compared.out, "\nscale     standard: each column less its mean"));
  const Outcome json = run(with(with({"compare"}, common), {"--methods", "unrolled", "--groups", "momenta",
                                                            "--format", "json", "--scale", "range"}));
  CHECK(contains(json.out, "\"scale\": \"range\""));
  const auto validation_loss = [&](const std::string& scale) {
    const Outcome outcome = run(
        with(with({"compare"}, common), {"--methods", "unrolled", "--groups", "momenta", "--scale", scale}));
    const std::string label = ", validation ";
    const std::size_t at = outcome.out.find(label);
    REQUIRE(at != std::string::npos);
    return std::stod(outcome.out.substr(at + label.size()));
  };
  CHECK(validation_loss("standard") < 0.45);
  CHECK(validation_loss("max") > 0.6);  // ln 2 is a guess
  const Outcome tuned =
      run(with(with({"tune"}, common), {"--outer-steps", "1", "--output", (folder / "o").string()}));
  CHECK(tuned.code == 0);
  CHECK(contains(tuned.out, "\nscale     standard: "));
  CHECK(contains(content(folder / "o" / "hyperparameters.json"), "\"--scale\": \"standard\""));
  check_error(run(with(with({"tune"}, common),
                       {"--outer-steps", "2", "--scale", "max", "--output", (folder / "o").string()})),
              2, "--scale: the run in ");
  CHECK(run(with(with({"tune"}, common),
                 {"--outer-steps", "2", "--scale", "standard", "--output", (folder / "o").string()}))
            .code == 0);
}
