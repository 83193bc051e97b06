// The tape: nodes, scopes and the rules that operations bring.
//
// A derivative call opens a scope with a fresh, increasing id. An operation is recorded if an operand serves
// an active scope; while a scope's own pullback or tangent arithmetic runs, that scope and those opened
// inside it are masked, so that only outer scopes record. That single rule gives every composition of grad
// and jvp.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <hypertape/core/error.h>
#include <hypertape/core/tensor.h>
#include "core/tensor/header.h"

namespace hypertape::detail {

struct Node;
struct OpRule;

/// Scope ids in [low, high).
struct ScopeRange {
  std::uint64_t low = 0, high = 0;
};

/// A fresh id, above all before it.
std::uint64_t open_scope() noexcept;
/// One past the newest id.
std::uint64_t scope_bound() noexcept;

/// While alive, scopes in `range` neither record nor propagate on this thread.
class ScopeMask {
 public:
  /// With a name, the mask forbids: meeting an operand that serves a hidden scope is an Error of that
  /// operation, since its derivative would be lost in silence.
  explicit ScopeMask(ScopeRange range, const char* forbidden_in = nullptr) noexcept;
  ~ScopeMask();
  ScopeMask(const ScopeMask&) = delete;
  ScopeMask& operator=(const ScopeMask&) = delete;

 private:
  friend bool is_active(std::uint64_t scope) noexcept;
  friend void require_not_forbidden(std::uint64_t scope);
  bool hides(std::uint64_t scope) const noexcept { return scope >= range_.low && scope < range_.high; }

  const ScopeMask* outer_;
  ScopeRange range_;
  const char* forbidden_in_;
};

bool is_active(std::uint64_t scope) noexcept;
/// Throws if `scope` is hidden by a mask that forbids what it hides.
void require_not_forbidden(std::uint64_t scope);

/// The life of a scope that hands out tangents. A node's saved output may carry such a tangent, and where an
/// outer scope has recorded the tangent's own operations, these lead back to the node: each would keep the
/// other alive. Nobody asks for the tangent once its scope has ended, so it is taken away then.
class TangentScope {
 public:
  TangentScope();
  ~TangentScope();
  TangentScope(const TangentScope&) = delete;
  TangentScope& operator=(const TangentScope&) = delete;
  std::uint64_t id() const noexcept { return id_; }

  /// Remembers a node whose saved outputs carry a tangent of an open scope.
  static void note(Node& node, std::uint64_t scope);
  /// In a forked child: those of threads that it does not have are forgotten.
  static void keep_own() noexcept;

 private:
  std::uint64_t id_;
  std::vector<Node*> nodes_;  // owned
  TangentScope* next_;
  const void* thread_;  // which has opened it
};

struct Node;
/// The smallest scope known to be active that a node serves, or 0.
std::uint64_t active_scope_of(const Node& node) noexcept;

/// AnomalyScopes that are open, on all threads (anomaly.h).
extern std::atomic<int> open_anomaly_scopes;
inline bool is_watched() noexcept { return open_anomaly_scopes.load(std::memory_order_relaxed) != 0; }
/// For operations whose inputs are still what they were.
void watch_values(const char* name, std::span<const Tensor* const> inputs, std::span<Tensor* const> outputs);
/// The number of this thread's newest node: those made from now on are above it.
std::uint64_t newest_node_number() noexcept;

/// The rule of tensors that a ReadWatch (read_watch.h) looks after.
extern const OpRule read_watch_rule;
void note_read(const Node& node) noexcept;

/// What a rule sees of the operation that it differentiates. Only what the operation declared as saved is
/// there; the rest is absent.
class Primal {
 public:
  static constexpr int max_saved = 6;
  const Tensor& input(int i) const { return or_absent(inputs[static_cast<std::size_t>(i)]); }
  const Tensor& output(int k = 0) const { return or_absent(outputs[static_cast<std::size_t>(k)]); }
  template <class Attributes>
  const Attributes& attributes() const {
    return *static_cast<const Attributes*>(attribute_bytes);
  }

  std::array<const Tensor*, max_saved> inputs{};
  std::array<const Tensor*, 2> outputs{};
  const void* attribute_bytes = nullptr;

