// Whole training runs: growth in the steps and in the hyperparameters.
#include <cmath>

#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/hypergradient.h>
#include <hypertape/core/random.h>
#include <hypertape/nn/layers.h>
#include "curves.h"

namespace hypertape::growth {
namespace {

struct Run {
  bilevel::Problem problem;
  bilevel::OuterLoss outer;
  NamedTensors h;
};

constexpr double executed_momentum = 58982.0 / 65536.0;

// A net so small that 1e5 steps take seconds: SGD with momentum on 16 rows. Rate, momentum and L2 strength
// are one number each, so that nothing but the method grows with the steps; or there is one rate for each
// step.
Run small_run(std::int64_t steps, bool rate_per_step) {
  const nn::Mlp mlp({8, 16, 4}, nn::Activation::tanh);
  const NamedTensors weights = mlp.init({5});
  constexpr std::int64_t rows = 16;
  const Tensor x = random({rows, 8}, Distribution::normal, {1});
  std::vector<std::int64_t> classes(rows);
  for (std::size_t i = 0; i < classes.size(); ++i) classes[i] = static_cast<std::int64_t>(i * 7 % 4);
  const Tensor labels = Tensor::from(classes, {rows});

  Run run;
  run.h.add("log_rate",
            rate_per_step ? Tensor::full({steps}, std::log(0.01)) : Tensor::scalar(std::log(0.01)));
  run.h.add("momentum_logit", Tensor::scalar(std::log(executed_momentum / (1.0 - executed_momentum))));
  run.h.add("log_l2", Tensor::scalar(std::log(1e-2)));
  run.problem.steps = steps;
  if (rate_per_step) run.problem.per_step = {"rate"};
  run.problem.step = optim::sgd({.rate = "rate", .momentum = "momentum"});
  run.problem.prepare = [](const NamedTensors& h) {
    NamedTensors prepared;
    prepared.add("rate", exp(h["log_rate"]));
    prepared.add("momentum", sigmoid(h["momentum_logit"]));
    prepared.add("l2", exp(h["log_l2"]));
    return prepared;
  };
  run.problem.init = [weights](const NamedTensors&) { return weights; };
  run.problem.loss = [=](const NamedTensors& w, const NamedTensors& h, const bilevel::StepContext&) {
    Tensor penalty;
    for (const Tensor& each : w.tensors()) {
      Tensor term = sum(square(each));
      penalty = penalty.defined() ? penalty + term : term;
    }
    return softmax_cross_entropy(mlp(w, x), labels) + 0.5 * (h["l2"] * penalty);
  };
  run.outer = [=](const NamedTensors& w, const NamedTensors&) {
    return softmax_cross_entropy(mlp(w, x), labels);
  };
  return run;
}

// Few steps towards given weights with L2 strengths: `count` of them, each for as many weights. The work on
// the weights is the same for every count.
Run penalised_run(std::int64_t weight_count, std::int64_t count) {
  const std::int64_t each = weight_count / count;
  const Tensor target = random({count, each}, Distribution::normal, {1});
  const Tensor start = Tensor::zeros({count, each});
  Run run;
  run.h.add("log_l2", Tensor::full({count, 1}, std::log(0.1)));
  run.problem.steps = 3;
  run.problem.step = optim::sgd({.rate = 0.1, .momentum = executed_momentum});
  run.problem.init = [start](const NamedTensors&) { return NamedTensors{{"w", start}}; };
  run.problem.loss = [target](const NamedTensors& w, const NamedTensors& h, const bilevel::StepContext&) {
    return 0.5 * (sum(square(w["w"] - target)) + sum(exp(h["log_l2"]) * square(w["w"])));
  };
  run.outer = [target](const NamedTensors& w, const NamedTensors&) {
    return 0.5 * sum(square(w["w"] - target));
  };
  return run;
}

void differentiate(const Run& run, const bilevel::Estimator& estimator) {
  const bilevel::Hypergradient result = bilevel::hypergradient(run.problem, run.outer, run.h, estimator);
  if (bilevel::is_failure(result.status)) fail("growth", result.message);
}

Curve over_steps(const std::string& name, const std::string& work,
                 std::optional<bilevel::Estimator> estimator, double memory, bool rate_per_step = false) {
  return {"steps/" + name,
          "training steps T",
          work,
          thirds_of_decades(100, 100000),
          3000,
          1.0,
          memory,
          [estimator, rate_per_step](std::int64_t steps) -> Work {
            const Run run = small_run(steps, rate_per_step);
            if (!estimator)
              return {[run] { bilevel::train(run.problem, run.h); }, static_cast<double>(steps)};
            return {[run, estimator] { differentiate(run, *estimator); }, static_cast<double>(steps)};
          }};
}

Curve over_penalties(const bilevel::Estimator& estimator) {
  constexpr std::int64_t weights = 10000000;
  std::vector<std::int64_t> counts;
  for (std::int64_t count = 1; count <= weights; count *= 10) counts.push_back(count);
  return {"hyperparameters/" + estimator.name(),
          "hyperparameters",
          "hypergradient in L2 strengths, each for as many of 1e7 weights; 3 steps",
          counts,
          1000,
          0.0,
          0.0,
          [estimator](std::int64_t count) -> Work {
            const Run run = penalised_run(weights, count);
            return {[run, estimator] { differentiate(run, estimator); }, static_cast<double>(count)};
          }};
}

}  // namespace

std::vector<Curve> curves_of_runs() {
  const std::string run = ", 8-16-4 tanh, 16 rows, float64";
  std::vector<Curve> curves{
      over_steps("train", "plain training" + run, {}, 0.0),
      over_steps("unrolled", "hypergradient" + run, bilevel::Unrolled{}, 1.0),
      over_steps("checkpointed", "hypergradient, sqrt(T) checkpoints" + run, bilevel::Checkpointed{}, 0.5),
      over_steps("trajectory", "hypergradient" + run, bilevel::Trajectory{}, 1.0),
      over_steps("reversible", "hypergradient" + run, bilevel::Reversible{}, 1.0),
      over_steps("forward", "hypergradient, 3 hyperparameters" + run, bilevel::Forward{}, 1.0),
      over_steps("rate_per_step/trajectory", "hypergradient, T + 2 hyperparameters" + run,
                 bilevel::Trajectory{}, 1.0, true),
      over_steps("rate_per_step/reversible", "hypergradient, T + 2 hyperparameters" + run,
                 bilevel::Reversible{}, 1.0, true),
      over_penalties(bilevel::Unrolled{}),
      over_penalties(bilevel::Trajectory{}),
      over_penalties(bilevel::Reversible{})};
  curves.push_back(
      {"hyperparameters/forward",
       "hyperparameters",
       "hypergradient in L2 strengths, each for as many of 1e5 weights; 3 steps",
       {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000},
       100,
       1.0,
       0.0,
       [](std::int64_t count) -> Work {
         const Run penalised = penalised_run(100000, count);
         return {[penalised] { differentiate(penalised, bilevel::Forward{}); }, static_cast<double>(count)};
       }});
  for (Curve& curve : curves)
    if (curve.name == "steps/reversible" || curve.name == "steps/rate_per_step/reversible" ||
        curve.name == "steps/forward")
      curve.memory_beyond_first = true;
  return curves;
}

}  // namespace hypertape::growth
