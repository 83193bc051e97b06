#include "walk.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <queue>
#include <unordered_map>

#include "hypertape/autodiff/ops.h"

namespace hypertape::detail {
namespace {

struct LeafAttributes {
  std::uint64_t scope;
  std::size_t index;
};

// To outer scopes a leaf is the identity.
constexpr OpRule leaf_rule = {"leaf", [](Pull& pull) { pull.gradients[0] = std::move(pull.cotangents[0]); },
                              [](Push& push) { push.results[0] = push.tangents[0]; }};

const LeafAttributes* leaf_of(Node& node, std::uint64_t scope) noexcept {
  if (node.rule != &leaf_rule) return nullptr;
  const auto* leaf = static_cast<const LeafAttributes*>(node.attributes());
  return leaf->scope == scope ? leaf : nullptr;
}

void accumulate(Tensor& sum, Tensor&& term) {
  if (!term.defined()) return;
  sum = sum.defined() ? add(std::move(sum), std::move(term)) : std::move(term);
}

// Cotangents that wait for their node: an open-addressing table, since every operation enters and leaves it
// once.
class PendingTable {
 public:
  struct Entry {
    Node* node = nullptr;  // owned
    Tensor first;
    std::unique_ptr<Tensor[]> rest;  // outputs 1.. of nodes with several
    Tensor& cotangent(std::uint32_t output) { return output == 0 ? first : rest[output - 1]; }
  };

  PendingTable() : slots_(64) {}
  ~PendingTable() {
    for (Entry& entry : slots_)
      if (entry.node) release(static_cast<TapeRecord*>(entry.node));
  }
  PendingTable(const PendingTable&) = delete;
  PendingTable& operator=(const PendingTable&) = delete;

  /// The node's entry; `fresh` tells whether it was made now.
  Entry& at(Node* node, bool& fresh) {
    if (2 * (size_ + 1) > slots_.size()) grow();
    std::size_t i = place(node);
    while (slots_[i].node && slots_[i].node != node) i = (i + 1) & (slots_.size() - 1);
    fresh = !slots_[i].node;
    if (fresh) {
      retain(static_cast<TapeRecord*>(node));
      slots_[i].node = node;
      if (node->output_count > 1) slots_[i].rest = std::make_unique<Tensor[]>(node->output_count - 1);
      ++size_;
    }
    return slots_[i];
  }

  /// The node's entry, or null.
  Entry* find(Node* node) {
    std::size_t i = place(node);
    while (slots_[i].node && slots_[i].node != node) i = (i + 1) & (slots_.size() - 1);
    return slots_[i].node ? &slots_[i] : nullptr;
  }

  Entry take(Node* node) {
    const std::size_t mask = slots_.size() - 1;
    std::size_t i = place(node);
    while (slots_[i].node != node) i = (i + 1) & mask;
    Entry entry = std::exchange(slots_[i], Entry{});
    --size_;
    // Close the gap, or entries that had moved past it could not be found again.
    for (std::size_t j = (i + 1) & mask; slots_[j].node; j = (j + 1) & mask) {
      const std::size_t home = place(slots_[j].node);
      if (((j - home) & mask) >= ((j - i) & mask)) {
        slots_[i] = std::exchange(slots_[j], Entry{});
        i = j;
      }
    }
    return entry;
  }

 private:
  std::size_t place(const Node* node) const noexcept {
    return (reinterpret_cast<std::uintptr_t>(node) * 0x9E3779B97F4A7C15u >> 32) & (slots_.size() - 1);
  }
  void grow() {
    std::vector<Entry> old(2 * slots_.size());
    old.swap(slots_);
    for (Entry& entry : old) {
      if (!entry.node) continue;
      std::size_t i = place(entry.node);
      while (slots_[i].node) i = (i + 1) & (slots_.size() - 1);
      slots_[i] = std::move(entry);
    }
  }

  std::vector<Entry> slots_;
  std::size_t size_ = 0;
};

struct Queued {
  std::uint64_t number;
  Node* node;
  bool operator<(const Queued& other) const noexcept { return number < other.number; }
};

struct NodeReference {
  Node* node;
  ~NodeReference() { release(static_cast<TapeRecord*>(node)); }
};

// A rule that throws leaves a node whose saved tensors are gone: it must say so to whoever comes next.
struct ConsumeOnError {
  Node* node;
  int exceptions;
  ~ConsumeOnError() {
    if (node && std::uncaught_exceptions() > exceptions) node->consume();
  }
};

class Walk {
 public:
  Walk(ScopeRange scope, bool consume, TensorList& leaves)
      : scope_(scope), consume_(consume), leaves_(leaves) {}