 private:
  static const Tensor absent;
  static const Tensor& or_absent(const Tensor* tensor) { return tensor ? *tensor : absent; }
};

/// One vector for the cotangents of a node that cuts a vector into pieces, and which of its pieces were given
/// out to be written.
struct Joined {
  Tensor vector;
  std::uint64_t given = 0;
};

/// One step of reverse mode: from cotangents of the outputs to gradients of the inputs that need one.
struct Pull : Primal {
  std::span<Tensor> cotangents;  ///< absent where nothing arrived; for one output always there
  std::span<Tensor> gradients;   ///< to be filled where needs(i); absent means no path
  const Node* node = nullptr;
  std::uint64_t scope = 0;
  /// Without a node (support.h), all are needed.
  bool needs(int input) const noexcept;
  /// Takes away what has arrived for input i's gradient so far, perhaps nothing: for a rule that goes on
  /// adding to it, in the order in which the operations that it stands for would have. To be called once for
  /// inputs that are the same output of a node; what the rule then returns for it contains the sum.
  /// For a rule that gives supports: `whole` becomes true if the sum, which is the walk's no longer, is one
  /// of which none is known, so that none is known of the gradient.
  Tensor take_sum(int input, bool* whole = nullptr) const;
  /// Memory, not yet written, in which a product may leave input i's gradient so that nobody copies it later:
  /// its piece of the vector that was cut by unflatten. Absent if there is none, or if something has arrived.
  Tensor destination(int input, Dtype dtype) const;
  const Tensor& cotangent() const { return cotangents[0]; }
  /// Lets go of output k, which no longer has to be kept while the rule goes on.
  void drop_output(int k = 0) const noexcept;

  /// For a rule that can save work where a walk wants nothing of input i's gradient but its tangent (hvp):
  /// the scope of that tangent, else 0. Such a rule may hand the tangent over with set_tangent, with the bits
  /// that it has beside the gradient; a rule that does not ask gives the gradient, whose tangent is taken.
  /// pull_product does both for a gradient that is a matrix product.
  std::uint64_t tangent_alone(int input) const;
  void set_tangent(int input, Tensor&& tangent) {
    gradients[static_cast<std::size_t>(input)] = std::move(tangent);
    tangents_given |= 1u << input;
  }
  /// For rules that know of supports: that of a cotangent, or null; whether anybody asks for that of input
  /// i's gradient; and where it goes.
  const SupportPointer& support(int output = 0) const noexcept;
  bool wants_support(int input) const noexcept;
  void set_support(int input, SupportPointer support);
  struct SupportLists {
    std::vector<SupportPointer> cotangents, gradients;  ///< empty: all null
  };
  std::unique_ptr<SupportLists> supports;  ///< null: none is known
  void* walk = nullptr;                    ///< for take_sum, destination and tangent_alone
  const Joined* joined = nullptr;          ///< where destinations were given out
  std::uint32_t tangents_given = 0;
};

/// One step of forward mode: from tangents of the inputs (absent is zero) to those of the outputs.
struct Push : Primal {
  std::span<Tensor> tangents;  ///< the rule's own handles: what it moves out of may lend its memory
  std::span<Tensor> results;   ///< absent means zero
  std::int64_t block = 0;      ///< for push_block: the number of tangents
  /// The one thing that the result will be added to, or null. A rule may add to its memory in the same pass:
  /// then it leaves it absent, and the result is the sum, with the same bits.
  Tensor* sum = nullptr;

