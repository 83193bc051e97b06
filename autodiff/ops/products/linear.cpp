// A layer as one operation: product, bias and activation.
#include <array>

#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"
#include "autodiff/ops/elementwise/function.h"
#include "autodiff/tape/node.h"

namespace hypertape {
namespace detail {
namespace {

struct LinearAttributes {
  Activation activation;
  std::int64_t rows;
};

// From the result's cotangent to that of the sums; the Jacobian is diagonal, so it is the same for tangents.
Tensor through_activation(Activation activation, Tensor t, const Primal& primal) {
  switch (activation) {
    case Activation::none:
      return t;
    case Activation::tanh:
      return tanh_cotangent(std::move(t), primal.output());
    case Activation::relu:
      return masked(std::move(t), primal.output());
  }
  return t;
}

// Inputs: x, weight, bias.
void pull_linear(Pull& pull) {
  const Tensor g =
      through_activation(pull.attributes<LinearAttributes>().activation, std::move(pull.cotangents[0]), pull);
  if (pull.outputs[0]) pull.drop_output();
  if (pull.needs(2)) pull.gradients[2] = sum(g, {0});
  if (pull.needs(0)) pull_product(pull, 0, g, pull.input(1), false, true);
  if (pull.needs(1)) pull_product(pull, 1, pull.input(0), g, true, false);
}

void push_linear(Push& push) {
  const auto& at = push.attributes<LinearAttributes>();
  const Tensor &x = push.tangents[0], &weight = push.tangents[1], &bias = push.tangents[2];
  Tensor total;
  if (x.defined()) total = matmul(x, push.input(1));
  if (weight.defined())
    total =
        total.defined() ? matmul_add(std::move(total), push.input(0), weight) : matmul(push.input(0), weight);
  if (bias.defined()) {
    const std::int64_t width = bias.extent(-1);
    const bool stacked = push.block > 0;
    const Tensor row = stacked ? reshape(bias, {push.block, 1, width}) : bias;
    const Shape shape = stacked ? Shape{push.block, at.rows, width} : Shape{at.rows, width};
    total = total.defined() ? add(std::move(total), row) : contiguous(expand(row, shape));
  }
  push.results[0] = through_activation(at.activation, std::move(total), push);
}

constexpr OpRule linear_rule = {"linear", pull_linear, push_linear, nullptr, nullptr, false, push_linear};

const OpKernels* kernels_of(Activation activation) {
  if (activation == Activation::none) return nullptr;
  return &elementwise_kernels(activation == Activation::tanh ? ElementwiseCode::tanh : ElementwiseCode::relu);
}

// value holds x weight; returns the tangent, absent for scope 0.
Tensor finish_layer(const Tensor& value, const Tensor& x, const Tensor& weight, const Tensor& bias,
                    Activation activation, std::uint64_t scope) {
  const BackendCall backend = backend_of(value);
  LayerViews layer{view_of(value), view_of(bias)};
  layer.activation = kernels_of(activation);
  Tensor tangent;
  if (scope != 0) {
    const Tensor *x_tangent = find_tangent(*x.header(), scope),
                 *weight_tangent = find_tangent(*weight.header(), scope),
                 *bias_tangent = find_tangent(*bias.header(), scope);
    tangent = make_like(*value.header());
    layer.tangent = view_of(tangent);
    if (x_tangent) backend->product(view_of(*x_tangent), false, view_of(weight), false, layer.tangent, false);
    if (weight_tangent)
      backend->product(view_of(x), false, view_of(*weight_tangent), false, layer.tangent, x_tangent);
    if (bias_tangent) layer.bias_tangent = view_of(*bias_tangent);
    layer.bias_tangent_alone = !x_tangent && !weight_tangent;
  }
  backend->finish_layer(layer);
  return tangent;
}

void check_linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  require_same_dtype("linear", x, weight);
  require_same_dtype("linear", x, bias);
  if (x.rank() != 2 || weight.rank() != 2 || bias.rank() != 1 || x.extent(1) != weight.extent(0) ||
      weight.extent(1) != bias.extent(0))
    fail("linear", "input ", x.shape(), ", weight ", weight.shape(), " and bias ", bias.shape(),
         " do not fit; they must be (N, in), (in, out) and (out)");
}

}  // namespace
}  // namespace detail

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, Activation activation) {
  detail::check_linear(x, weight, bias);
  const detail::Links links_x = detail::links_of(x), links_weight = detail::links_of(weight);
  const detail::Links links = links_x | links_weight | detail::links_of(bias);
  const std::array<const Tensor*, 3> inputs{&x, &weight, &bias};
  const std::span<const Tensor* const> in(inputs);
  const std::uint64_t scope = links.tangents ? detail::scope_of_plain_tangents(in) : 0;

  const std::int64_t rows = x.header()->extents()[0];
  Tensor y = detail::make_tensor(Shape{rows, bias.header()->size}, x.header()->dtype);
  detail::backend_of(y)->product(detail::view_of(x), false, detail::view_of(weight), false,
                                 detail::view_of(y), false);
  Tensor tangent = detail::finish_layer(y, x, weight, bias, activation, scope);
  const std::array<Tensor*, 1> out{&y};
  if (detail::is_watched()) [[unlikely]]
    detail::watch_values("linear", in, out);
  if (!links.any()) return y;

  const detail::LinearAttributes attributes{activation, rows};
  detail::Node* node = nullptr;
  if (links.recorded) {
    const detail::Saves saves{(links_weight.any() ? 1u : 0u) | (links_x.any() ? 2u : 0u),
                              activation == Activation::none ? 0u : 1u};
    node = detail::make_node(detail::linear_rule, saves, sizeof attributes, in, out);
    new (node->attributes()) detail::LinearAttributes(attributes);
  }
  if (scope != 0)
    detail::attach_tangent(y, scope, std::move(tangent));
  else if (links.tangents)
    detail::push_tangents(detail::linear_rule, &attributes, in, out, {});
  if (node) detail::save_outputs(*node, out);
  return y;
}

}  // namespace hypertape
