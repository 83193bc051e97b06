#include "training_problem.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <numeric>
#include <utility>

#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include "convert.h"
#include "data_limits.h"
#include "readable.h"

namespace hypertape {
namespace {

// Streams of random numbers (Key::stream).
constexpr std::uint32_t shuffle_stream = 1;
constexpr std::uint32_t weights_stream = 2;

// How the numbers of a problem are stored.
struct Precision {
  Precision(const TrainingOptions& options, std::optional<Dtype> wanted)
      : rounded_to(options.dtype), held_in(wanted.value_or(options.dtype)) {}
  Tensor operator()(const Tensor& x) const { return converted(x, rounded_to, held_in); }
  NamedTensors operator()(const NamedTensors& list) const {
    TensorList tensors;
    for (const Tensor& each : list.tensors()) tensors.push_back((*this)(each));
    return list.with(std::move(tensors));
  }
  Dtype rounded_to, held_in;
};

// Memory of `count` elements that lie as the library's own do.
template <class T>
std::shared_ptr<T[]> aligned_memory(std::size_t count) {
  constexpr std::align_val_t cache_line{64};
  return {static_cast<T*>(::operator new(count * sizeof(T), cache_line)),
          [](T* memory) { ::operator delete(memory, cache_line); }};
}

[[noreturn]] void refuse_value(const Dataset& data, std::int64_t sample, std::int64_t feature,
                               Dtype rounded_to, const Scaling& scaling) {
  const double value = data.inputs[static_cast<std::size_t>(sample * data.features + feature)];
  fail(load_data, data.name, ": value ", feature + 1, " of sample ", sample + 1, ", ", exact_text(value),
       ", is not finite in ", name_of(rounded_to), " with --scale ", scaling.name(),
       ": it is too large, or far outside the training samples; mend it or choose another --scale");
}

template <class T>
Tensor scaled_inputs(const Dataset& data, std::span<const std::int64_t> chosen, const Scaling& scaling,
                     Dtype rounded_to) {
  const auto features = static_cast<std::size_t>(data.features);
  const std::size_t count = chosen.size() * features;
  const std::shared_ptr<T[]> memory = aligned_memory<T>(count);
  const bool single = rounded_to == Dtype::float32;
  const double largest =
      single ? double{std::numeric_limits<float>::max()} : std::numeric_limits<double>::max();
  T* to = memory.get();
  for (const std::int64_t sample : chosen) {
    const double* row = data.inputs.data() + sample * data.features;
    for (std::size_t i = 0; i < features; ++i) {
      const double value = scaling(row[i], i);
      if (!(std::abs(value) <= largest))
        refuse_value(data, sample, static_cast<std::int64_t>(i), rounded_to, scaling);
      *to++ = static_cast<T>(single ? static_cast<float>(value) : value);
    }
  }
  return Tensor::wrap(std::span<const T>(memory.get(), count),
                      {static_cast<std::int64_t>(chosen.size()), data.features}, memory);
}

std::vector<std::int64_t> sizes_of(const TrainingData& data, const std::vector<std::int64_t>& hidden) {
  std::vector<std::int64_t> sizes = {data.features};
  sizes.insert(sizes.end(), hidden.begin(), hidden.end());
  sizes.push_back(data.classes);
  return sizes;
}

// All four groups, whether asked for or not.
NamedTensors initial_hyperparameters(const nn::Mlp& net, const TrainingOptions& options) {
  const auto layers = static_cast<std::int64_t>(net.layers());
  const double momentum = representable_momentum(options.momentum);
  std::vector<double> log_scales;
  for (std::size_t layer = 0; layer < net.layers(); ++layer)
    log_scales.push_back(-0.5 * std::log(static_cast<double>(net.sizes()[layer])));
  return {{"log_rates", Tensor::full({options.steps, layers}, std::log(options.rate))},
          {"momenta", Tensor::full({options.steps}, std::log(momentum / (1.0 - momentum)))},
          {"log_init_scales", Tensor::from(log_scales, {layers})},
          {"log_l2", Tensor::full({net.parameter_count()}, std::log(options.l2))}};
}

NamedTensors selected(const NamedTensors& all, const std::vector<std::string>& groups) {
  NamedTensors result;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::string& name = all.names()[i];
    if (std::find(groups.begin(), groups.end(), name) != groups.end()) result.add(name, all.tensors()[i]);
  }
  return result;
}

// Momenta are Adam's beta1; its other settings have their usual values.
optim::Step step_of(Optimizer optimizer, const nn::Mlp& net) {
  if (optimizer == Optimizer::adam)
    return optim::adam({.rate = "rates", .beta1 = "momentum", .rate_groups = net.layer_of_parameters()});
  optim::SgdOptions sgd{.rate = "rates", .momentum = "momentum", .rate_groups = net.layer_of_parameters()};
  sgd.nesterov = optimizer == Optimizer::nesterov;
  return optim::sgd(sgd);
}

}  // namespace

double representable_momentum(double momentum) {
  constexpr double denominator = 65536.0;
  return std::clamp(std::round(momentum * denominator), 1.0, denominator - 1.0) / denominator;
}

