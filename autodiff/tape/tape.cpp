// Recording: scopes, nodes and tangents.
#include <pthread.h>

#include <atomic>
#include <mutex>
#include <vector>

#include "autodiff/tape/anomaly.h"
#include "autodiff/tape/node.h"
#include "autodiff/tape/support.h"
#include "core/threads/thread_tag.h"

namespace hypertape::detail {
namespace {

std::atomic<std::uint64_t> newest_scope{1};

// Reached on every recorded operation, so no constructor may stand in the way; and one word, since a library
// that is loaded by dlopen finds little room for what threads own.
constinit thread_local const ScopeMask* innermost_mask = nullptr;

constinit thread_local std::uint64_t last_number = 0;

// Ending a node may end those it refers to, a million deep: they queue here instead of recursing.
// Plain pointers: nodes may still end when this thread's other thread-local objects are gone.
struct Teardown {
  Node* waiting;
  bool running;
};
constinit thread_local Teardown teardown{};

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
    node->next_ended = std::exchange(teardown.waiting, node);
    return;
  }
  teardown.running = true;
  end_node(node);
  while (Node* next = teardown.waiting) {
    teardown.waiting = next->next_ended;
    end_node(next);
  }
  teardown.running = false;
}

}  // namespace

std::uint64_t open_scope() noexcept { return newest_scope.fetch_add(1, std::memory_order_relaxed); }
std::uint64_t scope_bound() noexcept { return newest_scope.load(std::memory_order_relaxed); }

namespace {
// Scopes of all threads: a function may spread its work. Touched only in derivatives of third order and
// above.
std::mutex tangent_scopes_mutex;
constinit TangentScope* tangent_scopes = nullptr;

void before_fork() { tangent_scopes_mutex.lock(); }
void after_fork() { tangent_scopes_mutex.unlock(); }
void after_fork_in_child() {
  TangentScope::keep_own();
  tangent_scopes_mutex.unlock();
}
[[maybe_unused]] const bool forks_prepared =
    pthread_atfork(before_fork, after_fork, after_fork_in_child) == 0;

void drop_tangent(Header& header, std::uint64_t scope) noexcept {
  for (Tangent** link = &header.tangents; *link; link = &(*link)->next) {
    if ((*link)->scope != scope) continue;
    Tangent* gone = std::exchange(*link, (*link)->next);
    gone->next = nullptr;
    free_tangents(gone);
    return;
  }
}
}  // namespace

TangentScope::TangentScope() : id_(open_scope()), thread_(thread_tag()) {
  const std::lock_guard lock(tangent_scopes_mutex);
  next_ = std::exchange(tangent_scopes, this);
}

TangentScope::~TangentScope() {
  {
    const std::lock_guard lock(tangent_scopes_mutex);
    TangentScope** link = &tangent_scopes;
    while (*link != this) link = &(*link)->next_;
    *link = next_;
  }
  for (Node* node : nodes_) {
    if (!node->consumed) {
      Saved* outputs = node->saved() + __builtin_popcount(node->saves.inputs);
      for (int k = 0; k < __builtin_popcount(node->saves.outputs); ++k)
        if (outputs[k].tensor.defined()) drop_tangent(*outputs[k].tensor.header(), id_);
    }
    release(static_cast<TapeRecord*>(node));
  }
}

void TangentScope::keep_own() noexcept {
  TangentScope** link = &tangent_scopes;
  while (*link != nullptr) {
    if ((*link)->thread_ == thread_tag())
      link = &(*link)->next_;
    else
      *link = (*link)->next_;
  }
}

void TangentScope::note(Node& node, std::uint64_t scope) {
  const std::lock_guard lock(tangent_scopes_mutex);
  for (TangentScope* open = tangent_scopes; open; open = open->next_) {
    if (open->id_ != scope) continue;
    open->nodes_.push_back(&node);
    retain(static_cast<TapeRecord*>(&node));
    return;
  }
}

ScopeMask::ScopeMask(ScopeRange range, const char* forbidden_in) noexcept
    : outer_(innermost_mask), range_(range), forbidden_in_(forbidden_in) {
  innermost_mask = this;
}
ScopeMask::~ScopeMask() { innermost_mask = outer_; }