  /// Null: none is known, and nobody asks.
  struct SupportLists {
    const SupportPointer* tangents = nullptr;  ///< one for each input; null: none is known
    SupportPointer* results = nullptr;         ///< to be filled by rules that look after supports, or null
  };
  const SupportLists* supports = nullptr;
  const SupportPointer* tangent_supports() const { return supports ? supports->tangents : nullptr; }
  SupportPointer* result_supports() const { return supports ? supports->results : nullptr; }
  SupportPointer support(int input) const {
    return tangent_supports() ? tangent_supports()[static_cast<std::size_t>(input)] : SupportPointer();
  }
};

/// The shape of `count` tensors stacked along a new first axis.
Shape stacked_shape(std::int64_t count, const Shape& shape);

/// What becomes of a support on its way through a rule, by pull or by push.
enum class Supports : std::uint8_t {
  dropped,
  moved,     ///< pull (push) is a rearrangement or a sum, so that it moves supports as well
  selected,  ///< the same, and it leaves zeros where nothing was taken (given)
  handled    ///< the rule looks after it
};

/// The derivative rules of an operation, written with public operations, so that they can be recorded again.
struct OpRule {
  const char* name;
  void (*pull)(Pull&);
  void (*push)(Push&);
  /// Ends the attributes stored in a node; null if trivial.
  void (*destroy_attributes)(void*) noexcept = nullptr;
  /// The operation's name where several share the rule; null if it is `name`.
  const char* (*name_from)(const void* attributes) noexcept = nullptr;
  /// One input, whose gradient is a rearrangement or a sum of the cotangents: the tangents of the cotangents
  /// can be pulled back by themselves.
  bool moves_cotangents = false;
  /// push for several tangents at once, which each of `tangents` and `results` holds stacked along a first
  /// axis; every result has the bits that push would give it. Null: push is called for one after another.
  void (*push_block)(Push&) = nullptr;
  Supports supports = Supports::dropped;          ///< by pull
  Supports tangent_supports = Supports::dropped;  ///< by push
};

/// A rule that moves supports; one that picks elements, whose pull leaves zeros; one that places them, whose
/// push does; one that does both.
constexpr OpRule with_supports(OpRule rule, Supports pull, Supports push) {
  rule.supports = pull;
  rule.tangent_supports = push;
  return rule;
}
constexpr OpRule moving(OpRule rule) { return with_supports(rule, Supports::moved, Supports::moved); }
constexpr OpRule selecting(OpRule rule) { return with_supports(rule, Supports::selected, Supports::moved); }
constexpr OpRule placing(OpRule rule) { return with_supports(rule, Supports::moved, Supports::selected); }
constexpr OpRule masking(OpRule rule) { return with_supports(rule, Supports::selected, Supports::selected); }
constexpr OpRule handling(OpRule rule) { return with_supports(rule, Supports::handled, Supports::handled); }

struct Edge {
  Node* node = nullptr;  ///< owned; null for an operand that serves no active scope
  std::uint32_t output = 0;
};

struct Saved {
  Tensor tensor;
  std::uint32_t version;
};

/// Bits i: input i (or output i) is kept for the rules.
struct Saves {
  std::uint32_t inputs = 0, outputs = 0;
};

/// Followed in memory by the edges, the saved tensors (inputs, then outputs) and the attributes.
struct Node : TapeRecord {
  Node(const OpRule& op, std::uint32_t inputs, std::uint32_t outputs, Saves keep);
  const OpRule* rule;
  std::uint64_t number = 0;     ///< above those of all inputs: a topological order
  std::uint64_t min_scope = 0;  ///< smallest and largest scope it serves
  std::uint64_t max_scope = 0;
  std::uint32_t input_count, output_count;
  Saves saves;
  std::uint32_t attribute_offset = 0;
  bool consumed = false;
  bool border = false;  ///< drops the supports of cotangents that arrive here: the end of a training step

  Edge* edges() noexcept { return reinterpret_cast<Edge*>(this + 1); }
  const Edge* edges() const noexcept { return reinterpret_cast<const Edge*>(this + 1); }
  std::uint32_t saved_count() const noexcept {
    return static_cast<std::uint32_t>(__builtin_popcount(saves.inputs) + __builtin_popcount(saves.outputs));
  }
  Saved* saved() noexcept { return reinterpret_cast<Saved*>(edges() + input_count); }
  /// For messages: the public function that made the node.
  const char* name() noexcept { return rule->name_from ? rule->name_from(attributes()) : rule->name; }
  void* attributes() noexcept { return reinterpret_cast<std::byte*>(this) + attribute_offset; }
  Node* next_ended = nullptr;  ///< chains nodes that wait for their end
  /// Whether a leaf of `scope` may lie below: it is among the scopes between the smallest and the largest
  /// served.
  bool may_serve(std::uint64_t scope) const noexcept { return min_scope <= scope && scope <= max_scope; }
  /// Lets go of saved tensors and edges: what a consuming pullback does node by node.
  void consume() noexcept;
};

/// Saved tensors of a node, checked against mutation and linked to the node again where outer scopes need it.
class Unpacked {
 public:
  /// With `take`, the node gives its tensors up, so that each is freed as soon as the rule is done.
  Unpacked(Node& node, Primal& view, bool take);