Samples scaled_samples(const Dataset& data, std::span<const std::int64_t> chosen, const Scaling& scaling,
                       Dtype rounded_to, Dtype held_in) {
  std::vector<std::int64_t> labels;
  labels.reserve(chosen.size());
  for (const std::int64_t sample : chosen) labels.push_back(data.labels[static_cast<std::size_t>(sample)]);
  return {held_in == Dtype::float32 ? scaled_inputs<float>(data, chosen, scaling, rounded_to)
                                    : scaled_inputs<double>(data, chosen, scaling, rounded_to),
          Tensor::from(labels, {std::ssize(labels)})};
}

std::shared_ptr<const TrainingData> prepare_data(const Dataset& data, const TrainingOptions& options,
                                                 std::optional<Dtype> held_in) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(data.samples));
  std::iota(all.begin(), all.end(), 0);
  return prepare_data(data, all, options, held_in);
}

std::shared_ptr<const TrainingData> prepare_data(const Dataset& data, std::span<const std::int64_t> chosen,
                                                 const TrainingOptions& options,
                                                 std::optional<Dtype> held_in) {
  const std::int64_t samples = std::ssize(chosen);
  const std::int64_t validation = std::max<std::int64_t>(1, samples / 5);
  const std::int64_t training = samples - validation;
  if (options.batch > training) {
    throw UsageError("--batch: must be at most the " + std::to_string(training) + " training samples (of " +
                     std::to_string(samples) + " in " + data.name + "), not " +
                     std::to_string(options.batch));
  }
  std::vector<std::int64_t> order =
      random_permutation(samples, {options.seed, shuffle_stream}).to_vector<std::int64_t>();
  for (std::int64_t& sample : order) sample = chosen[static_cast<std::size_t>(sample)];
  const auto split = static_cast<std::size_t>(validation);
  const std::span<const std::int64_t> validated = std::span(order).first(split),
                                      trained = std::span(order).subspan(split);
  TrainingData result;
  result.features = data.features;
  result.classes = data.classes;
  result.training_samples = training;
  result.scaling = Scaling(options.scale, data, trained);
  const auto tensors_of = [&](std::span<const std::int64_t> part) {
    return scaled_samples(data, part, result.scaling, options.dtype, held_in.value_or(options.dtype));
  };
  result.validation = tensors_of(validated);
  const Samples all = tensors_of(trained);
  for (std::int64_t start = 0; start + options.batch <= training; start += options.batch) {
    const std::int64_t stop = start + options.batch;
    result.batches.push_back({slice(all.inputs, 0, start, stop), slice(all.labels, 0, start, stop)});
    result.all = {slice(all.inputs, 0, 0, stop), slice(all.labels, 0, 0, stop)};
  }
  return std::make_shared<const TrainingData>(std::move(result));
}

TrainingProblem make_training_problem(std::shared_ptr<const TrainingData> data,
                                      const TrainingOptions& options, std::optional<Dtype> held_in) {
  const Precision precision(options, held_in);
  const nn::Mlp net(sizes_of(*data, options.layers), options.activation);
  const NamedTensors draws = precision(net.standard_normal({options.seed, weights_stream}));
  const NamedTensors constants = precision(initial_hyperparameters(net, options));
  const std::size_t first_decay = 3;  // position of the first parameter's decays among the prepared

  bilevel::Problem problem;
  problem.steps = options.steps;
  problem.seed = options.seed;
  problem.per_step = {"rates", "momentum"};
  problem.step = step_of(options.optimizer, net);
  problem.prepare = [constants, draws, shapes = draws.shapes()](const NamedTensors& h) {
    const auto value = [&](const char* name) { return h.contains(name) ? h[name] : constants[name]; };
    NamedTensors prepared = {{"rates", exp(value("log_rates"))},
                             {"momentum", 1.0 / (1.0 + exp(-value("momenta")))},
                             {"scales", exp(value("log_init_scales"))}};
    const TensorList decays = unflatten(exp(value("log_l2")), shapes);
    for (std::size_t i = 0; i < decays.size(); ++i) prepared.add("l2_" + draws.names()[i], decays[i]);
    return prepared;
  };
  problem.init = [draws](const NamedTensors& h) {
    const TensorList scales = unstack(h["scales"]);
    TensorList parameters = draws.tensors();
    for (std::size_t layer = 0; layer < scales.size(); ++layer)
      parameters[2 * layer] = scales[layer] * parameters[2 * layer];  // the weights; biases are 0 anyway
    return draws.with(std::move(parameters));
  };
  const auto loss = [net](const Samples& samples, const NamedTensors& w, const NamedTensors& h) {
    Tensor penalty;
    for (std::size_t i = 0; i < w.size(); ++i) {
      const Tensor& parameter = w.tensors()[i];
      Tensor term = sum(weighted_square(h.tensors()[first_decay + i], parameter));
      penalty = penalty.defined() ? penalty + term : term;
    }
    return softmax_cross_entropy(net(w, samples.inputs), samples.labels) + 0.5 * penalty;
  };
  problem.loss = [data, loss](const NamedTensors& w, const NamedTensors& h,
                              const bilevel::StepContext& context) {
    return loss(data->batches[static_cast<std::size_t>(context.step) % data->batches.size()], w, h);
  };
  problem.full_loss = [data, loss](const NamedTensors& w, const NamedTensors& h) {
    return loss(data->all, w, h);
  };
  const auto validation_loss = [data, net](const NamedTensors& w, const NamedTensors&) {
    return softmax_cross_entropy(net(w, data->validation.inputs), data->validation.labels);
  };
  return {std::move(problem), validation_loss, selected(constants, options.groups), net};
}

}  // namespace hypertape
