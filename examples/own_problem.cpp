// A problem that no library ships: how strongly to disturb the training inputs, learned by differentiating
// through training with an optimizer of one's own.
//
// Twelve features, of which three matter, and only 30 samples: a linear model over-fits. Adding Gaussian
// noise of scale sigma_i to feature i while training discourages using it. Which scale is right for which
// feature is asked of held-out data: its loss is differentiated with respect to all log sigma_i, through 150
// steps.
#include <hypertape/hypertape.h>

#include <cmath>
#include <cstdlib>
#include <iostream>

namespace ht = hypertape;
namespace bl = hypertape::bilevel;

// RMSProp-like: g is divided by a running root mean square. A step is a pure function of (state, gradient,
// hyperparameters), written with differentiable operations; that is all a method needs to differentiate it.
ht::optim::Step normalised_descent() {
  ht::optim::Step step;
  step.name = "normalised descent";
  step.initial_buffers = [](const ht::TensorList& w) {
    ht::TensorList buffers;
    for (const ht::Tensor& each : w) buffers.push_back(ht::Tensor::ones(each.shape()));
    return buffers;
  };
  step.update = [](const ht::optim::State& state, const ht::TensorList& gradients,
                   const ht::NamedTensors& h) {
    ht::optim::State next;
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      const ht::Tensor& g = gradients[i];
      next.buffers.push_back(0.9 * state.buffers[i] + 0.1 * ht::square(g));
      // x^(-1/2) as exp(-log(x) / 2); the buffer starts at 1 and stays positive.
      const ht::Tensor scale = ht::exp(-0.5 * ht::log(next.buffers[i] + 1e-4));
      next.parameters.push_back(state.parameters[i] - h["rate"] * (g * scale));
    }
    return next;
  };
  return step;
}

int main() {
  ht::initialize();
  const std::int64_t features = 12, samples = 30;
  const auto normal = [](ht::Shape shape, std::uint64_t seed) {
    return ht::random(shape, ht::Distribution::normal, {.seed = seed});
  };
  const ht::Tensor truth = ht::Tensor::from({1.0, -1.0, 0.5, 0., 0., 0., 0., 0., 0., 0., 0., 0.});
  const ht::Tensor x = normal({samples, features}, 1), x_new = normal({200, features}, 2);
  const ht::Tensor y = ht::matmul(x, truth) + normal({samples}, 3), y_new = ht::matmul(x_new, truth);

  bl::Problem problem{
      .init =
          [=](const ht::NamedTensors&) {
            return ht::NamedTensors{{"w", ht::Tensor::zeros({features})}};
          },
      .loss =
          [=](const ht::NamedTensors& w, const ht::NamedTensors& h, const bl::StepContext& context) {
            // The key makes the noise a function of (seed, step): a method that runs the step again draws the
            // same.
            const ht::Tensor noise = ht::random(x.shape(), ht::Distribution::normal, context.key);
            return ht::mean(ht::square(ht::matmul(x + h["sigma"] * noise, w["w"]) - y));
          },
      .step = normalised_descent(),
      .steps = 150,
      .prepare =
          [](const ht::NamedTensors& raw) {
            return ht::NamedTensors{{"sigma", ht::exp(raw["log_sigma"])}, {"rate", ht::exp(raw["log_rate"])}};
          },
      .seed = 5,
  };
  const bl::OuterLoss held_out = [=](const ht::NamedTensors& w, const ht::NamedTensors&) {
    return ht::mean(ht::square(ht::matmul(x_new, w["w"]) - y_new));
  };

  ht::NamedTensors h = {{"log_sigma", ht::Tensor::full({features}, std::log(0.1))},
                        {"log_rate", ht::Tensor::scalar(std::log(0.02))}};

  // Before trusting it: the derivative along one direction against a difference of two real trainings.
  const auto value_at = [&](double shift) {
    const ht::NamedTensors moved = h.with("log_sigma", h["log_sigma"] + shift);
    return held_out(bl::train(problem, moved).parameters, moved).item();
  };
  const double difference = (value_at(1e-4) - value_at(-1e-4)) / 2e-4;
  const double derivative =
      ht::sum(bl::hypergradient(problem, held_out, h, bl::Trajectory{}).gradients["log_sigma"]).item();
  std::cout << "dF/dlog(all sigma): " << derivative << ", by differences of training: " << difference << '\n';
  if (!(std::abs(derivative - difference) <= 1e-5 * std::abs(derivative))) return EXIT_FAILURE;

  double first = 0.0, last = 0.0;
  for (int iteration = 0; iteration < 60; ++iteration) {
    const bl::Hypergradient result = bl::hypergradient(problem, held_out, h, bl::Trajectory{});
    (iteration == 0 ? first : last) = result.value;
    h = h.with("log_sigma", h["log_sigma"] - 5.0 * result.gradients["log_sigma"]);
  }
  const auto sigma = ht::exp(h["log_sigma"]).to_vector<double>();
  std::cout << "held-out loss " << first << " -> " << last << "\nsigma ";
  double useful = 0.0, useless = 0.0;
  for (std::size_t i = 0; i < sigma.size(); ++i) {
    std::cout << ' ' << sigma[i];
    (i < 3 ? useful : useless) += sigma[i] / (i < 3 ? 3.0 : 9.0);
  }
  std::cout << "\nmean sigma of the 3 features that matter " << useful << ", of the others " << useless
            << '\n';
  return last < 0.7 * first && useless > 2.0 * useful ? EXIT_SUCCESS : EXIT_FAILURE;
}