 private:
  std::array<Tensor, Primal::max_saved + 2> tensors_;
};

/// How an operation's operands take part in derivatives right now.
struct Links {
  bool recorded = false;  ///< an operand serves an active scope
  bool tangents = false;  ///< an operand carries an active tangent
  bool any() const noexcept { return recorded || tangents; }
};

Links links_of_linked(const Header& header);
inline Links links_of(const Tensor& tensor) {
  const Header& header = *tensor.header();
  if (!header.node && !header.tangents) return {};
  return links_of_linked(header);
}
inline Links operator|(Links a, Links b) noexcept {
  return {a.recorded || b.recorded, a.tangents || b.tangents};
}

/// Makes the node of an operation and hangs it on the outputs. `attribute_bytes` are left for the caller to
/// fill.
Node* make_node(const OpRule& rule, Saves saves, std::size_t attribute_bytes,
                std::span<const Tensor* const> inputs, std::span<Tensor* const> outputs);
/// Saves the outputs that the node declared; called last, when their tangents are known.
void save_outputs(Node& node, std::span<Tensor* const> outputs);
/// By which a rule's push can run again later, for a support: what it reads, and either how to copy its
/// attributes or the node that has them.
struct Kept {
  Saves saves;
  std::shared_ptr<const void> (*copy)(const void* attributes) = nullptr;
  Node* node = nullptr;
};
/// Runs the rule's push for every active scope of the operands' tangents.
void push_tangents(const OpRule& rule, const void* attributes, std::span<const Tensor* const> inputs,
                   std::span<Tensor* const> outputs, Kept kept);

/// The scope whose tangents a dual kernel can carry beside the values: all active tangents of the operands
/// belong to it, they are plain numbers, and no operand serves a scope below it. 0 if the tangents need
/// operations of their own.
std::uint64_t scope_of_plain_tangents(std::span<const Tensor* const> operands) noexcept;

/// The tangent of one scope, or null; and its support.
const Tensor* find_tangent(const Header& header, std::uint64_t scope) noexcept;
SupportPointer find_support(const Header& header, std::uint64_t scope) noexcept;
/// gradients[input] = op(a) op(b), for two matrices, accumulated straight onto what has arrived there before;
/// or, where that is all that is wanted, its tangent alone.
void pull_product(Pull& pull, int input, const Tensor& a, const Tensor& b, bool transpose_a,
                  bool transpose_b);

/// Appends a tangent; `scope` is above those already there.
void attach_tangent(Tensor& tensor, std::uint64_t scope, Tensor tangent, SupportPointer support = {});
/// Where a piece lies in the vector that unflatten has cut.
struct Piece {
  const Shape* shape;
  std::int64_t offset, total;
};
/// Output k of a node made by unflatten; no shape for any other node.
Piece piece_of(Node& node, std::uint32_t output) noexcept;
/// From here on cotangents that arrive at this tensor bring no supports: what is differentiated in one piece
/// by one method, and piece by piece by another, has the same derivatives then.
void end_supports(const Tensor& tensor) noexcept;
/// An alias with the links of the original that are active.
Tensor alias_with_links(const Tensor& tensor);

/// After an operation has computed its outputs: records it and pushes tangents, as the operands demand.
template <class Attributes>
void finish(const OpRule& rule, Saves saves, Attributes attributes, std::span<const Tensor* const> inputs,
            std::span<Tensor* const> outputs) {
  if (is_watched()) [[unlikely]]
    watch_values(rule.name_from ? rule.name_from(&attributes) : rule.name, inputs, outputs);
  Links links;
  for (const Tensor* input : inputs)
    if (input->defined()) links = links | links_of(*input);
  if (!links.any()) return;
  Node* node = nullptr;
  const void* bytes = &attributes;
  if (links.recorded) {
    node = make_node(rule, saves, sizeof(Attributes), inputs, outputs);
    bytes = new (node->attributes()) Attributes(std::move(attributes));
  }
  if (links.tangents) {
    const auto copy = [](const void* original) -> std::shared_ptr<const void> {
      return std::make_shared<const Attributes>(*static_cast<const Attributes*>(original));
    };
    push_tangents(rule, bytes, inputs, outputs, {saves, copy});
  }
  if (node) save_outputs(*node, outputs);
}

/// The usual case: one output.
template <class Attributes, class... Inputs>
Tensor finish_one(const OpRule& rule, Saves saves, Attributes attributes, Tensor output,
                  const Inputs&... inputs) {
  const std::array<const Tensor*, sizeof...(Inputs)> in{&inputs...};
  const std::array<Tensor*, 1> out{&output};
  finish(rule, saves, std::move(attributes), std::span<const Tensor* const>(in),
         std::span<Tensor* const>(out));
  return output;
}

struct NoAttributes {};

}  // namespace hypertape::detail