bool is_active(std::uint64_t scope) noexcept {
  for (const ScopeMask* mask = innermost_mask; mask; mask = mask->outer_)
    if (mask->hides(scope)) return false;
  return true;
}

void require_not_forbidden(std::uint64_t scope) {
  const char* outermost = nullptr;
  for (const ScopeMask* mask = innermost_mask; mask; mask = mask->outer_)
    if (mask->forbidden_in_ && mask->hides(scope)) outermost = mask->forbidden_in_;
  if (outermost)
    fail(outermost,
         "its functions use a variable that is being differentiated but was not passed in; its derivative "
         "would be lost: pass it in (for hypergradients: as a hyperparameter), stop_gradient it, or use a "
         "recorded method (Unrolled)");
}

std::uint64_t newest_node_number() noexcept { return last_number; }

std::uint64_t active_scope_of(const Node& node) noexcept {
  if (is_active(node.min_scope)) return node.min_scope;
  return is_active(node.max_scope) ? node.max_scope : 0;
}

void Pull::drop_output(int k) const noexcept {
  // The walk's own handle (Unpacked), which is no constant.
  *const_cast<Tensor*>(outputs[static_cast<std::size_t>(k)]) = Tensor();
}

Shape stacked_shape(std::int64_t count, const Shape& shape) {
  if (shape.rank() == max_rank)
    fail("linearize", "a block of tangents needs an axis more than shape ", shape, " has, and ", max_rank,
         " is the most; apply the operator to one tangent at a time");
  std::vector<std::int64_t> extents{count};
  extents.insert(extents.end(), shape.begin(), shape.end());
  return Shape(std::span<const std::int64_t>(extents));
}

bool Pull::needs(int input) const noexcept {
  if (!node) return true;
  const Node* target = node->edges()[input].node;
  return target && target->may_serve(scope);
}

const SupportPointer& Pull::support(int output) const noexcept {
  static const SupportPointer unknown;
  return supports && !supports->cotangents.empty() ? supports->cotangents[static_cast<std::size_t>(output)]
                                                   : unknown;
}

void Pull::set_support(int input, SupportPointer support) {
  if (!supports) supports = std::make_unique<SupportLists>();
  if (supports->gradients.empty()) supports->gradients.resize(gradients.size());
  supports->gradients[static_cast<std::size_t>(input)] = std::move(support);
}

void end_supports(const Tensor& tensor) noexcept {
  if (!tensor.defined()) return;
  if (TapeRecord* node = tensor.header()->node) static_cast<Node*>(node)->border = true;
}

const Tensor Primal::absent;

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
    if (!active_scope_of(node)) continue;
    // The saved output carries no node, or node and tensor would keep each other alive.
    Tensor linked = alias_with_links(plain);
    retain(static_cast<TapeRecord*>(&node));
    linked.header()->node = &node;
    linked.header()->output = k;
    tensors_[slot - 1] = std::move(linked);
  }
}

Links links_of_linked(const Header& header) {
  Links links;
  if (header.node) {
    const Node& node = *static_cast<const Node*>(header.node);
    links.recorded = active_scope_of(node) != 0;
    if (node.rule == &read_watch_rule) note_read(node);
    if (!links.recorded) require_not_forbidden(node.min_scope);
  }
  for (const Tangent* t = header.tangents; t; t = t->next) {
    const bool active = is_active(t->scope);
    if (!active) require_not_forbidden(t->scope);
    links.tangents |= active;
  }
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
    const std::uint64_t lowest = producer ? active_scope_of(*producer) : 0;
    if (lowest == 0) continue;
    // An operand that became the output hands its reference over.
    if (outputs.size() == 1 && outputs[0]->header() == &header)
      outputs[0]->header()->node = nullptr;
    else
      retain(header.node);
    edge->node = producer;
    edge->output = header.output;
    number = std::max(number, producer->number);
    node->min_scope = std::min(node->min_scope, lowest);
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
      // Only a backward pass inside the tangent's scope can ask for it.
      if (t->scope > node.max_scope) continue;
      *end = copy_tangent(t->scope, t->value, t->support);
      end = &(*end)->next;
      if (node.min_scope < t->scope) TangentScope::note(node, t->scope);
    }
    slot->version = alias.header()->storage->version.load(std::memory_order_relaxed);
    (slot++)->tensor = std::move(alias);
  }
}