  void add_cotangent(Node* node, std::uint32_t output, Tensor&& cotangent) {
    pass_leaves(node, output);
    if (!node || !node->may_serve(scope_.low) || !cotangent.defined()) return;
    if (const LeafAttributes* leaf = leaf_of(*node, scope_.low)) {
      accumulate(leaves_[leaf->index], std::move(cotangent));
      return;
    }
    bool fresh = false;
    PendingTable::Entry& entry = pending_.at(node, fresh);
    if (fresh) queue_.push({node->number, node});
    accumulate(entry.cotangent(output), std::move(cotangent));
  }

  Tensor take_sum(const Edge& edge) {
    Node* node = edge.node;
    std::uint32_t output = edge.output;
    pass_leaves(node, output);
    if (!node || !node->may_serve(scope_.low)) return {};
    if (const LeafAttributes* leaf = leaf_of(*node, scope_.low)) return std::move(leaves_[leaf->index]);
    PendingTable::Entry* entry = pending_.find(node);
    return entry ? std::move(entry->cotangent(output)) : Tensor();
  }

  void run() {
    while (!queue_.empty()) {
      Node* node = queue_.top().node;
      queue_.pop();
      PendingTable::Entry entry = pending_.take(node);
      const NodeReference keep{node};
      step(*node, entry);
    }
  }

 private:
  // To this scope the leaf of another one is the identity: what arrives there is added to what has arrived
  // behind it, instead of being gathered first.
  void pass_leaves(Node*& node, std::uint32_t& output) const {
    while (node && node->rule == &leaf_rule && !node->consumed && !leaf_of(*node, scope_.low)) {
      const Edge& edge = node->edges()[0];
      output = edge.output;
      node = edge.node;
    }
  }

  void step(Node& node, PendingTable::Entry& entry) {
    constexpr std::size_t small = 6;
    std::array<Tensor, small> few_gradients;
    std::vector<Tensor> many_gradients, many_cotangents;
    Pull pull;
    pull.node = &node;
    pull.scope = scope_.low;
    pull.walk = this;
    if (node.output_count == 1) {
      pull.cotangents = {&entry.first, 1};
    } else {
      many_cotangents.resize(node.output_count);
      for (std::uint32_t k = 0; k < node.output_count; ++k)
        many_cotangents[k] = std::move(entry.cotangent(k));
      pull.cotangents = many_cotangents;
    }
    if (node.input_count > small) many_gradients.resize(node.input_count);
    pull.gradients = node.input_count > small ? std::span<Tensor>(many_gradients)
                                              : std::span<Tensor>(few_gradients).first(node.input_count);
    // A node that also serves an outer scope is still needed there.
    const bool consume = consume_ && node.min_scope >= scope_.low;
    {
      const ConsumeOnError guard{consume ? &node : nullptr, std::uncaught_exceptions()};
      const Unpacked saved(node, pull, consume);
      node.rule->pull(pull);
    }
    for (std::uint32_t i = 0; i < node.input_count; ++i) {
      const Edge& edge = node.edges()[i];
      add_cotangent(edge.node, edge.output, std::move(pull.gradients[i]));
    }
    if (consume) node.consume();
  }

