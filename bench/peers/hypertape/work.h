// Hypertape's side of the comparison with its peers: through the public API alone.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <hypertape/hypertape.h>
#include "../worker.h"

namespace hypertape::peers_worker {

// chain/..., step/..., hvp/..., gauss_newton/..., implicit/...
peers::Work chain(const std::string& work, Dtype dtype);
peers::Work training_step(const std::string& work, Dtype dtype);
peers::Work hessian_product(const std::string& work, Dtype dtype);
peers::Work gauss_newton_product(const std::string& work, Dtype dtype);
peers::Work implicit_hypergradient(const std::string& work, Dtype dtype);
// hypergradient/...
peers::Work run_hypergradient(const std::string& work, Dtype dtype);
// matmul/..., op/...
peers::Work product(const std::string& work, Dtype dtype);
peers::Work operation(const std::string& work, Dtype dtype);

inline Tensor tensor(const peers::Array& array, Dtype dtype) {
  return astype(Tensor::from(array.values, Shape(array.shape)), dtype);
}

inline TensorList tensors(const std::vector<peers::Array>& arrays, Dtype dtype) {
  TensorList result;
  for (const peers::Array& array : arrays) result.push_back(tensor(array, dtype));
  return result;
}

// Work whose variants each return their results.
class Kept {
 public:
  template <class F>
  Kept& add(const std::string& name, F function) {
    work_.variants.push_back({name, [results = results_, function = std::move(function)] {
                                results->clear();
                                *results = function();
                              }});
    return *this;
  }
  peers::Work work() {
    work_.result = [results = results_] {
      std::vector<std::vector<double>> values;
      for (const Tensor& each : *results)
        values.push_back(astype(contiguous(each), Dtype::float64).to_vector<double>());
      return values;
    };
    work_.release = [results = results_] { results->clear(); };
    return std::move(work_);
  }

 private:
  std::shared_ptr<TensorList> results_ = std::make_shared<TensorList>();
  peers::Work work_;
};

// A net with its weights and batches.
struct NetData {
  NetData(const std::string& text, Dtype dtype, std::int64_t batches = 1)
      : net(text),
        mlp(net.sizes, net.relu ? nn::Activation::relu : nn::Activation::tanh),
        weights(mlp.standard_normal({}, dtype).with(tensors(net.weights(), dtype))),
        rows(tensor(net.rows(batches), dtype)),
        labels(Tensor::from(net.labels(batches), {batches * net.batch})) {}

  Tensor loss(const TensorList& w) const { return softmax_cross_entropy(mlp(weights.with(w), rows), labels); }

  peers::Net net;
  nn::Mlp mlp;
  NamedTensors weights;
  Tensor rows, labels;
};

// "784-50-10/tanh/200" of "hvp/784-50-10/tanh/200".
inline std::string net_of(const std::string& work) { return work.substr(work.find('/') + 1); }

// 1/2 sum of l2 w^2.
inline Tensor penalty(const TensorList& l2, const TensorList& w) {
  Tensor total;
  for (std::size_t i = 0; i < w.size(); ++i) {
    Tensor term = sum(weighted_square(l2[i], w[i]));
    total = total.defined() ? total + term : term;
  }
  return 0.5 * total;
}

}  // namespace hypertape::peers_worker
