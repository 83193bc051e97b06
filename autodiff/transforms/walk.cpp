#include "autodiff/transforms/walk.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <queue>
#include <unordered_map>

#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/elementwise/function.h"
#include "autodiff/tape/anomaly.h"
#include "autodiff/transforms/leaf.h"

namespace hypertape::detail {
namespace {

void accumulate(Tensor& sum, Tensor&& term) {
  if (!term.defined()) return;
  sum = sum.defined() ? add(std::move(sum), std::move(term)) : std::move(term);
}

// The support of what has arrived at one place.
class ArrivedSupport {
 public:
  /// `support`, or the one it points to, may be null: nothing is known of what arrives.
  void add(SupportPointer* support) {
    if (!support || !*support) whole_ = true;
    if (whole_)
      parts_.clear();
    else
      parts_.push_back(std::move(*support));
  }
  bool empty() const noexcept { return !whole_ && parts_.empty(); }
  /// Null if nothing is known.
  SupportPointer take() { return whole_ ? nullptr : joined_support(std::move(parts_)); }

 private:
  std::vector<SupportPointer> parts_;
  bool whole_ = false;
};

// Cotangents that wait for their node: an open-addressing table, since every operation enters and leaves it
// once.
class PendingTable {
 public:
  struct Entry {
    Node* node = nullptr;  // owned
    Tensor first;
    struct Rare {
      std::vector<Tensor> rest;        // outputs 1.. of nodes with several
      std::unique_ptr<Joined> joined;  // for nodes made by unflatten, once a product asks
      // Of all outputs, once one is known; nothing is known of cotangents that arrived before.
      std::vector<ArrivedSupport> supports;
    };
    std::unique_ptr<Rare> rare;
    Rare& need_rare() {
      if (!rare) rare = std::make_unique<Rare>();
      return *rare;
    }
    Tensor& cotangent(std::uint32_t output) { return output == 0 ? first : rare->rest[output - 1]; }
    bool knows_supports() const noexcept { return rare && !rare->supports.empty(); }
    /// Before the cotangent itself arrives.
    void note(std::uint32_t output, SupportPointer* support) {
      need_rare().supports.resize(node->output_count);
      settle(output);
      rare->supports[output].add(support);
    }
    /// What has arrived without a word about its support.
    void settle(std::uint32_t output) {
      ArrivedSupport& arrived = rare->supports[output];
      if (arrived.empty() && cotangent(output).defined()) arrived.add(nullptr);
    }
    SupportPointer take_support(std::uint32_t output) {
      settle(output);
      return rare->supports[output].take();
    }
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
      if (node->output_count > 1) slots_[i].need_rare().rest.resize(node->output_count - 1);
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
  Walk(ScopeRange scope, bool consume, TensorList& leaves, WantedTangents wanted, WalkSupports* supports)
      : scope_(scope), consume_(consume), leaves_(leaves), wanted_(std::move(wanted)) {
    if (supports) leaf_supports_.resize(leaves.size());
  }

  /// `is_tangent`: of a cotangent of which only the tangent is wanted.
  void add_cotangent(Node* node, std::uint32_t output, Tensor&& cotangent, bool is_tangent = false,
                     SupportPointer* support = nullptr) {
    if (pass_leaves(node, output)) support = nullptr;
    if (!node || !node->may_serve(scope_.low) || !cotangent.defined()) return;
    if (!tangent_alone(*node)) {
      add(node, output, std::move(cotangent), support);
      return;
    }
    if (!is_tangent) {
      const Tensor* tangent = find_tangent(*cotangent.header(), wanted_.scope);
      if (!tangent) return;
      cotangent = Tensor(*tangent);
    }
    add(node, output, std::move(cotangent), support);
  }

  /// Whether anybody may ask for the support of what goes along this edge.
  bool wants_support(const Edge& edge, int moves = most_moves) const {
    Node* node = edge.node;
    std::uint32_t output = edge.output;
    if (pass_leaves(node, output) || !node || !node->may_serve(scope_.low)) return false;
    if (leaf_of(*node, scope_.low)) return !leaf_supports_.empty();
    const Supports kind = node->rule->supports;
    if (kind == Supports::dropped) return false;
    if (node->consumed || moves == 0 || (kind == Supports::handled && !only_passes_supports(*node)))
      return true;
    for (std::uint32_t i = 0; i < node->input_count; ++i)
      if (wants_support(node->edges()[i], i == 0 ? moves - 1 : 0)) return true;
    return false;
  }

