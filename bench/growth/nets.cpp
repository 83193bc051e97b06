// One gradient, one product, one step: growth in the weights, the batch, the Neumann terms, the tape.
#include <cmath>

#include <hypertape/bilevel/linear.h>
#include "curves.h"
#include "step.h"

namespace hypertape::growth {
namespace {

// h-h-10 with about `count` weights.
NetLoss square_net(std::int64_t count) {
  // h^2 + 11 h + 10 = count
  const double h = -5.5 + std::sqrt(5.5 * 5.5 - 10.0 + static_cast<double>(count));
  const auto width = std::max<std::int64_t>(1, std::llround(h));
  return NetLoss({width, width, 10}, nn::Activation::tanh, 32, Dtype::float32);
}

TensorList direction_like(const TensorList& w) {
  TensorList v;
  for (const Tensor& each : w) v.push_back(random(each.shape(), Distribution::normal, {11}, each.dtype()));
  return v;
}

Work gradient_of(const NetLoss& loss) {
  return {[loss = loss.function(), w = loss.weights.tensors()] { grad(loss, w); }};
}
Work hessian_product_of(const NetLoss& loss) {
  return {[loss = loss.function(), w = loss.weights.tensors(), v = direction_like(loss.weights.tensors())] {
    hvp(loss, w, v);
  }};
}
Work step_of(const NetLoss& loss) { return {TrainingStep(loss)}; }

Curve over_weights(const std::string& name, const std::string& work, Work (*of)(const NetLoss&)) {
  return {"weights/" + name,
          "weights",
          work + " of h-h-10 tanh, 32 rows, float32",
          thirds_of_decades(1000, 100000000),
          1000000,
          1.0,
          1.0,
          [of](std::int64_t count) {
            const NetLoss loss = square_net(count);
            Work point = of(loss);
            point.size = static_cast<double>(loss.mlp.parameter_count());
            return point;
          }};
}

Curve over_batch(const std::string& name, const std::string& work, Work (*of)(const NetLoss&)) {
  return {"batch/" + name,
          "rows of a batch",
          work + " of 64-100-10 tanh, float32",
          thirds_of_decades(1, 100000),
          3000,
          1.0,
          1.0,
          [of](std::int64_t rows) {
            Work point = of(NetLoss({64, 100, 10}, nn::Activation::tanh, rows, Dtype::float32));
            point.size = static_cast<double>(rows);
            return point;
          }};
}

Work neumann(std::int64_t terms) {
  const NetLoss loss({64, 100, 10}, nn::Activation::tanh, 100, Dtype::float64);
  const TensorList w = loss.weights.tensors();
  return {[loss = loss.function(), w, terms] {
            const TensorList b = grad(loss, w);
            bilevel::neumann_series(bilevel::hessian_operator(loss, w), b, {.rate = 0.1, .terms = terms});
          },
          static_cast<double>(terms)};
}

Work chain(std::int64_t length) {
  const Tensor x = Tensor::full({8}, 1.5, Dtype::float32), factor = Tensor::full({8}, 1.0, Dtype::float32);
  return {[=] {
            auto [y, pullback] = vjp(
                [&](const Tensor& start) {
                  Tensor product = start;
                  for (std::int64_t i = 0; i < length; ++i) product = std::move(product) * factor;
                  return product;
                },
                x);
            pullback.consume(factor);
          },
          static_cast<double>(length)};
}

}  // namespace

std::vector<Curve> curves_of_nets() {
  return {over_weights("gradient", "gradient", gradient_of),
          over_weights("hvp", "Hessian-vector product", hessian_product_of),
          over_weights("step", "training step, SGD with momentum,", step_of),
          {"terms/neumann", "Neumann terms",
           "outer gradient, Hessian operator and series, 64-100-10 tanh, 100 rows, float64",
           thirds_of_decades(1, 1000), 100, 1.0, 0.0, neumann},
          over_batch("gradient", "gradient", gradient_of),
          over_batch("hvp", "Hessian-vector product", hessian_product_of),
          {"operations/chain", "multiplications of 8 floats", "recorded, then one gradient",
           thirds_of_decades(100, 1000000), 10000, 1.0, 1.0, chain}};
}

}  // namespace hypertape::growth
