// Applying an elementwise function: memory for the result, plain or dual kernel, node and tangents.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"
#include "autodiff/ops/elementwise/rules.h"
#include "autodiff/tape/anomaly.h"
#include "autodiff/tape/support.h"

namespace hypertape::detail {
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