  std::vector<SupportPointer> leaf_supports() {
    std::vector<SupportPointer> all;
    for (ArrivedSupport& each : leaf_supports_) all.push_back(each.take());
    return all;
  }

  /// The scope of the tangent if nothing else is wanted of the node's cotangents, else 0: of a leaf's, and of
  /// those that only move to such a leaf.
  std::uint64_t tangent_alone(Node& node) const {
    if (wanted_.scope == 0) return 0;
    Node* next = &node;
    for (int moves = 0; moves < most_moves; ++moves) {
      if (const LeafAttributes* leaf = leaf_of(*next, scope_.low))
        return wanted_.alone[leaf->index] ? wanted_.scope : 0;
      if (!next->rule->moves_cotangents || next->consumed) return 0;
      next = next->edges()[0].node;
      if (!next || !next->may_serve(scope_.low)) return 0;
    }
    return 0;
  }

  Tensor take_sum(const Edge& edge, bool& whole) {
    Node* node = edge.node;
    std::uint32_t output = edge.output;
    pass_leaves(node, output);
    if (!node || !node->may_serve(scope_.low)) return {};
    Tensor sum = take(node, output, whole);
    if (!sum.defined() || !tangent_alone(*node)) return sum;
    // The rule goes on with a gradient that nobody reads, for the tangent's sake.
    Tensor unread = make_alias(sum);
    attach_tangent(unread, wanted_.scope, std::move(sum));
    return unread;
  }

