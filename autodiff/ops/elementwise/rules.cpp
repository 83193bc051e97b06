// The rules of elementwise nodes: pull and push, with supports where a selection made zeros.
#include "autodiff/ops/elementwise/rules.h"

#include <algorithm>

#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"
#include "autodiff/tape/support.h"

namespace hypertape::detail {
namespace {

// Elements from which adding a gradient to its sum in the same pass is worth looking the sum up.
constexpr std::int64_t least_summed = 1024;

// What a selection lets pass of a cotangent of this shape: operand i's pull of an indicator, once asked for.
SupportPointer selected_support(const ElementwiseFunction& function, int operand, const Pull& pull,
                                double scalar) {
  std::array<Tensor, Primal::max_saved> inputs;
  for (std::size_t k = 0; k < inputs.size(); ++k)
    if (pull.inputs[k]) inputs[k] = make_alias(*pull.inputs[k]);
  Tensor output;
  if (pull.outputs[0]) output = make_alias(*pull.outputs[0]);
  const SupportPointer arrived = pull.support();
  return std::make_shared<const Support>(
      arrived ? arrived->depth() : 0,
      [&function, operand, scalar, inputs = std::move(inputs), output = std::move(output), arrived,
       shape = pull.cotangent().shape(), dtype = pull.cotangent().dtype()] {
        Primal primal;
        for (std::size_t k = 0; k < inputs.size(); ++k)
          if (inputs[k].defined()) primal.inputs[k] = &inputs[k];
        if (output.defined()) primal.outputs[0] = &output;
        return mask_of_indicator(
            function.pull(operand, primal, scalar, indicator(arrived, shape, dtype), nullptr));
      });
}

// With supports (support.h): the cotangent has one, or a selection makes one.
template <bool broadcasts>
void pull_with_supports(Pull& pull) {
  const auto& attributes = pull.attributes<ElementwiseAttributes>();
  const ElementwiseFunction& function = *attributes.function;
  const SupportPointer& arrived = pull.support();
  for (int i = 0; i < function.arity; ++i) {
    if (!(function.differentiable >> i & 1u) || !pull.needs(i)) continue;
    Tensor gradient = function.pull(i, pull, attributes.scalar, pull.cotangent(), nullptr);
    if (!gradient.defined()) continue;
    if (arrived && !function.keeps_zero(i, attributes.scalar))
      gradient = where(arrived->mask(), gradient, 0.0);
    SupportPointer support;
    if (pull.wants_support(i))
      support = function.selects ? selected_support(function, i, pull, attributes.scalar) : arrived;
    if constexpr (broadcasts) {
      const Shape& shape = pull.attributes<BroadcastAttributes>().shapes[static_cast<std::size_t>(i)];
      if (support && gradient.shape() != shape)
        support = summed_support(std::move(support), gradient.shape(), shape);
      gradient = sum_to(gradient, shape);
    }
    pull.gradients[static_cast<std::size_t>(i)] = std::move(gradient);
    if (support) pull.set_support(i, std::move(support));
  }
}

bool has_supports(const ElementwiseFunction& function, const Pull& pull) {
  if (pull.supports) return true;
  if (!function.selects) return false;
  bool wanted = false;
  for (int i = 0; i < function.arity; ++i)
    wanted |= (function.differentiable >> i & 1u) && pull.needs(i) && pull.wants_support(i);
  return wanted;
}

// Shapes of operands, given only by nodes that broadcast.
template <bool broadcasts>
void pull_elementwise(Pull& pull) {
  const auto& attributes = pull.attributes<ElementwiseAttributes>();
  const ElementwiseFunction& function = *attributes.function;
  if (has_supports(function, pull)) return pull_with_supports<broadcasts>(pull);
  int last = -1;
  for (int i = 0; i < function.arity; ++i)
    if ((function.differentiable >> i & 1u) && pull.needs(i)) last = i;
  for (int i = 0; i <= last; ++i) {
    if (!(function.differentiable >> i & 1u) || !pull.needs(i)) continue;
    if constexpr (!broadcasts) {
      // The cotangent's last use may lend its memory.
      const Tensor* factor = i == last ? function.factor(i, pull) : nullptr;
      if (factor) {
        pull.gradients[static_cast<std::size_t>(i)] = multiply(std::move(pull.cotangents[0]), *factor);
        return;
      }
    }
    if constexpr (broadcasts) {
      // Summed to a scalar, a product is a dot: the same additions in the same order, without the product in
      // memory.
      const Shape& shape = pull.attributes<BroadcastAttributes>().shapes[static_cast<std::size_t>(i)];
      const Tensor* factor = shape.size() == 1 ? function.factor(i, pull) : nullptr;
      if (factor && same_shape(*factor->header(), *pull.cotangent().header())) {
        pull.gradients[static_cast<std::size_t>(i)] = reshape(dot(pull.cotangent(), *factor), shape);
        continue;
      }
    }
    Tensor sum;
    if constexpr (!broadcasts)
      if (pull.cotangent().header()->size >= least_summed) sum = pull.take_sum(i);
    Tensor gradient =
        function.pull(i, pull, attributes.scalar, pull.cotangent(), sum.defined() ? &sum : nullptr);
    if (sum.defined())
      gradient = gradient.defined() ? add(std::move(sum), std::move(gradient)) : std::move(sum);
    if (!gradient.defined()) continue;  // the formula does not depend on this operand
    if constexpr (broadcasts)
      gradient = sum_to(gradient, pull.attributes<BroadcastAttributes>().shapes[static_cast<std::size_t>(i)]);
    pull.gradients[static_cast<std::size_t>(i)] = std::move(gradient);
  }
}

// With the extents 1 that align it with results of `rank` axes, behind the first axis of a stack.
Tensor aligned(const Tensor& stacked, int rank) {
  const Shape shape = stacked.shape();
  std::vector<std::int64_t> extents(static_cast<std::size_t>(rank + 1), 1);
  extents.front() = shape[0];
  std::copy(shape.begin() + 1, shape.end(), extents.end() - (shape.rank() - 1));
  return reshape(stacked, Shape(std::span<const std::int64_t>(extents)));
}

// Once the result is there.
template <bool broadcasts>
[[gnu::noinline]] void set_pushed_support(Push& push, unsigned present) {
  const auto& attributes = push.attributes<ElementwiseAttributes>();
  const ElementwiseFunction& function = *attributes.function;
  if (!push.result_supports() || !push.results[0].defined()) return;
  const auto arity = static_cast<std::size_t>(function.arity);
  std::span<const SupportPointer> arrived;
  if (push.tangent_supports()) arrived = {push.tangent_supports(), arity};
  if (!function.selects) {
    push.result_supports()[0] = joined_terms(present, arrived);
    return;
  }
  Shape shape = push.results[0].shape();
  if (push.block > 0) shape = Shape(shape.extents().subspan(1));
  std::span<const Shape> shapes{&shape, 1};
  if constexpr (broadcasts) shapes = {push.attributes<BroadcastAttributes>().shapes.data(), arity};
  push.result_supports()[0] =
      placed_support(function, attributes.scalar, push, present, shapes, push.results[0].dtype(), arrived);
}

template <bool broadcasts>
void push_elementwise(Push& push) {
  const auto& attributes = push.attributes<ElementwiseAttributes>();
  const ElementwiseFunction& function = *attributes.function;
  Shape shape;
  if constexpr (broadcasts)
    for (int k = 0; k < function.arity; ++k)
      shape = broadcast_shapes(function.name, shape,
                               push.attributes<BroadcastAttributes>().shapes[static_cast<std::size_t>(k)]);
  const auto contributes = [&](int i) {
    return (function.differentiable >> i & 1u) && push.tangents[static_cast<std::size_t>(i)].defined();
  };
  unsigned present = 0;
  for (int i = 0; i < function.arity; ++i) present |= contributes(i) ? 1u << i : 0u;
  Tensor total;
  for (int i = 0; i < function.arity; ++i) {
    if (!contributes(i)) continue;
    Tensor& tangent = push.tangents[static_cast<std::size_t>(i)];
    if constexpr (broadcasts)
      if (push.block > 0) tangent = aligned(tangent, shape.rank());
    const SupportPointer* const known = push.tangent_supports();
    const bool selected = known && known[i] && !function.keeps_zero(i, attributes.scalar);
    Tensor* sum = nullptr;
    if constexpr (!broadcasts) {
      if (selected)
        sum = nullptr;
      else if (total.defined())
        sum = &total;
      else if ((present & (present - 1)) == 0 && push.sum && push.sum->defined())
        sum = push.sum;
    }
    Tensor term = function.pull(i, push, attributes.scalar, tangent, sum);
    // If the term is the tangent itself, the sum may take its memory.
    tangent = Tensor();
    if (!term.defined()) continue;
    if (selected) term = where(known[i]->mask(), term, 0.0);
    // The formula may not mention the operand that has the larger shape (add: t alone); the layout is that
    // of a dual kernel.
    if constexpr (broadcasts)
      term = contiguous(expand(term, push.block > 0 ? stacked_shape(push.block, shape) : shape));
    total = total.defined() ? add(std::move(total), std::move(term)) : std::move(term);
  }
  push.results[0] = std::move(total);
  if (push.supports && (function.selects || push.supports->tangents)) [[unlikely]]
    set_pushed_support<broadcasts>(push, present);
}

const char* name_of_function(const void* attributes) noexcept {
  return static_cast<const ElementwiseAttributes*>(attributes)->function->name;
}
}  // namespace

constinit const OpRule elementwise_rule = {
    "elementwise", pull_elementwise<false>, push_elementwise<false>, nullptr,          name_of_function,
    false,         push_elementwise<false>, Supports::handled,       Supports::handled};
constinit const OpRule broadcast_rule = {
    "elementwise", pull_elementwise<true>, push_elementwise<true>, nullptr,          name_of_function,
    false,         push_elementwise<true>, Supports::handled,      Supports::handled};

SupportPointer placed_support(const ElementwiseFunction& function, double scalar, const Primal& primal,
                              unsigned present, std::span<const Shape> shapes, Dtype dtype,
                              std::span<const SupportPointer> arrived) {
  struct Operands {
    std::array<ReadLater, Primal::max_saved> inputs;
    ReadLater output;
    std::array<Shape, max_arguments> shapes;
    std::array<SupportPointer, max_arguments> arrived;
  };
  auto held = std::make_shared<Operands>();
  const Saves saves = function.saves(present);
  int depth = 0;
  for (std::size_t k = 0; k < static_cast<std::size_t>(function.arity); ++k) {
    if (saves.inputs >> k & 1u) held->inputs[k] = ReadLater(*primal.inputs[k]);
    if (!(present >> k & 1u)) continue;
    held->shapes[k] = shapes.size() == 1 ? shapes[0] : shapes[k];
    if (arrived.empty() || !arrived[k]) continue;
    held->arrived[k] = arrived[k];
    depth = std::max(depth, arrived[k]->depth());
  }
  if (saves.outputs) held->output = ReadLater(*primal.outputs[0]);
  return std::make_shared<const Support>(depth, [&function, scalar, present, dtype, held = std::move(held)] {
    Primal again;
    for (std::size_t k = 0; k < held->inputs.size(); ++k)
      if (held->inputs[k].defined()) again.inputs[k] = &held->inputs[k].get();
    if (held->output.defined()) again.outputs[0] = &held->output.get();
    Tensor total;
    for (int i = 0; i < function.arity; ++i) {
      if (!(present >> i & 1u)) continue;
      const auto k = static_cast<std::size_t>(i);
      const Tensor term =
          function.pull(i, again, scalar, indicator(held->arrived[k], held->shapes[k], dtype), nullptr);
      if (term.defined()) total = total.defined() ? add(total, term) : term;
    }
    return mask_of_indicator(total);
  });
}

SupportPointer joined_terms(unsigned present, std::span<const SupportPointer> arrived) {
  std::vector<SupportPointer> parts;
  for (std::size_t i = 0; i < arrived.size(); ++i) {
    if (!(present >> i & 1u)) continue;
    if (!arrived[i]) return nullptr;
    if (std::find(parts.begin(), parts.end(), arrived[i]) == parts.end()) parts.push_back(arrived[i]);
  }
  return parts.empty() ? nullptr : joined_support(std::move(parts));
}

bool only_passes_supports(Node& node) noexcept {
  if (node.rule != &elementwise_rule && node.rule != &broadcast_rule) return false;
  const auto& attributes = *static_cast<const ElementwiseAttributes*>(node.attributes());
  for (int i = 0; i < attributes.function->arity; ++i)
    if (!attributes.function->keeps_zero(i, attributes.scalar)) return false;
  return true;
}

bool only_hands_supports_on(Node& node) noexcept {
  if (node.rule != &elementwise_rule && node.rule != &broadcast_rule) return false;
  return !static_cast<const ElementwiseAttributes*>(node.attributes())->function->selects;
}

bool is_addition(Node& node) noexcept {
  return node.rule == &elementwise_rule &&
         static_cast<const ElementwiseAttributes*>(node.attributes())->function == &addition();
}

}  // namespace hypertape::detail
