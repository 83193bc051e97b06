// Networks as functions of (named parameters, input).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include <hypertape/autodiff/ops.h>
#include <hypertape/core/export.h>
#include <hypertape/core/named_tensors.h>
#include <hypertape/core/random.h>

namespace hypertape::nn {

using hypertape::Activation;
using hypertape::linear;

/// "tanh" or "relu"; Error naming the choices otherwise.
HYPERTAPE_API Activation activation_from(std::string_view name);
HYPERTAPE_API std::string_view name_of(Activation activation) noexcept;

/// A multilayer perceptron: linear layers with an activation between them, none after the last.
///
/// Parameters, in order: weight_1 (sizes[0], sizes[1]), bias_1 (sizes[1]), weight_2, ...
class HYPERTAPE_API Mlp {
 public:
  /// `sizes`: input, hidden..., output; at least two, all positive.
  Mlp(std::vector<std::int64_t> sizes, Activation activation);

  std::size_t layers() const noexcept { return sizes_.size() - 1; }
  const std::vector<std::int64_t>& sizes() const noexcept { return sizes_; }
  Activation activation() const noexcept { return activation_; }
  /// Number of scalar parameters.
  std::int64_t parameter_count() const noexcept;
  /// For each parameter tensor, the layer it belongs to, from 0.
  std::vector<std::int64_t> layer_of_parameters() const;

  /// Weights of mean 0 and variance 1, biases 0: the draws, before any scale.
  NamedTensors standard_normal(const Key& key, Dtype dtype = Dtype::float64) const;
  /// The same with the weights of layer l scaled by 1 / sqrt(inputs of l) (LeCun, Bottou, Orr and Mueller
  /// 1998).
  NamedTensors init(const Key& key, Dtype dtype = Dtype::float64) const;

  /// input (N, sizes[0]) -> (N, sizes.back()).
  Tensor operator()(const NamedTensors& parameters, const Tensor& input) const;

 private:
  std::vector<std::int64_t> sizes_;
  Activation activation_;
};

/// Fraction of rows whose largest entry is at the label; logits (N, C), labels int64 (N). Not differentiable.
HYPERTAPE_API double accuracy(const Tensor& logits, const Tensor& labels);

}  // namespace hypertape::nn
