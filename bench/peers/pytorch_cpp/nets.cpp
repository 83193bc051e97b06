// Work on a net: the training step, products with curvature matrices, the implicit hypergradient.
#include "work.h"

namespace pytorch_worker {

using torch::autograd::grad;

peers::Work chain(const std::string& work, torch::Dtype dtype) {
  const std::vector<std::string> parts = peers::split(work, '/');
  const bool backward = parts.at(1) == "backward";
  const std::int64_t length = std::stoll(parts.at(2));
  const torch::Tensor x = torch::full({8}, 1.5, dtype).requires_grad_();
  const torch::Tensor factor = torch::ones({8}, dtype);
  return Kept()
      .add("autograd",
           [=]() -> Tensors {
             torch::Tensor y = x;
             for (std::int64_t i = 0; i < length; ++i) y = y * factor;
             if (!backward) return {y};
             return {y.detach(), grad({y}, {x}, {factor})[0]};
           })
      .work();
}

peers::Work training_step(const std::string& work, torch::Dtype dtype) {
  const NetData data(net_of(work), dtype);
  const Tensors w = require_grad(data.weights);
  const auto optimizer =
      std::make_shared<torch::optim::SGD>(w, torch::optim::SGDOptions(peers::rate).momentum(peers::momentum));
  return Kept()
      .add("optim::SGD",
           [=] {
             optimizer->zero_grad();
             const torch::Tensor loss = data.loss(w);
             loss.backward();
             optimizer->step();
             Tensors results{loss.detach()};
             results.insert(results.end(), w.begin(), w.end());
             return results;
           })
      .work();
}

peers::Work hessian_product(const std::string& work, torch::Dtype dtype) {
  const NetData data(net_of(work), dtype);
  const Tensors w = require_grad(data.weights), v = tensors(data.net.direction(), dtype);
  return Kept()
      .add("double backward", [=] { return grad(grad({data.loss(w)}, w, {}, {}, true), w, v); })
      .work();
}

peers::Work gauss_newton_product(const std::string& work, torch::Dtype dtype) {
  const NetData data(net_of(work), dtype);
  const Tensors w = require_grad(data.weights), v = tensors(data.net.direction(), dtype);
  return Kept()
      .add("jvp by two vjps",
           [=] {
             const torch::Tensor z = data.logits(w, data.rows);
             const torch::Tensor u = torch::zeros_like(z).requires_grad_();
             const torch::Tensor along = grad(grad({z}, w, {u}, true, true), {u}, v, true)[0];
             const torch::Tensor p = torch::softmax(z.detach(), 1), pu = p * along;
             const torch::Tensor cotangent = (pu - p * pu.sum(1, true)) / static_cast<double>(data.net.batch);
             return grad({z}, w, {cotangent});
           })
      .work();
}

// -f_hw p for p the Neumann series of the inverse Hessian times F_w; one recorded gradient serves all terms.
peers::Work implicit_hypergradient(const std::string& work, torch::Dtype dtype) {
  const NetData data(net_of(work), dtype);
  const Tensors w = require_grad(data.weights);
  const torch::Tensor h =
      torch::full({data.net.parameter_count()}, std::log(peers::l2), dtype).requires_grad_();
  return Kept()
      .add("recorded gradient",
           [=]() -> Tensors {
             const torch::Tensor value = data.loss(w);
             const Tensors outer = grad({value}, w);
             const torch::Tensor inner = data.loss(w) + penalty(unflatten(h.exp(), w), w);
             const Tensors gradient = grad({inner}, w, {}, {}, true);
             Tensors d, p;
             for (const torch::Tensor& each : outer) {
               d.push_back(peers::neumann_rate * each);
               p.push_back(d.back().clone());
             }
             for (std::int64_t i = 0; i < peers::neumann_terms; ++i) {
               const Tensors hd = grad(gradient, w, d, true);
               for (std::size_t j = 0; j < d.size(); ++j) {
                 d[j].sub_(hd[j], peers::neumann_rate);
                 p[j].add_(d[j]);
               }
             }
             return {value.detach(), -grad(gradient, {h}, p)[0]};
           })
      .work();
}

}  // namespace pytorch_worker
