// Applying an elementwise function: memory for the result, plain or dual kernel, node and tangents; and the
// rules of its nodes.
#include "autodiff/ops/elementwise/function.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"
#include "autodiff/tape/anomaly.h"
#include "autodiff/tape/support.h"

namespace hypertape::detail {
namespace {

constexpr int max_arguments = 5;
// Elements from which adding a gradient to its sum in the same pass is worth looking the sum up.
constexpr std::int64_t least_summed = 1024;

// Attributes of a node: which function, its scalar, and the operands' shapes where they broadcast.
struct ElementwiseAttributes {
  const ElementwiseFunction* function;
  double scalar;
};
struct BroadcastAttributes {
  ElementwiseAttributes plain;
  std::array<Shape, max_arguments> shapes;
};

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

// What a selection gives its result of the tangents of `present` operands: the sum of its pulls of
// indicators, whose coefficients have one sign. `shapes`: of the operands, or one for all.
SupportPointer placed_support(const ElementwiseFunction& function, double scalar, const Primal& primal,
                              unsigned present, std::span<const Shape> shapes, Dtype dtype,
                              std::span<const SupportPointer> arrived) {
  struct Operands {
    std::array<Tensor, Primal::max_saved> inputs;
    Tensor output;
    std::array<Shape, max_arguments> shapes;
    std::array<SupportPointer, max_arguments> arrived;
  };
  auto held = std::make_shared<Operands>();
  const Saves saves = function.saves(present);
  int depth = 0;
  for (std::size_t k = 0; k < static_cast<std::size_t>(function.arity); ++k) {
    if (saves.inputs >> k & 1u) held->inputs[k] = make_alias(*primal.inputs[k]);
    if (!(present >> k & 1u)) continue;
    held->shapes[k] = shapes.size() == 1 ? shapes[0] : shapes[k];
    if (arrived.empty() || !arrived[k]) continue;
    held->arrived[k] = arrived[k];
    depth = std::max(depth, arrived[k]->depth());
  }
  if (saves.outputs) held->output = make_alias(*primal.outputs[0]);
  return std::make_shared<const Support>(depth, [&function, scalar, present, dtype, held = std::move(held)] {
    Primal again;
    for (std::size_t k = 0; k < held->inputs.size(); ++k)
      if (held->inputs[k].defined()) again.inputs[k] = &held->inputs[k];
    if (held->output.defined()) again.outputs[0] = &held->output;
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

// The support of a sum of the terms that `present` operands' tangents make: null if nothing is known of one.
SupportPointer joined_terms(unsigned present, std::span<const SupportPointer> arrived) {
  std::vector<SupportPointer> parts;
  for (std::size_t i = 0; i < arrived.size(); ++i) {
    if (!(present >> i & 1u)) continue;
    if (!arrived[i]) return nullptr;
    if (std::find(parts.begin(), parts.end(), arrived[i]) == parts.end()) parts.push_back(arrived[i]);
  }
  return parts.empty() ? nullptr : joined_support(std::move(parts));
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
constexpr OpRule elementwise_rule = {
    "elementwise", pull_elementwise<false>, push_elementwise<false>, nullptr,          name_of_function,
    false,         push_elementwise<false>, Supports::handled,       Supports::handled};
constexpr OpRule broadcast_rule = {
    "elementwise", pull_elementwise<true>, push_elementwise<true>, nullptr,          name_of_function,
    false,         push_elementwise<true>, Supports::handled,      Supports::handled};

}  // namespace

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

namespace {

// Which operands take part in derivatives, one bit each.
struct Participation {
  unsigned recorded = 0;  ///< serves an active scope, in an operand with a derivative
  bool tangents = false;
  bool any = false;
};

Participation participation_of(const ElementwiseFunction& function, std::span<const Operand> operands) {
  Participation part;
  for (std::size_t i = 0; i < operands.size(); ++i) {
    const Header& header = header_of(function.name, *operands[i]);
    if (!header.node && !header.tangents) continue;
    const Links links = links_of_linked(header);
    if (links.recorded && (function.differentiable >> i & 1u)) part.recorded |= 1u << i;
    part.tangents |= links.tangents;
    part.any |= links.any();
  }
  return part;
}

// Checks the operands; returns whether they all have the shape of the first.
bool check_operands(const ElementwiseFunction& function, std::span<const Operand> operands) {
  const Header& first = *operands[0]->header();
  if (!is_floating(first.dtype)) require_floating(function.name, *operands[0]);
  bool same = true;
  for (std::size_t i = 1; i < operands.size(); ++i) {
    const Header& other = *operands[i]->header();
    if (other.dtype != first.dtype) require_same_dtype(function.name, *operands[0], *operands[i]);
    same &= same_shape(first, other);
  }
  return same;
}

Shape broadcast_shape(const ElementwiseFunction& function, std::span<const Operand> operands) {
  Shape shape = operands[0]->shape();
  for (std::size_t i = 1; i < operands.size(); ++i)
    shape = broadcast_shapes(function.name, shape, operands[i]->shape());
  return shape;
}

// The operand whose header and memory the result may take over, or -1: handed over, nobody else holds it, no
// rule will need its old values, and it carries no tangent.
int find_donor(std::span<const Operand> operands, unsigned saved, bool same, const Shape& shape) {
  for (std::size_t i = 0; i < operands.size(); ++i) {
    if (!operands[i].given() || (saved >> i & 1u) || !is_donatable(operands[i])) continue;
    const Header& header = *operands[i]->header();
    if (header.tangents || (!same && operands[i]->shape() != shape)) continue;
    bool alone = true;
    for (std::size_t k = 0; k < operands.size(); ++k) alone &= k == i || operands[k]->header() != &header;
    if (alone) return static_cast<int>(i);
  }
  return -1;
}

void run(const ElementwiseFunction& function, double scalar, std::span<const Operand> operands, unsigned mask,
         std::uint64_t scope, const Tensor& value, const Tensor* tangent, bool accumulate = false) {
  ElementwiseCall call;
  call.accumulate = accumulate;
  call.kernel = function.kernel(mask);
  call.scalar = scalar;
  for (const Operand& operand : operands) call.inputs[call.input_count++] = &*operand;
  for (std::size_t i = 0; i < operands.size(); ++i)
    if (mask >> i & 1u) call.inputs[call.input_count++] = find_tangent(*operands[i]->header(), scope);
  call.outputs[call.output_count++] = &value;
  if (tangent) call.outputs[call.output_count++] = tangent;
  backend_of(value)->elementwise(call);
}

Tensor make_output(std::span<const Operand> operands, bool same, const Shape& shape) {
  const Header& first = *operands[0]->header();
  return same ? make_like(first) : make_tensor(shape, first.dtype);
}

// A donor's links to scopes that are not active.
void drop_links(Tensor& tensor) noexcept {
  if (TapeRecord* node = std::exchange(tensor.header()->node, nullptr)) release(node);
}

// Whether values like these, which nothing links, may be added into `sum`: its tangents stay what they are.
bool takes_sum(const Tensor& sum, const Header& first, bool same, const Shape& shape) {
  if (!is_held_alone(sum) || links_of(sum).recorded) return false;
  return same ? same_shape(*sum.header(), first) : sum.shape() == shape;
}

const ElementwiseAttributes& plain_part(const ElementwiseAttributes& attributes) { return attributes; }
const ElementwiseAttributes& plain_part(const BroadcastAttributes& attributes) { return attributes.plain; }

// A node keeps of the attributes what its operands need: a Shape is 80 bytes.
std::size_t kept_bytes(const ElementwiseAttributes&, std::size_t) { return sizeof(ElementwiseAttributes); }
std::size_t kept_bytes(const BroadcastAttributes&, std::size_t operands) {
  return offsetof(BroadcastAttributes, shapes) + operands * sizeof(Shape);
}

template <class Attributes>
Node* record(const OpRule& rule, const ElementwiseFunction& function, unsigned recorded,
             const Attributes& attributes, std::span<const Tensor* const> inputs, Tensor& value) {
  static_assert(std::is_trivially_copyable_v<Attributes>);
  Tensor* const out = &value;
  const std::size_t bytes = kept_bytes(attributes, inputs.size());
  Node* node = make_node(rule, function.saves(recorded), bytes, inputs, {&out, 1});
  std::memcpy(node->attributes(), &attributes, bytes);
  return node;
}

// Of the tangent that a dual kernel made.
template <class Attributes>
[[gnu::noinline]] SupportPointer dual_support(const Attributes& attributes,
                                              std::span<const Tensor* const> inputs, const Tensor& value,
                                              unsigned present, unsigned supported, std::uint64_t scope) {
  const ElementwiseAttributes& plain = plain_part(attributes);
  std::array<SupportPointer, max_arguments> arrived;
  Primal primal;
  primal.outputs[0] = &value;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    primal.inputs[i] = inputs[i];
    if (supported >> i & 1u) arrived[i] = find_support(*inputs[i]->header(), scope);
  }
  const std::span<const SupportPointer> all(arrived.data(), inputs.size());
  if (!plain.function->selects) return joined_terms(present, all);
  Shape shape;
  std::span<const Shape> shapes{&shape, 1};
  if constexpr (std::is_same_v<Attributes, BroadcastAttributes>)
    shapes = {attributes.shapes.data(), inputs.size()};
  else
    shape = value.shape();
  return placed_support(*plain.function, plain.scalar, primal, present, shapes, value.dtype(), all);
}

// The kernel that carries tangents along, where there is one, or else the rule's push.
template <class Attributes>
[[gnu::noinline]] Tensor apply_with_tangents(const OpRule& rule, const Attributes& attributes,
                                             std::span<const Operand> operands, unsigned recorded, bool same,
                                             const Shape& shape) {
  const ElementwiseAttributes& plain = plain_part(attributes);
  const ElementwiseFunction& function = *plain.function;
  std::array<const Tensor*, max_arguments> in{};
  for (std::size_t i = 0; i < operands.size(); ++i) in[i] = &*operands[i];
  const std::span<const Tensor* const> inputs(in.data(), operands.size());
  unsigned mask = 0, supported = 0;
  const std::uint64_t scope = scope_of_plain_tangents(inputs);
  bool dual = scope != 0;
  for (std::size_t i = 0; scope != 0 && i < inputs.size(); ++i) {
    if (!(function.differentiable >> i & 1u)) continue;
    const Tangent* tangent = inputs[i]->header()->tangents;
    while (tangent && tangent->scope != scope) tangent = tangent->next;
    if (!tangent) continue;
    mask |= 1u << i;
    if (!tangent->support) continue;
    supported |= 1u << i;
    dual = dual && function.keeps_zero(static_cast<int>(i), plain.scalar);
  }
  dual = dual && mask != 0 && function.kernel(mask);
  Tensor value = make_output(operands, same, shape);
  Tensor tangent;
  if (dual) tangent = make_like(*value.header());
  run(function, plain.scalar, operands, dual ? mask : 0, scope, value, dual ? &tangent : nullptr);
  Node* node = recorded ? record(rule, function, recorded, attributes, inputs, value) : nullptr;
  Tensor* const out = &value;
  if (dual) {
    SupportPointer support;
    if (function.selects || supported) [[unlikely]]
      support = dual_support(attributes, inputs, value, mask, supported, scope);
    attach_tangent(value, scope, std::move(tangent), std::move(support));
  } else if (scope == 0 || mask != 0) {
    push_tangents(rule, &attributes, inputs, {&out, 1}, {});
  }
  if (node) save_outputs(*node, {&out, 1});
  return value;
}

template <class Attributes>
Tensor apply_linked(const OpRule& rule, const Attributes& attributes, std::span<const Operand> operands,
                    const Participation& part, bool same, const Shape& shape) {
  if (part.tangents) return apply_with_tangents(rule, attributes, operands, part.recorded, same, shape);
  const ElementwiseAttributes& plain = plain_part(attributes);
  const ElementwiseFunction& function = *plain.function;
  std::array<const Tensor*, max_arguments> in{};
  for (std::size_t i = 0; i < operands.size(); ++i) in[i] = &*operands[i];
  const std::span<const Tensor* const> inputs(in.data(), operands.size());
  const Saves saves = function.saves(part.recorded);
  const int donor = saves.outputs ? -1 : find_donor(operands, saves.inputs, same, shape);
  Tensor value;
  if (donor < 0) {
    value = make_output(operands, same, shape);
    run(function, plain.scalar, operands, 0, 0, value, nullptr);
  } else {
    // make_node sees input and output in one header, and hands the old node from one to the other.
    const Operand& operand = operands[static_cast<std::size_t>(donor)];
    run(function, plain.scalar, operands, 0, 0, *operand, nullptr);
    value = operand.take();
    in[static_cast<std::size_t>(donor)] = &value;
  }
  if (!part.recorded) {
    drop_links(value);
    return value;
  }
  Node* node = record(rule, function, part.recorded, attributes, inputs, value);
  Tensor* const out = &value;
  save_outputs(*node, {&out, 1});
  return value;
}

// Inlined where nothing is watched, since a call is 4 % of an operation on 16 elements.
[[gnu::always_inline]] inline Tensor apply(const ElementwiseFunction& function, double scalar,
                                           std::span<const Operand> operands, Tensor* sum) {
  const Participation part = participation_of(function, operands);
  const bool same = check_operands(function, operands);
  const Shape shape = same ? Shape() : broadcast_shape(function, operands);
  if (!part.any) {
    if (sum && takes_sum(*sum, *operands[0]->header(), same, shape)) {
      run(function, scalar, operands, 0, 0, *sum, nullptr, true);
      drop_links(*sum);
      return std::move(*sum);
    }
    const int donor = find_donor(operands, 0, same, shape);
    if (donor >= 0) {
      const Operand& operand = operands[static_cast<std::size_t>(donor)];
      run(function, scalar, operands, 0, 0, *operand, nullptr);
      Tensor value = operand.take();
      drop_links(value);
      return value;
    }
    Tensor value = make_output(operands, same, shape);
    run(function, scalar, operands, 0, 0, value, nullptr);
    return value;
  }
  if (same)
    return apply_linked(elementwise_rule, ElementwiseAttributes{&function, scalar}, operands, part, true,
                        shape);
  BroadcastAttributes attributes;
  attributes.plain = {&function, scalar};
  for (std::size_t i = 0; i < operands.size(); ++i) attributes.shapes[i] = operands[i]->shape();
  return apply_linked(broadcast_rule, attributes, operands, part, false, shape);
}

// With operands looked at before they may be written over.
[[gnu::cold]] Tensor apply_watched(const ElementwiseFunction& function, double scalar,
                                   std::span<const Operand> operands, Tensor* sum) {
  std::array<const Tensor*, max_arguments + 1> in{};
  for (std::size_t i = 0; i < operands.size(); ++i) in[i] = &*operands[i];
  in[operands.size()] = sum;
  const SeenOperands before = look_at(std::span<const Tensor* const>(in).first(operands.size() + 1));
  Tensor value = apply(function, scalar, operands, sum);
  Tensor* const out = &value;
  watch_result(function.name, before, {&out, 1});
  return value;
}

}  // namespace

Tensor apply_elementwise(const ElementwiseFunction& function, double scalar,
                         std::span<const Operand> operands, Tensor* sum) {
  if (is_watched()) [[unlikely]]
    return apply_watched(function, scalar, operands, sum);
  return apply(function, scalar, operands, sum);
}

}  // namespace hypertape::detail
