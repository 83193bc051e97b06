#include "autodiff/transforms/walk.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <queue>
#include <unordered_map>

#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/elementwise/function.h"
#include "autodiff/tape/anomaly.h"

namespace hypertape::detail {
namespace {

struct LeafAttributes {
  std::uint64_t scope;
  std::size_t index;
};

// To outer scopes a leaf is the identity.
constexpr OpRule leaf_rule =
    with_supports({"leaf", [](Pull& pull) { pull.gradients[0] = std::move(pull.cotangents[0]); },
                   [](Push& push) { push.results[0] = push.tangents[0]; }, nullptr, nullptr, true},
                  Supports::dropped, Supports::moved);

const LeafAttributes* leaf_of(Node& node, std::uint64_t scope) noexcept {
  if (node.rule != &leaf_rule) return nullptr;
  const auto* leaf = static_cast<const LeafAttributes*>(node.attributes());
  return leaf->scope == scope ? leaf : nullptr;
}

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
    while (node && node->rule == &leaf_rule && !leaf_of(*node, scope_.low)) {
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

Tensor make_leaf(const Tensor& tensor, std::uint64_t scope, std::size_t index) {
  if (!tensor.defined() || !is_floating(tensor.dtype())) return tensor;
  links_of(tensor);  // refuses a variable whose outer derivative would be lost
  Tensor leaf = make_alias(tensor);
  const Header& source = *tensor.header();
  for (const Tangent* t = source.tangents; t; t = t->next)
    if (is_active(t->scope)) attach_tangent(leaf, t->scope, t->value, t->support);
  const std::array<const Tensor*, 1> in{&tensor};
  const std::array<Tensor*, 1> out{&leaf};
  Node* node = make_node(leaf_rule, {}, sizeof(LeafAttributes), std::span<const Tensor* const>(in),
                         std::span<Tensor* const>(out));
  new (node->attributes()) LeafAttributes{scope, index};
  node->min_scope = std::min(node->min_scope, scope);
  node->max_scope = scope;
  return leaf;
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

namespace {
// Whether the rule's push may give a support where none is known of the tangents.
bool may_select(Node& node) noexcept {
  const Supports kind = node.rule->tangent_supports;
  return kind == Supports::selected || (kind == Supports::handled && !only_hands_supports_on(node));
}
}  // namespace

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
  for (Node* node : reached) {
    const LeafAttributes* leaf = leaf_of(*node, graph.scope.low);
    steps_.push_back({node, static_cast<std::uint32_t>(sources_.size()), places_,
                      leaf ? static_cast<std::int64_t>(leaf->index) : -1});
    places_ += node->output_count;
    if (leaf) continue;
    most_inputs_ = std::max(most_inputs_, node->input_count);
    selects_ = selects_ || may_select(*node);
    sources_.resize(sources_.size() + node->input_count);
  }
  const auto source_of = [&](Node* node, std::uint32_t output) -> Source {
    const auto found = node ? position.find(node) : position.end();
    return {found == position.end() ? nowhere : steps_[found->second].first_place + output, false};
  };
  for (const Step& step : steps_)
    for (std::uint32_t i = 0; step.leaf < 0 && i < step.node->input_count; ++i)
      sources_[step.first_source + i] = source_of(step.node->edges()[i].node, step.node->edges()[i].output);
  for (const Tensor& output : graph.outputs)
    outputs_.push_back(output.defined()
                           ? source_of(static_cast<Node*>(output.header()->node), output.header()->output)
                           : Source{});
  std::vector<bool> read(places_);
  const auto mark = [&](Source& source) {
    if (source.place == nowhere) return;
    source.last = !read[source.place];
    read[source.place] = true;
  };
  std::for_each(outputs_.rbegin(), outputs_.rend(), mark);
  std::for_each(sources_.rbegin(), sources_.rend(), mark);
  for (std::size_t i = 0; i + 1 < steps_.size(); ++i) {
    const Step& next = steps_[i + 1];
    if (steps_[i].leaf >= 0 || next.leaf >= 0 || !is_addition(*next.node)) continue;
    for (const std::uint32_t k : {0u, 1u}) {
      const Source &own = sources_[next.first_source + k], &other = sources_[next.first_source + 1 - k];
      if (own.place == steps_[i].first_place && own.last && other.last && other.place < own.place)
        steps_[i].sum = other.place;
    }
  }
}

namespace {

// One tangent after another, for rules that know no blocks.
void push_each(const OpRule& rule, const Push& push, std::int64_t block) {
  std::vector<TensorList> rows(push.tangents.size());
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (push.tangents[i].defined()) rows[i] = unstack(push.tangents[i], 0);
  std::vector<TensorList> results(push.results.size());
  for (std::size_t j = 0; j < static_cast<std::size_t>(block); ++j) {
    TensorList tangents(rows.size()), one(results.size());
    for (std::size_t i = 0; i < rows.size(); ++i)
      if (!rows[i].empty()) tangents[i] = std::move(rows[i][j]);
    Push single = push;
    single.block = 0;
    single.tangents = tangents;
    single.results = one;
    rule.push(single);
    for (std::size_t k = 0; k < one.size(); ++k)
      if (one[k].defined()) results[k].push_back(std::move(one[k]));
  }
  for (std::size_t k = 0; k < results.size(); ++k)
    if (!results[k].empty()) push.results[k] = stack(results[k], 0);
}

void run_push(const OpRule& rule, Push& push) {
  if (push.block == 0)
    rule.push(push);
  else if (rule.push_block)
    rule.push_block(push);
  else
    push_each(rule, push, push.block);
}

}  // namespace

template <bool selects>
TensorList Replay::run(const Graph& graph, const TensorList& tangents, std::int64_t block) const {
  const ScopeMask mask(graph.scope);
  TensorList known(places_), incoming(most_inputs_);
  std::vector<SupportPointer> supports(selects ? places_ : 0), arrived;
  const auto take = [&](const Source& source) -> Tensor {
    if (source.place == nowhere) return {};
    return source.last ? std::move(known[source.place]) : known[source.place];
  };
  for (const Step& step : steps_) {
    Node& node = *step.node;
    if (step.leaf >= 0) {
      known[step.first_place] = tangents[static_cast<std::size_t>(step.leaf)];
      continue;
    }
    bool any = false;
    if constexpr (selects) arrived.clear();
    for (std::uint32_t i = 0; i < node.input_count; ++i) {
      const Source& source = sources_[step.first_source + i];
      incoming[i] = take(source);
      any |= incoming[i].defined();
      if (!selects || source.place == nowhere || !supports[source.place]) continue;
      arrived.resize(node.input_count);
      arrived[i] = supports[source.place];
    }
    if (!any) continue;
    Push push;
    const Unpacked saved(node, push, false);
    push.tangents = std::span(incoming).first(node.input_count);
    push.results = std::span(known).subspan(step.first_place, node.output_count);
    push.block = block;
    if (step.sum != nowhere && (block == 0 || node.rule->push_block)) push.sum = &known[step.sum];
    if constexpr (!selects) {
      run_push(*node.rule, push);
      continue;
    }
    // Of a sum made in one pass nothing is known, while this step's term has a support.
    if (!arrived.empty() || may_select(node)) push.sum = nullptr;
    PushedSupports pushed;
    pushed.prepare(*node.rule, push, arrived, {node.saves, nullptr, &node});
    run_push(*node.rule, push);
    for (std::uint32_t k = 0; k < node.output_count; ++k) supports[step.first_place + k] = pushed.take(k);
  }
  TensorList results;
  for (const Source& source : outputs_) results.push_back(take(source));
  return results;
}

TensorList Replay::operator()(const Graph& graph, const TensorList& tangents, std::int64_t block) const {
  return selects_ ? run<true>(graph, tangents, block) : run<false>(graph, tangents, block);
}

}  // namespace hypertape::detail