  ScopeRange scope_;
  bool consume_;
  TensorList& leaves_;
  PendingTable pending_;
  std::priority_queue<Queued> queue_;
};

}  // namespace

Tensor Pull::take_sum(int input) const { return static_cast<Walk*>(walk)->take_sum(node->edges()[input]); }

Tensor make_leaf(const Tensor& tensor, std::uint64_t scope, std::size_t index) {
  if (!tensor.defined() || !is_floating(tensor.dtype())) return tensor;
  links_of(tensor);  // refuses a variable whose outer derivative would be lost
  Tensor leaf = make_alias(tensor);
  const Header& source = *tensor.header();
  for (const Tangent* t = source.tangents; t; t = t->next)
    if (is_active(t->scope)) attach_tangent(leaf, t->scope, t->value);
  const std::array<const Tensor*, 1> in{&tensor};
  const std::array<Tensor*, 1> out{&leaf};
  Node* node = make_node(leaf_rule, {}, sizeof(LeafAttributes), std::span<const Tensor* const>(in),
                         std::span<Tensor* const>(out));
  new (node->attributes()) LeafAttributes{scope, index};
  node->min_scope = std::min(node->min_scope, scope);
  node->max_scope = scope;
  return leaf;
}

TensorList pull_graph(Graph& graph, const TensorList& cotangents, bool consume, TensorList accumulated) {
  TensorList leaves = std::move(accumulated);
  leaves.resize(graph.inputs);
  const ScopeMask mask(graph.scope);
  Walk walk(graph.scope, consume, leaves);
  for (std::size_t k = 0; k < graph.outputs.size(); ++k) {
    if (!graph.outputs[k].defined()) continue;
    const Header& header = *graph.outputs[k].header();
    walk.add_cotangent(static_cast<Node*>(header.node), header.output, Tensor(cotangents[k]));
  }
  // From here on only the walk keeps a consumed graph alive, node by node.
  if (consume) graph.outputs.clear();
  walk.run();
  return leaves;
}

Replay::Replay(const Graph& graph) {
  std::unordered_map<Node*, std::uint32_t> position;
  std::vector<Node*> reached;
  const auto reach = [&](Node* node) {
    if (node && node->may_serve(graph.scope.low) && position.emplace(node, 0).second) reached.push_back(node);
  };
  for (const Tensor& output : graph.outputs)
    if (output.defined()) reach(static_cast<Node*>(output.header()->node));
  for (std::size_t next = 0; next < reached.size(); ++next) {
    if (leaf_of(*reached[next], graph.scope.low)) continue;
    for (std::uint32_t i = 0; i < reached[next]->input_count; ++i) reach(reached[next]->edges()[i].node);
  }
  std::sort(reached.begin(), reached.end(), [](Node* a, Node* b) { return a->number < b->number; });
  for (std::size_t i = 0; i < reached.size(); ++i) position[reached[i]] = static_cast<std::uint32_t>(i);
  const auto source_of = [&](Node* node, std::uint32_t output) -> Source {
    const auto found = node ? position.find(node) : position.end();
    if (found == position.end()) return {};
    return {found->second, output, true};
  };
  for (Node* node : reached) {
    const LeafAttributes* leaf = leaf_of(*node, graph.scope.low);
    steps_.push_back({node, static_cast<std::uint32_t>(sources_.size()),
                      leaf ? static_cast<std::int64_t>(leaf->index) : -1});
    if (leaf) continue;
    for (std::uint32_t i = 0; i < node->input_count; ++i)
      sources_.push_back(source_of(node->edges()[i].node, node->edges()[i].output));
  }
  for (const Tensor& output : graph.outputs)
    outputs_.push_back(output.defined()
                           ? source_of(static_cast<Node*>(output.header()->node), output.header()->output)
                           : Source{});
}

TensorList Replay::operator()(const Graph& graph, const TensorList& tangents) const {
  const ScopeMask mask(graph.scope);
  std::vector<TensorList> known(steps_.size());
  const auto tangent_of = [&](const Source& source) -> Tensor {
    return source.present && !known[source.step].empty() ? known[source.step][source.output] : Tensor();
  };
  for (std::size_t s = 0; s < steps_.size(); ++s) {
    Node& node = *steps_[s].node;
    if (steps_[s].leaf >= 0) {
      known[s] = {tangents[static_cast<std::size_t>(steps_[s].leaf)]};
      continue;
    }
    TensorList incoming(node.input_count);
    bool any = false;
    for (std::uint32_t i = 0; i < node.input_count; ++i) {
      incoming[i] = tangent_of(sources_[steps_[s].first_source + i]);
      any |= incoming[i].defined();
    }
    if (!any) continue;
    known[s].resize(node.output_count);
    Push push;
    const Unpacked saved(node, push, false);
    push.tangents = incoming;
    push.results = known[s];
    node.rule->push(push);
  }
  TensorList results;
  for (const Source& source : outputs_) results.push_back(tangent_of(source));
  return results;
}

}  // namespace hypertape::detail
