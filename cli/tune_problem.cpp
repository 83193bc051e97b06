#include "tune_problem.h"

#include <algorithm>
#include <iterator>
#include <span>
#include <utility>

#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/hypergradient.h>
#include "convert.h"

namespace hypertape {
namespace {

// Apart from the streams of training_problem.cpp.
constexpr std::uint32_t test_stream = 3;

// One element per layer -> one per parameter.
Tensor per_parameter(const Tensor& per_layer, const nn::Mlp& net, const std::vector<Shape>& shapes) {
  const TensorList layers = unstack(per_layer);
  const std::vector<std::int64_t> layer_of = net.layer_of_parameters();
  TensorList parts;
  for (std::size_t i = 0; i < shapes.size(); ++i)
    parts.push_back(expand(layers[static_cast<std::size_t>(layer_of[i])], shapes[i]));
  return flatten(parts);
}

}  // namespace

TuneData split_data(const Dataset& data, const TrainingOptions& options) {
  const auto test_samples = static_cast<std::size_t>(std::max<std::int64_t>(1, data.samples / 5));
  const std::vector<std::int64_t> order =
      random_permutation(data.samples, {options.seed, test_stream}).to_vector<std::int64_t>();
  const std::span<const std::int64_t> test = std::span(order).first(test_samples),
                                      rest = std::span(order).subspan(test_samples);
  TuneData result;
  result.training = prepare_data(data, rest, options);
  result.test = scaled_samples(data, test, result.training->scaling, options.dtype, options.dtype);
  result.test_samples = std::ssize(test);
  result.validation_samples = std::ssize(rest) - result.training->training_samples;
  return result;
}

TrainingProblem make_tune_problem(const TuneData& data, const TrainingOptions& options, Penalties penalties) {
  TrainingProblem training = make_training_problem(data.training, options);
  NamedTensors& h = training.hyperparameters;
  if (penalties == Penalties::weight || !h.contains("log_l2")) return training;
  const auto layers = static_cast<std::int64_t>(training.net.layers());
  const Tensor start = slice(h["log_l2"], 0, 0, 1);
  h = h.with("log_l2", contiguous(expand(start, {layers})));
  training.problem.prepare = [prepare = std::move(training.problem.prepare), net = training.net,
                              shapes = training.net.standard_normal({}).shapes()](const NamedTensors& given) {
    return prepare(given.with("log_l2", per_parameter(given["log_l2"], net, shapes)));
  };
  return training;
}

Quality quality(const Samples& samples, const nn::Mlp& net, const NamedTensors& parameters) {
  const Tensor logits = net(parameters, samples.inputs);
  return {softmax_cross_entropy(logits, samples.labels).item(), nn::accuracy(logits, samples.labels)};
}

Quality training_quality(const TuneData& data, const nn::Mlp& net, const NamedTensors& parameters) {
  const std::vector<Samples>& batches = data.training->batches;
  Quality total;
  for (const Samples& batch : batches) {
    const Quality each = quality(batch, net, parameters);
    total.loss += each.loss;
    total.accuracy += each.accuracy;
  }
  const auto count = static_cast<double>(batches.size());
  return {total.loss / count, total.accuracy / count};
}

Evaluation evaluate(const TuneData& data, const TrainingProblem& training,
                    const NamedTensors& hyperparameters) {
  const NamedTensors w = bilevel::train(training.problem, hyperparameters).parameters;
  return {training_quality(data, training.net, w), quality(data.training->validation, training.net, w),
          quality(data.test, training.net, w)};
}

std::vector<double> elements_of(const NamedTensors& groups) {
  std::vector<double> elements;
  for (const Tensor& group : groups.tensors()) {
    const std::vector<double> part = doubles_of(group);
    elements.insert(elements.end(), part.begin(), part.end());
  }
  return elements;
}

NamedTensors groups_from(const std::vector<double>& elements, const NamedTensors& layout) {
  TensorList tensors;
  auto start = elements.begin();
  for (const Tensor& group : layout.tensors()) {
    const auto stop = start + group.size();
    tensors.push_back(tensor_in(group.dtype(), {start, stop}, group.shape()));
    start = stop;
  }
  return layout.with(std::move(tensors));
}

double hessian_product_in_gradients(const nn::Mlp& net) {
  const std::vector<std::int64_t>& sizes = net.sizes();
  const double first = static_cast<double>(sizes[0]) * static_cast<double>(sizes[1]);
  double rest = 0.0;
  for (std::size_t layer = 1; layer < net.layers(); ++layer)
    rest += static_cast<double>(sizes[layer]) * static_cast<double>(sizes[layer + 1]);
  return (2.0 * first + 6.0 * rest) / (2.0 * first + 3.0 * rest);
}

}  // namespace hypertape
