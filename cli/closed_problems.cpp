#include "closed_problems.h"

#include <algorithm>
#include <cmath>

#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include <hypertape/core/random.h>

namespace hypertape {
namespace {

using bilevel::StepContext;

constexpr std::uint32_t first_stream = 64;  // apart from those of training a net

// Independent normal draws, each list from a stream of its own.
class Draws {
 public:
  explicit Draws(std::uint64_t seed) : seed_(seed) {}
  std::vector<double> take(std::size_t count, double scale = 1.0, double shift = 0.0) {
    std::vector<double> values = random({static_cast<std::int64_t>(count)}, Distribution::normal,
                                        Key{.seed = seed_, .stream = stream_++})
                                     .to_vector<double>();
    for (double& x : values) x = shift + scale * x;
    return values;
  }

 private:
  std::uint64_t seed_;
  std::uint32_t stream_ = first_stream;
};

Tensor tensor(const std::vector<double>& values, std::initializer_list<std::size_t> extents) {
  std::vector<std::int64_t> shape;
  for (const std::size_t extent : extents) shape.push_back(static_cast<std::int64_t>(extent));
  return Tensor::from(values, Shape(std::span<const std::int64_t>(shape)));
}

ClosedProblem quadratic(Draws draws) {
  constexpr std::size_t n = 8, m = 5;
  QuadraticNumbers numbers;
  const std::vector<double> root = draws.take(n * n);
  numbers.a.assign(n * n, 0.0);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) {
      for (std::size_t k = 0; k < n; ++k) numbers.a[i * n + j] += root[k * n + i] * root[k * n + j] / n;
      if (i == j) numbers.a[i * n + j] += 0.5;
    }
  numbers.b_matrix = draws.take(n * m);
  numbers.b = draws.take(n);
  numbers.c = draws.take(n);
  numbers.d = draws.take(m, 0.5);
  numbers.h = draws.take(m);
  ClosedProblem result;
  result.description = "8 weights, 5 hyperparameters in the linear term";
  result.exact = closed_form(numbers);
  result.hyperparameters = {{"h", tensor(numbers.h, {m})}};
  const Tensor a = tensor(numbers.a, {n, n}), b_matrix = tensor(numbers.b_matrix, {n, m}),
               b = tensor(numbers.b, {n}), c = tensor(numbers.c, {n}), d = tensor(numbers.d, {m});
  result.problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::zeros({n})}}; };
  result.problem.loss = [=](const NamedTensors& w, const NamedTensors& h, const StepContext&) {
    return 0.5 * dot(matmul(a, w["w"]), w["w"]) - dot(w["w"], b + matmul(b_matrix, h["h"]));
  };
  result.outer = [=](const NamedTensors& w, const NamedTensors& h) {
    return 0.5 * sum(square(w["w"] - c)) + dot(d, h["h"]);
  };
  return result;
}

// `is_ridge`: one penalty for all features, given itself instead of its logarithm.
ClosedProblem regression(Draws draws, bool is_ridge) {
  constexpr std::size_t samples = 40, outer_samples = 20, features = 8;
  RegressionNumbers numbers;
  numbers.x = draws.take(samples * features);
  numbers.x_outer = draws.take(outer_samples * features);
  const std::vector<double> truth = draws.take(features);
  const auto targets = [&](const std::vector<double>& x) {
    std::vector<double> y = draws.take(x.size() / features, 0.5);
    for (std::size_t n = 0; n < y.size(); ++n)
      for (std::size_t j = 0; j < features; ++j) y[n] += x[n * features + j] * truth[j];
    return y;
  };
  numbers.y = targets(numbers.x);
  numbers.y_outer = targets(numbers.x_outer);
  constexpr double lambda = 0.3;
  const std::vector<double> logarithms = draws.take(features, 0.5, std::log(lambda));
  for (const double each : logarithms) numbers.penalties.push_back(is_ridge ? lambda : std::exp(each));
  ClosedProblem result;
  result.description = "40 training and 20 validation samples of 8 features, ";
  result.description += is_ridge ? "one penalty" : "a penalty for each";
  result.exact = closed_form(numbers);
  std::vector<double>& gradient = result.exact.gradient;
  if (is_ridge) {
    double total = 0.0;
    for (const double each : gradient) total += each;
    gradient = {total};
    result.hyperparameters = {{"lambda", Tensor::scalar(lambda)}};
    result.problem.prepare = [](const NamedTensors& h) { return NamedTensors{{"penalties", h["lambda"]}}; };
  } else {
    for (std::size_t j = 0; j < features; ++j) gradient[j] *= numbers.penalties[j];
    result.hyperparameters = {{"log_l2", tensor(logarithms, {features})}};
    result.problem.prepare = [](const NamedTensors& h) {
      return NamedTensors{{"penalties", exp(h["log_l2"])}};
    };
  }
  const Tensor x = tensor(numbers.x, {samples, features}), y = tensor(numbers.y, {samples}),
               x_outer = tensor(numbers.x_outer, {outer_samples, features}),
               y_outer = tensor(numbers.y_outer, {outer_samples});
  result.problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::zeros({features})}}; };
  result.problem.loss = [=](const NamedTensors& w, const NamedTensors& h, const StepContext&) {
    return 0.5 * mean(square(matmul(x, w["w"]) - y)) + 0.5 * sum(h["penalties"] * square(w["w"]));
  };
  result.outer = [=](const NamedTensors& w, const NamedTensors&) {
    return 0.5 * mean(square(matmul(x_outer, w["w"]) - y_outer));
  };
  return result;
}

