// Recording: scopes, nodes and tangents.
#include <atomic>
#include <vector>

#include "node.h"

namespace hypertape::detail {
namespace {

std::atomic<std::uint64_t> newest_scope{1};

// A plain stack: reached on every recorded operation, so no constructor may stand in the way.
constexpr int max_nesting = 64;
struct MaskStack {
  ScopeRange ranges[max_nesting];
  int depth;
};
constinit thread_local MaskStack masks{};

constinit thread_local std::uint64_t last_number = 0;

// Ending a node may end those it refers to, a million deep: they queue here instead of recursing.
struct Teardown {
  std::vector<Node*> waiting;
  bool running = false;
};
thread_local Teardown teardown;

constexpr std::size_t aligned(std::size_t bytes) { return (bytes + 15) & ~std::size_t{15}; }

void end_node(Node* node) noexcept {
  node->consume();
  if (node->rule->destroy_attributes) node->rule->destroy_attributes(node->attributes());
  node->~Node();
  release_bytes(node);
}

void destroy_node(TapeRecord* record) noexcept {
  Node* node = static_cast<Node*>(record);
  if (teardown.running) {
    teardown.waiting.push_back(node);
    return;
  }
  teardown.running = true;
  end_node(node);
  while (!teardown.waiting.empty()) {
    Node* next = teardown.waiting.back();
    teardown.waiting.pop_back();
    end_node(next);
  }
  teardown.running = false;
}

}  // namespace

std::uint64_t open_scope() noexcept { return newest_scope.fetch_add(1, std::memory_order_relaxed); }
std::uint64_t scope_bound() noexcept { return newest_scope.load(std::memory_order_relaxed); }

ScopeMask::ScopeMask(ScopeRange range) {
  if (masks.depth == max_nesting) fail("derivative", "nested deeper than ", max_nesting, " levels");
  masks.ranges[masks.depth++] = range;
}
ScopeMask::~ScopeMask() { --masks.depth; }

bool is_active(std::uint64_t scope) noexcept {
  for (int i = 0; i < masks.depth; ++i)
    if (scope >= masks.ranges[i].low && scope < masks.ranges[i].high) return false;
  return true;
}

bool Pull::needs(int input) const noexcept {
  const Node* target = node->edges()[input].node;
  return target && target->max_scope >= scope;
}

Node::Node(const OpRule& op, std::uint32_t inputs, std::uint32_t outputs, Saves keep)
    : TapeRecord(destroy_node), rule(&op), input_count(inputs), output_count(outputs), saves(keep) {}

void Node::consume() noexcept {
  if (consumed) return;
  consumed = true;
  for (std::uint32_t i = 0; i < saved_count(); ++i) saved()[i].~Saved();
  for (std::uint32_t i = 0; i < input_count; ++i)
    if (Node* target = std::exchange(edges()[i].node, nullptr)) release(static_cast<TapeRecord*>(target));
}

Unpacked::Unpacked(Node& node, Primal& view, bool take) {
  if (node.consumed)
    fail(node.name(),
         "its derivative was already taken and its saved tensors are gone; use vjp or linearize "
         "for a pullback that may be called again");
  view.attribute_bytes = node.attributes();
  std::size_t slot = 0;
  const auto unpack = [&](Saved& saved) -> const Tensor& {
    const Storage& storage = *saved.tensor.header()->storage;
    if (storage.version.load(std::memory_order_relaxed) != saved.version)
      fail(node.name(), "a tensor of shape ", saved.tensor.shape(),
           " that its derivative needs was overwritten by assign() after it was used; assign before, or to a "
           "copy");
    Tensor& held = tensors_[slot++];
    held = take ? std::move(saved.tensor) : saved.tensor;
    return held;
  };
  Saved* next = node.saved();
  for (std::uint32_t i = 0; i < Primal::max_saved; ++i)
    if (node.saves.inputs >> i & 1u) view.inputs[i] = &unpack(*next++);
  for (std::uint32_t k = 0; k < 2; ++k) {
    if (!(node.saves.outputs >> k & 1u)) continue;
    const Tensor& plain = unpack(*next++);
    view.outputs[k] = &plain;
    if (!is_active(node.min_scope)) continue;
    // The saved output carries no node, or node and tensor would keep each other alive.
    Tensor linked = alias_with_links(plain);
    retain(static_cast<TapeRecord*>(&node));
    linked.header()->node = &node;
    linked.header()->output = k;
    tensors_[slot - 1] = std::move(linked);
  }
}

Links links_of_linked(const Header& header) noexcept {
  Links links;
  links.recorded = header.node && is_active(static_cast<const Node*>(header.node)->min_scope);
  for (const Tangent* t = header.tangents; t; t = t->next) links.tangents |= is_active(t->scope);
  return links;
}

Node* make_node(const OpRule& rule, Saves saves, std::size_t attribute_bytes,
                std::span<const Tensor* const> inputs, std::span<Tensor* const> outputs) {
  const auto saved_count =
      static_cast<std::size_t>(__builtin_popcount(saves.inputs) + __builtin_popcount(saves.outputs));
  const std::size_t fixed =
      aligned(sizeof(Node) + inputs.size() * sizeof(Edge) + saved_count * sizeof(Saved));
  Node* node = new (allocate_bytes(fixed + attribute_bytes)) Node(
      rule, static_cast<std::uint32_t>(inputs.size()), static_cast<std::uint32_t>(outputs.size()), saves);
  node->attribute_offset = static_cast<std::uint32_t>(fixed);
  node->min_scope = ~std::uint64_t{0};
  std::uint64_t number = last_number;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    Edge* edge = new (node->edges() + i) Edge;
    if (!inputs[i]->defined()) continue;
    const Header& header = *inputs[i]->header();
    Node* producer = static_cast<Node*>(header.node);
    if (!producer || !is_active(producer->min_scope)) continue;
    // An operand that became the output hands its reference over.
    if (outputs.size() == 1 && outputs[0]->header() == &header)
      outputs[0]->header()->node = nullptr;
    else
      retain(header.node);
    edge->node = producer;
    edge->output = header.output;
    number = std::max(number, producer->number);
    node->min_scope = std::min(node->min_scope, producer->min_scope);
    node->max_scope = std::max(node->max_scope, producer->max_scope);
  }
  node->number = last_number = number + 1;
  Saved* slot = node->saved();
  const auto save = [&](const Tensor& tensor) {
    new (slot++) Saved{tensor, tensor.header()->storage->version.load(std::memory_order_relaxed)};
  };
  for (std::size_t i = 0; i < inputs.size() && i < Primal::max_saved; ++i)
    if (saves.inputs >> i & 1u) save(*inputs[i]);
  for (std::size_t k = 0; k < 2; ++k)
    if (saves.outputs >> k & 1u) new (slot++) Saved{Tensor(), 0};
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    Header& header = *outputs[k]->header();
    if (k > 0) retain(static_cast<TapeRecord*>(node));
    if (header.node) release(header.node);  // of a scope that is not active
    header.node = node;
    header.output = static_cast<std::uint32_t>(k);
  }
  return node;
}