  Tensor destination(const Edge& edge, Dtype dtype) {
    constexpr std::uint32_t most = 64;  // bits of Joined::given
    Node* node = edge.node;
    std::uint32_t output = edge.output;
    pass_leaves(node, output);
    if (!node || !node->may_serve(scope_.low)) return {};
    if (output >= most) return {};
    const Piece piece = piece_of(*node, output);
    if (!piece.shape) return {};
    bool fresh = false;
    PendingTable::Entry& entry = pending_.at(node, fresh);
    if (fresh) queue_.push({node->number, node});
    if (entry.cotangent(output).defined()) return {};
    std::unique_ptr<Joined>& joined = entry.need_rare().joined;
    if (!joined) {
      joined = std::make_unique<Joined>();
      joined->vector = make_tensor(Shape{piece.total}, dtype);
    }
    const std::uint64_t bit = std::uint64_t{1} << output;
    if (joined->given & bit) return {};
    joined->given |= bit;
    return make_view(joined->vector, *piece.shape, nullptr, piece.offset);
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
  // Each question costs its moves: a leaf is reached by a reshape or two, or else counts as not reached.
  static constexpr int most_moves = 6;

  void add(Node* node, std::uint32_t output, Tensor&& cotangent, SupportPointer* support) {
    if (const LeafAttributes* leaf = leaf_of(*node, scope_.low)) {
      if (!leaf_supports_.empty()) leaf_supports_[leaf->index].add(support);
      accumulate(leaves_[leaf->index], std::move(cotangent));
      return;
    }
    bool fresh = false;
    PendingTable::Entry& entry = pending_.at(node, fresh);
    if (fresh) queue_.push({node->number, node});
    if ((support && *support) || entry.knows_supports()) entry.note(output, support);
    accumulate(entry.cotangent(output), std::move(cotangent));
  }

  Tensor take(Node* node, std::uint32_t output, bool& whole) {
    if (const LeafAttributes* leaf = leaf_of(*node, scope_.low)) return std::move(leaves_[leaf->index]);
    PendingTable::Entry* entry = pending_.find(node);
    if (!entry) return {};
    if (entry->knows_supports())
      entry->settle(output);
    else
      whole = entry->cotangent(output).defined();
    return std::move(entry->cotangent(output));
  }

  // To this scope the leaf of another one is the identity: what arrives there is added to what has arrived
  // behind it, instead of being gathered first. Returns whether supports end on the way.
  bool pass_leaves(Node*& node, std::uint32_t& output) const {
    bool border = node && node->border;
    while (node && is_leaf(*node) && !leaf_of(*node, scope_.low)) {
      const Edge& edge = node->edges()[0];
      output = edge.output;
      node = edge.node;
      border |= node && node->border;
    }
    return border;
  }

  // The supports that came with the cotangents; none if all are unknown.
  static std::unique_ptr<Pull::SupportLists> take_supports(const Node& node, PendingTable::Entry& entry) {
    auto lists = std::make_unique<Pull::SupportLists>();
    bool known = false;
    for (std::uint32_t k = 0; k < node.output_count; ++k) {
      lists->cotangents.push_back(entry.take_support(k));
      known |= lists->cotangents.back() != nullptr;
    }
    return known ? std::move(lists) : nullptr;
  }

  // For a rule that moves supports: what they become, if anybody asks. Before the rule runs.
  void move_supports(Node& node, Pull& pull) const {
    std::shared_ptr<PulledSupport> all;
    for (std::uint32_t i = 0; i < node.input_count; ++i) {
      if (!wants_support(node.edges()[i])) continue;
      if (!all) all = std::make_shared<PulledSupport>(node, pull);
      pull.set_support(static_cast<int>(i), PulledSupport::of_input(all, static_cast<int>(i)));
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
    if (entry.rare) {
      pull.joined = entry.rare->joined.get();
      if (entry.knows_supports()) pull.supports = take_supports(node, entry);
    }
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
    // Then the cotangents are tangents, and what the rule makes of them is.
    const bool tangents = tangent_alone(node) != 0;
    {
      const ConsumeOnError guard{consume ? &node : nullptr, std::uncaught_exceptions()};
      const Unpacked saved(node, pull, consume);
      if (node.rule->supports == Supports::selected ||
          (node.rule->supports == Supports::moved && pull.supports))
        move_supports(node, pull);
      if (is_watched()) [[unlikely]]
        pull_watched(node, pull);
      else
        node.rule->pull(pull);
    }
    SupportPointer* const supports =
        pull.supports && !pull.supports->gradients.empty() ? pull.supports->gradients.data() : nullptr;
    for (std::uint32_t i = 0; i < node.input_count; ++i) {
      const Edge& edge = node.edges()[i];
      add_cotangent(edge.node, edge.output, std::move(pull.gradients[i]),
                    tangents || (i < 32 && (pull.tangents_given >> i & 1u)),
                    supports ? supports + i : nullptr);
    }
    if (consume) node.consume();
  }

  ScopeRange scope_;
  bool consume_;
  TensorList& leaves_;
  WantedTangents wanted_;
  std::vector<ArrivedSupport> leaf_supports_;  // empty: nobody asks
  PendingTable pending_;
  std::priority_queue<Queued> queue_;
};

}  // namespace

Tensor Pull::take_sum(int input, bool* whole) const {
  bool ignored = false;
  return static_cast<Walk*>(walk)->take_sum(node->edges()[input], whole ? *whole : ignored);
}

Tensor Pull::destination(int input, Dtype dtype) const {
  return static_cast<Walk*>(walk)->destination(node->edges()[input], dtype);
}

bool Pull::wants_support(int input) const noexcept {
  return static_cast<const Walk*>(walk)->wants_support(node->edges()[input]);
}

std::uint64_t Pull::tangent_alone(int input) const {
  return static_cast<const Walk*>(walk)->tangent_alone(*node->edges()[input].node);
}

TensorList pull_graph(Graph& graph, const TensorList& cotangents, bool consume, TensorList accumulated,
                      WantedTangents wanted, WalkSupports* supports) {
  TensorList leaves = std::move(accumulated);
  leaves.resize(graph.inputs);
  const ScopeMask mask(graph.scope);
  Walk walk(graph.scope, consume, leaves, std::move(wanted), supports);
  for (std::size_t k = 0; k < graph.outputs.size(); ++k) {
    if (!graph.outputs[k].defined()) continue;
    const Header& header = *graph.outputs[k].header();
    walk.add_cotangent(static_cast<Node*>(header.node), header.output, Tensor(cotangents[k]), false,
                       supports && !supports->cotangents.empty() ? &supports->cotangents[k] : nullptr);
  }
  // From here on only the walk keeps a consumed graph alive, node by node.
  if (consume) graph.outputs.clear();
  walk.run();
  if (supports) supports->gradients = walk.leaf_supports();
  return leaves;
}

}  // namespace hypertape::detail