ClosedProblem logistic(Draws draws) {
  constexpr std::size_t samples = 45, outer_samples = 30, features = 5, classes = 3;
  LogisticNumbers numbers;
  numbers.classes = classes;
  numbers.x = draws.take(samples * features);
  numbers.x_outer = draws.take(outer_samples * features);
  const std::vector<double> truth = draws.take(features * classes);
  const auto labels = [&](const std::vector<double>& x) {
    const std::size_t count = x.size() / features;
    const std::vector<double> noise = draws.take(count * classes);
    std::vector<std::size_t> chosen;
    for (std::size_t n = 0; n < count; ++n) {
      std::vector<double> score(noise.begin() + static_cast<std::ptrdiff_t>(n * classes),
                                noise.begin() + static_cast<std::ptrdiff_t>((n + 1) * classes));
      for (std::size_t j = 0; j < features; ++j)
        for (std::size_t c = 0; c < classes; ++c) score[c] += x[n * features + j] * truth[j * classes + c];
      chosen.push_back(
          static_cast<std::size_t>(std::max_element(score.begin(), score.end()) - score.begin()));
    }
    return chosen;
  };
  numbers.labels = labels(numbers.x);
  numbers.labels_outer = labels(numbers.x_outer);
  const std::vector<double> logarithms = draws.take(features, 0.5, std::log(0.1));
  for (const double each : logarithms) numbers.penalties.push_back(std::exp(each));
  ClosedProblem result;
  result.description =
      "45 training and 30 validation samples of 5 features in 3 classes, a penalty for each feature";
  result.exact = closed_form(numbers);
  for (std::size_t j = 0; j < features; ++j) result.exact.gradient[j] *= numbers.penalties[j];
  result.hyperparameters = {{"log_l2", tensor(logarithms, {features})}};
  const auto label_tensor = [](const std::vector<std::size_t>& list) {
    return Tensor::from(std::vector<std::int64_t>(list.begin(), list.end()),
                        {static_cast<std::int64_t>(list.size())});
  };
  const Tensor x = tensor(numbers.x, {samples, features}),
               x_outer = tensor(numbers.x_outer, {outer_samples, features}), y = label_tensor(numbers.labels),
               y_outer = label_tensor(numbers.labels_outer);
  result.problem.prepare = [](const NamedTensors& h) {
    return NamedTensors{{"penalties", reshape(exp(h["log_l2"]), {features, 1})}};
  };
  result.problem.init = [](const NamedTensors&) {
    return NamedTensors{{"w", Tensor::zeros({features, classes})}};
  };
  result.problem.loss = [=](const NamedTensors& w, const NamedTensors& h, const StepContext&) {
    return softmax_cross_entropy(matmul(x, w["w"]), y) + 0.5 * sum(h["penalties"] * square(w["w"]));
  };
  result.outer = [=](const NamedTensors& w, const NamedTensors&) {
    return softmax_cross_entropy(matmul(x_outer, w["w"]), y_outer);
  };
  return result;
}

ClosedProblem of_kind(ProblemKind kind, const Draws& draws) {
  switch (kind) {
    case ProblemKind::quadratic:
      return quadratic(draws);
    case ProblemKind::ridge:
      return regression(draws, true);
    case ProblemKind::regression:
      return regression(draws, false);
    case ProblemKind::logistic:
      return logistic(draws);
    case ProblemKind::net:
      break;
  }
  fail("closed problem", "training a net has no closed form");
}

}  // namespace

ClosedProblem make_closed_problem(ProblemKind kind, std::uint64_t seed, std::int64_t steps) {
  ClosedProblem result = of_kind(kind, Draws(seed));
  // A step leaves 1 - rate * least curvature of the distance to w*, and of its derivative.
  result.rate = 1.0 / result.exact.most_curvature;
  const double left = 1.0 - result.rate * result.exact.least_curvature;
  constexpr double enough = 1e-17;
  result.problem.steps =
      steps > 0 ? steps : static_cast<std::int64_t>(std::ceil(std::log(enough) / std::log(left)));
  result.problem.step = optim::sgd({.rate = result.rate});
  result.problem.full_loss = [loss = result.problem.loss](const NamedTensors& w, const NamedTensors& h) {
    return loss(w, h, {});
  };
  return result;
}

}  // namespace hypertape
