// A bilevel problem of one's own: the gradient of a validation loss with respect to the learning rate of
// every step, the momentum of every step and a ridge penalty, through the whole training run, by four
// methods.
#include <hypertape/hypertape.h>

#include <cmath>
#include <cstdlib>
#include <iostream>

namespace ht = hypertape;
namespace bl = hypertape::bilevel;

int main() {
  ht::initialize();
  const std::int64_t steps = 200, features = 8;
  const auto normal = [](ht::Shape shape, std::uint64_t seed) {
    return ht::random(shape, ht::Distribution::normal, {.seed = seed});
  };
  const ht::Tensor truth = normal({features}, 1), x = normal({64, features}, 2),
                   x_new = normal({64, features}, 3);
  const ht::Tensor y = ht::matmul(x, truth) + 0.5 * normal({64}, 4), y_new = ht::matmul(x_new, truth);

  // Hyperparameters as they are learned; `prepare` turns them into what the run uses.
  const ht::NamedTensors h = {{"log_rates", ht::Tensor::full({steps}, std::log(0.02))},
                              {"momentum_logits", ht::Tensor::full({steps}, 1.0)},
                              {"log_ridge", ht::Tensor::scalar(-3.0)}};
  // By value: a pullback may run these again after this scope has gone.
  bl::Problem problem{
      .init =
          [=](const ht::NamedTensors&) {
            return ht::NamedTensors{{"w", ht::Tensor::zeros({features})}};
          },
      .loss =
          [=](const ht::NamedTensors& w, const ht::NamedTensors& now, const bl::StepContext&) {
            return ht::mean(ht::square(ht::matmul(x, w["w"]) - y)) + now["ridge"] * ht::dot(w["w"], w["w"]);
          },
      .step = ht::optim::sgd({.rate = "rates", .momentum = "momenta"}),
      .steps = steps,
      .per_step = {"rates", "momenta"},
      .prepare =
          [](const ht::NamedTensors& raw) {
            return ht::NamedTensors{{"rates", ht::exp(raw["log_rates"])},
                                    {"momenta", 1.0 / (1.0 + ht::exp(-raw["momentum_logits"]))},
                                    {"ridge", ht::exp(raw["log_ridge"])}};
          },
  };
  const bl::OuterLoss validation = [=](const ht::NamedTensors& w, const ht::NamedTensors&) {
    return ht::mean(ht::square(ht::matmul(x_new, w["w"]) - y_new));
  };

  const bl::Estimator methods[] = {bl::Unrolled{}, bl::Checkpointed{.checkpoints = 10}, bl::Trajectory{},
                                   bl::Reversible{}};
  double reference = 0.0;
  for (const bl::Estimator& method : methods) {
    const bl::Hypergradient result = bl::hypergradient(problem, validation, h, method);
    std::cout << result << '\n';
    const double ridge = result.gradients["log_ridge"].item();
    if (reference == 0.0) reference = ridge;
    // Reversible rounds each momentum to a multiple of 1/65536: another run, close by.
    if (!(std::abs(ridge - reference) <= 1e-3 * std::abs(reference))) return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
