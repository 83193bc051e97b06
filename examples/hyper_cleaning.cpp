// Which training labels to believe: every sample gets a weight, and the weights are learned from a small
// clean set (hyper-cleaning: Franceschi, Donini, Frasconi and Pontil 2017, section 5.1).
//
// Half of the training labels are replaced by random wrong ones. The inner problem trains a linear classifier
// on the weighted loss; the outer loss is that of the trained classifier on clean validation data. Its
// gradient with respect to all 400 weights costs a few training runs, and following it turns the corrupted
// samples off.
#include <hypertape/hypertape.h>

#include <cstdlib>
#include <iostream>
#include <vector>

namespace ht = hypertape;
namespace bl = hypertape::bilevel;

namespace {

struct Samples {
  ht::Tensor x, y;                   // (N, features), int64 (N)
  std::vector<std::int64_t> labels;  // y again
};

// Four Gaussian clouds in ten dimensions.
Samples draw(std::int64_t count, const ht::Tensor& centres, std::uint64_t seed) {
  const std::int64_t classes = centres.extent(0), features = centres.extent(1);
  Samples samples;
  for (std::int64_t n = 0; n < count; ++n) samples.labels.push_back(n % classes);
  samples.y = ht::Tensor::from(samples.labels, {count});
  const ht::Tensor one_hot = ht::scatter_labels(ht::Tensor::ones({count}), samples.y, classes);
  samples.x =
      ht::matmul(one_hot, centres) + ht::random({count, features}, ht::Distribution::normal, {.seed = seed});
  return samples;
}

}  // namespace

int main() {
  ht::initialize();
  const std::int64_t count = 400, classes = 4, features = 10;
  const ht::Tensor centres = ht::random({classes, features}, ht::Distribution::normal, {.seed = 1});
  Samples train = draw(count, centres, 2);
  const Samples validation = draw(100, centres, 3), test = draw(1000, centres, 4);

  // A random half gets the label of another class.
  const auto order = ht::random_permutation(count, {.seed = 5}).to_vector<std::int64_t>();
  std::vector<bool> corrupted(static_cast<std::size_t>(count));
  for (std::int64_t k = 0; k < count / 2; ++k) {
    const auto n = static_cast<std::size_t>(order[static_cast<std::size_t>(k)]);
    corrupted[n] = true;
    train.labels[n] = (train.labels[n] + 1 + k % (classes - 1)) % classes;
  }
  train.y = ht::Tensor::from(train.labels, {count});

  const ht::nn::Mlp model({features, classes}, ht::nn::Activation::tanh);  // one layer: linear
  bl::Problem problem{
      .init = [=](const ht::NamedTensors&) { return model.init({.seed = 6}); },
      .loss =
          [=](const ht::NamedTensors& w, const ht::NamedTensors& h, const bl::StepContext&) {
            // -log softmax at the label, sample by sample, so that each can be weighted.
            const ht::Tensor p = ht::gather_labels(ht::softmax(model(w, train.x)), train.y);
            return ht::dot(h["weights"], -ht::log(p)) / static_cast<double>(count);
          },
      .step = ht::optim::sgd({.rate = 0.5, .momentum = 0.9}),
      .steps = 60,
      .prepare =
          [](const ht::NamedTensors& h) {
            return ht::NamedTensors{{"weights", 1.0 / (1.0 + ht::exp(-h["logits"]))}};
          },
  };
  const bl::OuterLoss clean_loss = [=](const ht::NamedTensors& w, const ht::NamedTensors&) {
    return ht::softmax_cross_entropy(model(w, validation.x), validation.y);
  };
  const auto accuracy = [&](const ht::NamedTensors& w) { return ht::nn::accuracy(model(w, test.x), test.y); };

  ht::NamedTensors h = {{"logits", ht::Tensor::zeros({count})}};
  double before = 0.0, after = 0.0;
  for (int iteration = 0; iteration <= 60; ++iteration) {
    const bl::Hypergradient result = bl::hypergradient(problem, clean_loss, h, bl::Trajectory{});
    (iteration == 0 ? before : after) = accuracy(result.parameters);
    if (iteration % 20 == 0)
      std::cout << "iteration " << iteration << ": validation loss " << result.value << ", test accuracy "
                << accuracy(result.parameters) << '\n';
    h = h.with("logits", h["logits"] - 400.0 * result.gradients["logits"]);
  }

  const auto weights = (1.0 / (1.0 + ht::exp(-h["logits"]))).to_vector<double>();
  double clean_mean = 0.0, corrupted_mean = 0.0, told_apart = 0.0;
  for (std::size_t n = 0; n < weights.size(); ++n) {
    (corrupted[n] ? corrupted_mean : clean_mean) += 2.0 * weights[n] / static_cast<double>(count);
    told_apart += corrupted[n] == (weights[n] < 0.5) ? 1.0 / static_cast<double>(count) : 0.0;
  }
  std::cout << "mean weight: clean " << clean_mean << ", corrupted " << corrupted_mean << "; "
            << 100.0 * told_apart << " % told apart by weight < 1/2\n";
  return clean_mean > corrupted_mean + 0.5 && told_apart > 0.85 && after > before ? EXIT_SUCCESS
                                                                                  : EXIT_FAILURE;
}
