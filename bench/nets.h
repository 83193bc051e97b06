// The two networks of the targets and their training problem, on synthetic digits.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/hypergradient.h>
#include <hypertape/core/random.h>
#include <hypertape/nn/layers.h>

namespace hypertape::bench {

inline constexpr std::int64_t batch_rows = 200;

struct Net {
  std::string name;
  std::vector<std::int64_t> sizes;
};

/// The network of Maclaurin, Duvenaud and Adams (2015), and the default of `hypertape compare`.
inline const std::vector<Net>& nets() {
  static const std::vector<Net> all{{"784-50-50-50-10", {784, 50, 50, 50, 10}},
                                    {"64-100-100-100-10", {64, 100, 100, 100, 10}}};
  return all;
}

/// Multiply-adds per row of the first layer (F) and of the rest (R).
struct Work {
  double first, rest;
};
inline Work work_of(const Net& net) {
  Work work{static_cast<double>(net.sizes[0] * net.sizes[1]), 0.0};
  for (std::size_t l = 1; l + 1 < net.sizes.size(); ++l)
    work.rest += static_cast<double>(net.sizes[l] * net.sizes[l + 1]);
  return work;
}

/// At 1, training at rate 0.1 is chaotic, and hypergradients could not be compared with the peers'.
inline constexpr double pixel_scale = 0.1;

struct Data {
  Tensor rows, labels;
};
inline Data synthetic_data(const Net& net, std::int64_t rows, Dtype dtype) {
  std::vector<std::int64_t> labels(static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::int64_t>(i * 7 % 10);
  return {pixel_scale * random({rows, net.sizes[0]}, Distribution::uniform, {1}, dtype),
          Tensor::from(labels, {rows})};
}

/// 0.9 as reversible training executes it, so that every method differentiates the same run.
inline constexpr double executed_momentum = 58982.0 / 65536.0;

struct TrainingProblem {
  bilevel::Problem problem;
  bilevel::OuterLoss outer;
  NamedTensors h;
};

/// SGD with momentum for `steps` steps, batch 200 of 1,000 rows, float64, and the hyperparameters log_rates
/// (steps, layers), momenta (steps), log_init_scales (layers), log_l2 (one per weight and bias). The outer
/// loss is the cross entropy of all rows.
inline TrainingProblem training_problem(const Net& net, std::int64_t steps) {
  constexpr std::int64_t batches = 5;
  const auto layers = static_cast<std::int64_t>(net.sizes.size()) - 1;
  const Data data = synthetic_data(net, batches * batch_rows, Dtype::float64);
  const nn::Mlp mlp(net.sizes, nn::Activation::tanh);
  const NamedTensors draws = mlp.standard_normal({5});

  TrainingProblem result;
  std::vector<double> scales;
  for (std::size_t l = 0; l < mlp.layers(); ++l)
    scales.push_back(-0.5 * std::log(static_cast<double>(net.sizes[l])));
  result.h.add("log_rates", Tensor::full({steps, layers}, std::log(0.1)));
  result.h.add("momenta", Tensor::full({steps}, std::log(executed_momentum / (1.0 - executed_momentum))));
  result.h.add("log_init_scales", Tensor::from(scales, {layers}));
  result.h.add("log_l2", Tensor::full({mlp.parameter_count()}, std::log(1e-4)));

  bilevel::Problem& problem = result.problem;
  problem.steps = steps;
  problem.per_step = {"rates", "momentum"};
  problem.step =
      optim::sgd({.rate = "rates", .momentum = "momentum", .rate_groups = mlp.layer_of_parameters()});
  problem.prepare = [draws](const NamedTensors& h) {
    NamedTensors prepared;
    prepared.add("rates", exp(h["log_rates"]));
    prepared.add("momentum", 1.0 / (1.0 + exp(-h["momenta"])));
    prepared.add("scales", exp(h["log_init_scales"]));
    const TensorList l2 = unflatten(exp(h["log_l2"]), draws.shapes());
    for (std::size_t i = 0; i < l2.size(); ++i) prepared.add("l2 of " + draws.names()[i], l2[i]);
    return prepared;
  };
  problem.init = [draws](const NamedTensors& h) {
    const TensorList scale = unstack(h["scales"]);
    TensorList w = draws.tensors();
    for (std::size_t i = 0; i < w.size(); i += 2) w[i] = scale[i / 2] * w[i];
    return draws.with(std::move(w));
  };
  problem.loss = [data, mlp](const NamedTensors& w, const NamedTensors& h,
                             const bilevel::StepContext& context) {
    const std::int64_t first = context.step % batches * batch_rows;
    const Tensor fit = softmax_cross_entropy(mlp(w, slice(data.rows, 0, first, first + batch_rows)),
                                             slice(data.labels, 0, first, first + batch_rows));
    Tensor penalty;
    for (std::size_t i = 0; i < w.size(); ++i) {
      Tensor term = sum(weighted_square(h.tensors()[3 + i], w.tensors()[i]));
      penalty = penalty.defined() ? penalty + term : term;
    }
    return fit + 0.5 * penalty;
  };
  result.outer = [data, mlp](const NamedTensors& w, const NamedTensors&) {
    return softmax_cross_entropy(mlp(w, data.rows), data.labels);
  };
  return result;
}

}  // namespace hypertape::bench
