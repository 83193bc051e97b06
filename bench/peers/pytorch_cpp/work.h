// PyTorch's C++ API, used as its documentation does; where there are two ways, both are variants.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "../worker.h"

namespace pytorch_worker {

using Tensors = std::vector<torch::Tensor>;

// chain/..., step/..., hvp/..., gauss_newton/..., implicit/...
peers::Work chain(const std::string& work, torch::Dtype dtype);
peers::Work training_step(const std::string& work, torch::Dtype dtype);
peers::Work hessian_product(const std::string& work, torch::Dtype dtype);
peers::Work gauss_newton_product(const std::string& work, torch::Dtype dtype);
peers::Work implicit_hypergradient(const std::string& work, torch::Dtype dtype);
// hypergradient/...
peers::Work run_hypergradient(const std::string& work, torch::Dtype dtype);
// matmul/..., op/...
peers::Work product(const std::string& work, torch::Dtype dtype);
peers::Work operation(const std::string& work, torch::Dtype dtype);

inline torch::Tensor tensor(const peers::Array& array, torch::Dtype dtype) {
  return torch::tensor(array.values, torch::kFloat64).reshape(array.shape).to(dtype).clone();
}

inline Tensors tensors(const std::vector<peers::Array>& arrays, torch::Dtype dtype) {
  Tensors result;
  for (const peers::Array& array : arrays) result.push_back(tensor(array, dtype));
  return result;
}

inline Tensors require_grad(Tensors list) {
  for (torch::Tensor& each : list) each.requires_grad_();
  return list;
}

inline Tensors detached(const Tensors& list) {
  Tensors result;
  for (const torch::Tensor& each : list) result.push_back(each.detach());
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
      for (const torch::Tensor& each : *results) {
        const torch::Tensor flat = each.detach().to(torch::kFloat64).contiguous();
        values.emplace_back(flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel());
      }
      return values;
    };
    work_.release = [results = results_] { results->clear(); };
    return std::move(work_);
  }

 private:
  std::shared_ptr<Tensors> results_ = std::make_shared<Tensors>();
  peers::Work work_;
};

struct NetData {
  NetData(const std::string& text, torch::Dtype dtype, std::int64_t batches = 1)
      : net(text),
        weights(tensors(net.weights(), dtype)),
        rows(tensor(net.rows(batches), dtype)),
        labels(torch::tensor(net.labels(batches), torch::kInt64)) {}

  torch::Tensor logits(const Tensors& w, const torch::Tensor& x) const {
    torch::Tensor y = x;
    for (std::size_t i = 0; i < w.size(); i += 2) {
      y = torch::addmm(w[i + 1], y, w[i]);
      if (i + 2 < w.size()) y = net.relu ? torch::relu(y) : torch::tanh(y);
    }
    return y;
  }
  torch::Tensor loss(const Tensors& w) const {
    return torch::nn::functional::cross_entropy(logits(w, rows), labels);
  }

  peers::Net net;
  Tensors weights;
  torch::Tensor rows, labels;
};

// "784-50-10/tanh/200" of "hvp/784-50-10/tanh/200".
inline std::string net_of(const std::string& work) { return work.substr(work.find('/') + 1); }

// Pieces of a vector with the shapes of `like`.
inline Tensors unflatten(const torch::Tensor& flat, const Tensors& like) {
  std::vector<std::int64_t> sizes;
  for (const torch::Tensor& each : like) sizes.push_back(each.numel());
  Tensors pieces = flat.split_with_sizes(sizes);
  for (std::size_t i = 0; i < pieces.size(); ++i) pieces[i] = pieces[i].view_as(like[i]);
  return pieces;
}

// 1/2 sum of l2 w^2.
inline torch::Tensor penalty(const Tensors& l2, const Tensors& w) {
  torch::Tensor total;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const torch::Tensor term = (l2[i] * w[i] * w[i]).sum();
    total = total.defined() ? total + term : term;
  }
  return 0.5 * total;
}

}  // namespace pytorch_worker
