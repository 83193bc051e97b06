// Work on a net: the training step, products with curvature matrices, the implicit hypergradient.
#include "work.h"

namespace hypertape::peers_worker {

// A thousand multiplications of 8 floats, recorded; with the backward walk to the first factor.
peers::Work chain(const std::string& work, Dtype dtype) {
  const std::vector<std::string> parts = peers::split(work, '/');
  const bool backward = parts.at(1) == "backward";
  const std::int64_t length = std::stoll(parts.at(2));
  const Tensor x = Tensor::full({8}, 1.5, dtype), factor = Tensor::full({8}, 1.0, dtype);
  return Kept()
      .add("vjp",
           [=]() -> TensorList {
             auto [y, pullback] = vjp(
                 [&](const Tensor& start) {
                   Tensor product = start;
                   for (std::int64_t i = 0; i < length; ++i) product = std::move(product) * factor;
                   return product;
                 },
                 x);
             if (!backward) return {y};
             return {y, pullback.consume(factor)};
           })
      .work();
}

peers::Work training_step(const std::string& work, Dtype dtype) {
  const NetData data(net_of(work), dtype);
  const optim::Step step = optim::sgd({.rate = peers::rate, .momentum = peers::momentum});
  auto state = std::make_shared<optim::State>();
  state->parameters = data.weights.tensors();
  state->buffers = step.initial_buffers(state->parameters);
  return Kept()
      .add("sgd",
           [=] {
             auto [value, gradients] =
                 value_and_grad([&](const TensorList& w) { return data.loss(w); }, state->parameters);
             *state = step.update(std::move(*state), std::move(gradients), {});
             TensorList results{value};
             results.insert(results.end(), state->parameters.begin(), state->parameters.end());
             return results;
           })
      .work();
}

peers::Work hessian_product(const std::string& work, Dtype dtype) {
  const NetData data(net_of(work), dtype);
  const TensorList v = tensors(data.net.direction(), dtype);
  return Kept()
      .add("hvp",
           [=] { return hvp([&](const TensorList& w) { return data.loss(w); }, data.weights.tensors(), v); })
      .work();
}

namespace {

// The output Hessian of the mean cross entropy times u: p (u - p'u) / N for each row.
Tensor output_hessian_product(const Tensor& logits, const Tensor& u) {
  const Tensor p = softmax(logits);
  const Tensor pu = p * u;
  return (pu - p * sum(pu, {1}, true)) / static_cast<double>(logits.extent(0));
}

}  // namespace

// J' H J v, J the Jacobian of the logits and H the loss's Hessian in them.
peers::Work gauss_newton_product(const std::string& work, Dtype dtype) {
  const NetData data(net_of(work), dtype);
  const TensorList v = tensors(data.net.direction(), dtype), w = data.weights.tensors();
  const auto logits = [data](const TensorList& at) {
    return TensorList{data.mlp(data.weights.with(at), data.rows)};
  };
  Kept kept;
  // Tangents first, then the net once more to record it.
  kept.add("jvp, then vjp", [=] {
    const Tensor along = jvp(logits, w, v).second.front();
    auto [z, pullback] = vjp(logits, w);
    return pullback.consume({output_hessian_product(z.front(), along)});
  });
  // The net once: its tangents are computed, and recorded for nobody, while it is recorded.
  kept.add("jvp inside vjp", [=] {
    Tensor along;
    auto [z, pullback] = vjp(
        [&](const TensorList& at) {
          auto [values, tangents] = jvp(logits, at, v);
          along = stop_gradient(tangents.front());
          return values;
        },
        w);
    return pullback.consume({output_hessian_product(z.front(), along)});
  });
  // The net recorded once, for its tangents and for its cotangents.
  kept.add("gauss_newton_operator", [=] {
    const auto loss = [data](const TensorList& z) { return softmax_cross_entropy(z.front(), data.labels); };
    return bilevel::gauss_newton_operator(logits, loss, w)(v);
  });
  return kept.work();
}

// -f_hw p for p the Neumann series of the inverse Hessian times F_w, at fixed weights; h the logarithms of
// one L2 strength per weight, F the cross entropy.
peers::Work implicit_hypergradient(const std::string& work, Dtype dtype) {
  const NetData data(net_of(work), dtype);
  const TensorList w = data.weights.tensors();
  const Tensor h = Tensor::full({data.net.parameter_count()}, std::log(peers::l2), dtype);
  return Kept()
      .add("neumann_series",
           [=]() -> TensorList {
             const TensorList l2 = unflatten(exp(h), data.weights.shapes());
             const auto inner = [&](const TensorList& at) { return data.loss(at) + penalty(l2, at); };
             auto [value, outer] = value_and_grad([&](const TensorList& at) { return data.loss(at); }, w);
             const bilevel::LinearSolution series =
                 bilevel::neumann_series(bilevel::hessian_operator(inner, w), outer,
                                         {.rate = peers::neumann_rate, .terms = peers::neumann_terms});
             // The mixed product is the gradient in h of <f_w, p>, in which only the penalty's part has h.
             const auto along = [&](const Tensor& at) {
               const TensorList strengths = unflatten(exp(at), data.weights.shapes());
               Tensor total;
               for (std::size_t i = 0; i < w.size(); ++i) {
                 Tensor term = dot(strengths[i] * w[i], series.x[i]);
                 total = total.defined() ? total + term : term;
               }
               return -total;
             };
             return {value, grad(along, h)};
           })
      .work();
}

}  // namespace hypertape::peers_worker
