#include <hypertape/nn/layers.h>

#include <cmath>
#include <string>

#include <hypertape/core/error.h>
#include "core/base/default_floats.h"

namespace hypertape::nn {

Activation activation_from(std::string_view name) {
  if (name == "tanh") return Activation::tanh;
  if (name == "relu") return Activation::relu;
  fail("activation", "'", name, "' is unknown; choose tanh or relu");
}

std::string_view name_of(Activation activation) noexcept {
  switch (activation) {
    case Activation::none:
      return "none";
    case Activation::tanh:
      return "tanh";
    case Activation::relu:
      return "relu";
  }
  return "";
}

Mlp::Mlp(std::vector<std::int64_t> sizes, Activation activation)
    : sizes_(std::move(sizes)), activation_(activation) {
  if (sizes_.size() < 2) fail("mlp", "needs the sizes of an input and an output layer");
  for (const std::int64_t size : sizes_)
    if (size < 1) fail("mlp", "layer size ", size, " is not positive");
}

std::int64_t Mlp::parameter_count() const noexcept {
  std::int64_t count = 0;
  for (std::size_t l = 0; l < layers(); ++l) count += (sizes_[l] + 1) * sizes_[l + 1];
  return count;
}

std::vector<std::int64_t> Mlp::layer_of_parameters() const {
  std::vector<std::int64_t> result;
  for (std::size_t l = 0; l < layers(); ++l) result.insert(result.end(), 2, static_cast<std::int64_t>(l));
  return result;
}

NamedTensors Mlp::standard_normal(const Key& key, Dtype dtype) const {
  NamedTensors parameters;
  for (std::size_t l = 0; l < layers(); ++l) {
    const std::string number = std::to_string(l + 1);
    Key layer_key = key;
    // A stream of its own for each layer, beside the caller's stream and step.
    layer_key.stream += static_cast<std::uint32_t>(l + 1) << 16;
    parameters.add("weight_" + number,
                   random({sizes_[l], sizes_[l + 1]}, Distribution::normal, layer_key, dtype));
    parameters.add("bias_" + number, Tensor::zeros({sizes_[l + 1]}, dtype));
  }
  return parameters;
}

NamedTensors Mlp::init(const Key& key, Dtype dtype) const {
  const hypertape::detail::DefaultFloats floats;
  const NamedTensors draws = standard_normal(key, dtype);
  TensorList scaled = draws.tensors();
  for (std::size_t l = 0; l < layers(); ++l)
    scaled[2 * l] = scaled[2 * l] / std::sqrt(static_cast<double>(sizes_[l]));
  return draws.with(std::move(scaled));
}

Tensor Mlp::operator()(const NamedTensors& parameters, const Tensor& input) const {
  if (parameters.size() != 2 * layers())
    fail("mlp", parameters.size(), " parameter tensors given for ", layers(), " layers, which have ",
         2 * layers());
  Tensor x = input;
  for (std::size_t l = 0; l < layers(); ++l)
    x = linear(x, parameters.tensors()[2 * l], parameters.tensors()[2 * l + 1],
               l + 1 < layers() ? activation_ : Activation::none);
  return x;
}

double accuracy(const Tensor& logits, const Tensor& labels) {
  const hypertape::detail::DefaultFloats floats;
  for (const Tensor* tensor : {&logits, &labels})
    if (!tensor->defined()) fail("accuracy", "logits or labels are absent");
  if (!is_floating(logits.dtype()) || labels.dtype() != Dtype::int64)
    fail("accuracy", "logits of dtype ", logits.dtype(), " and labels of dtype ", labels.dtype(),
         " must be float32 or float64, and int64");
  if (logits.rank() != 2 || labels.rank() != 1 || labels.extent(0) != logits.extent(0) || logits.size() == 0)
    fail("accuracy", "logits ", logits.shape(), " and labels ", labels.shape(), " must be (N, C) and (N)");
  const std::vector<std::int64_t> wanted = labels.to_vector<std::int64_t>();
  const std::int64_t classes = logits.extent(1);
  std::vector<double> all(static_cast<std::size_t>(logits.size()));
  if (logits.dtype() == Dtype::float64) {
    all = logits.to_vector<double>();
  } else {
    const std::vector<float> single = logits.to_vector<float>();
    all.assign(single.begin(), single.end());
  }
  std::int64_t right = 0;
  for (std::size_t n = 0; n < wanted.size(); ++n) {
    if (wanted[n] < 0 || wanted[n] >= classes)
      fail("accuracy", "label ", wanted[n], " of row ", n, " is outside 0..", classes - 1);
    const double* scores = all.data() + n * static_cast<std::size_t>(classes);
    std::int64_t best = 0;
    for (std::int64_t c = 1; c < classes; ++c)
      if (scores[c] > scores[best]) best = c;
    right += best == wanted[n];
  }
  return static_cast<double>(right) / static_cast<double>(wanted.size());
}

}  // namespace hypertape::nn