std::uint64_t scope_of_plain_tangents(std::span<const Tensor* const> operands) noexcept {
  std::uint64_t scope = 0;
  for (const Tensor* operand : operands)
    for (const Tangent* t = operand->header()->tangents; t; t = t->next) {
      if (!is_active(t->scope)) continue;
      const Header& tangent = *t->value.header();
      if ((scope != 0 && t->scope != scope) || tangent.tangents || tangent.node) return 0;
      scope = t->scope;
    }
  for (const Tensor* operand : operands) {
    const auto* node = static_cast<const Node*>(operand->header()->node);
    const std::uint64_t serves = node ? active_scope_of(*node) : 0;
    if (serves != 0 && serves < scope) return 0;
  }
  return scope;
}

const Tensor* find_tangent(const Header& header, std::uint64_t scope) noexcept {
  for (const Tangent* t = header.tangents; t; t = t->next)
    if (t->scope == scope) return &t->value;
  return nullptr;
}

SupportPointer find_support(const Header& header, std::uint64_t scope) noexcept {
  for (const Tangent* t = header.tangents; t; t = t->next)
    if (t->scope == scope) return t->support;
  return nullptr;
}

void attach_tangent(Tensor& tensor, std::uint64_t scope, Tensor tangent, SupportPointer support) {
  Tangent** end = &tensor.header()->tangents;
  while (*end) end = &(*end)->next;
  *end = copy_tangent(scope, std::move(tangent), std::move(support));
}

Tensor alias_with_links(const Tensor& tensor) {
  Tensor alias = make_alias(tensor);
  const Header& source = *tensor.header();
  for (const Tangent* t = source.tangents; t; t = t->next)
    if (is_active(t->scope)) attach_tangent(alias, t->scope, t->value, t->support);
  if (source.node && active_scope_of(*static_cast<const Node*>(source.node))) {
    retain(source.node);
    alias.header()->node = source.node;
    alias.header()->output = source.output;
  }
  return alias;
}

void push_tangents(const OpRule& rule, const void* attributes, std::span<const Tensor* const> inputs,
                   std::span<Tensor* const> outputs, Kept kept) {
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
    std::vector<SupportPointer> supports;
    PushedSupports pushed;
    Push push;
    push.attribute_bytes = attributes;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (i < Primal::max_saved) push.inputs[i] = inputs[i];
      if (!inputs[i]->defined()) continue;
      for (const Tangent* t = inputs[i]->header()->tangents; t; t = t->next) {
        if (t->scope != scope) continue;
        tangents[i] = t->value;
        if (!t->support) continue;
        supports.resize(inputs.size());
        supports[i] = t->support;
      }
    }
    // Aliases of outputs that outer scopes record: their record of the tangent saves what the rule
    // sees, and the output itself is about to carry that tangent.
    std::array<Tensor, 2> seen;
    for (std::size_t k = 0; k < outputs.size() && k < seen.size(); ++k) {
      push.outputs[k] = outputs[k];
      const auto* node = static_cast<const Node*>(outputs[k]->header()->node);
      if (node && node->min_scope < scope) push.outputs[k] = &(seen[k] = alias_with_links(*outputs[k]));
    }
    push.tangents = tangents;
    push.results = results;
    {
      const ScopeMask mask({scope, scope_bound()});
      pushed.prepare(rule, push, supports, kept);
      if (is_watched()) [[unlikely]]
        push_watched(rule.name_from ? rule.name_from(attributes) : rule.name, rule, push);
      else
        rule.push(push);
    }
    for (std::size_t k = 0; k < outputs.size(); ++k)
      if (results[k].defined()) attach_tangent(*outputs[k], scope, std::move(results[k]), pushed.take(k));
  }
}

}  // namespace hypertape::detail