void save_outputs(Node& node, std::span<Tensor* const> outputs) {
  Saved* slot = node.saved() + __builtin_popcount(node.saves.inputs);
  for (std::size_t k = 0; k < outputs.size() && k < 2; ++k) {
    if (!(node.saves.outputs >> k & 1u)) continue;
    Tensor alias = make_alias(*outputs[k]);
    Tangent** end = &alias.header()->tangents;
    for (const Tangent* t = outputs[k]->header()->tangents; t; t = t->next) {
      *end = copy_tangent(t->scope, t->value, nullptr);
      end = &(*end)->next;
    }
    slot->version = alias.header()->storage->version.load(std::memory_order_relaxed);
    (slot++)->tensor = std::move(alias);
  }
}

const Tensor* find_tangent(const Header& header, std::uint64_t scope) noexcept {
  for (const Tangent* t = header.tangents; t; t = t->next)
    if (t->scope == scope) return &t->value;
  return nullptr;
}

void attach_tangent(Tensor& tensor, std::uint64_t scope, Tensor tangent) {
  Tangent** end = &tensor.header()->tangents;
  while (*end) end = &(*end)->next;
  *end = copy_tangent(scope, std::move(tangent), nullptr);
}

Tensor alias_with_links(const Tensor& tensor) {
  Tensor alias = make_alias(tensor);
  const Header& source = *tensor.header();
  for (const Tangent* t = source.tangents; t; t = t->next)
    if (is_active(t->scope)) attach_tangent(alias, t->scope, t->value);
  if (source.node && is_active(static_cast<const Node*>(source.node)->min_scope)) {
    retain(source.node);
    alias.header()->node = source.node;
    alias.header()->output = source.output;
  }
  return alias;
}

void push_tangents(const OpRule& rule, const void* attributes, std::span<const Tensor* const> inputs,
                   std::span<Tensor* const> outputs) {
  std::uint64_t scope = 0;
  for (;;) {
    // The next scope above the last one handled: an outer tangent is complete before an inner one, whose rule
    // may need it.
    std::uint64_t next = ~std::uint64_t{0};
    for (const Tensor* input : inputs) {
      if (!input->defined()) continue;
      for (const Tangent* t = input->header()->tangents; t; t = t->next)
        if (t->scope > scope && t->scope < next && is_active(t->scope)) next = t->scope;
    }
    if (next == ~std::uint64_t{0}) return;
    scope = next;
    std::vector<Tensor> tangents(inputs.size()), results(outputs.size());
    Push push;
    push.attribute_bytes = attributes;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (i < Primal::max_saved) push.inputs[i] = inputs[i];
      if (!inputs[i]->defined()) continue;
      if (const Tensor* tangent = find_tangent(*inputs[i]->header(), scope)) tangents[i] = *tangent;
    }
    for (std::size_t k = 0; k < outputs.size() && k < 2; ++k) push.outputs[k] = outputs[k];
    push.tangents = tangents;
    push.results = results;
    {
      const ScopeMask mask({scope, scope_bound()});
      rule.push(push);
    }
    for (std::size_t k = 0; k < outputs.size(); ++k)
      if (results[k].defined()) attach_tangent(*outputs[k], scope, std::move(results[k]));
  }
}

}  // namespace hypertape::detail
