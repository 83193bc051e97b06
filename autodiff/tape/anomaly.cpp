#include "autodiff/tape/anomaly.h"

#include <algorithm>
#include <sstream>
#include <unordered_map>
#include <utility>

#include "core/backend/backend.h"

namespace hypertape {
namespace detail {

constinit std::atomic<int> open_anomaly_scopes{0};

class AnomalyRecord {
 public:
  /// Enough to say where things began.
  static constexpr std::size_t most = 256;

  std::vector<Anomaly> found;
  /// Position in `found`, by the address of the elements.
  std::unordered_map<const std::byte*, std::int64_t> origins;
  /// Rules that are running, innermost last.
  struct Rule {
    Anomaly::Kind kind;
    const char* name;
  };
  std::vector<Rule> rules;
  std::vector<std::string> steps;  ///< those being worked on, innermost last
  /// Nodes above a number, up to the next entry's, were made in a step.
  std::vector<std::pair<std::uint64_t, std::string>> step_of_nodes;
  AnomalyRecord* outer = nullptr;

  std::string step_now() const { return steps.empty() ? std::string() : steps.back(); }
  std::string step_of(std::uint64_t number) const {
    const auto next = std::find_if(step_of_nodes.rbegin(), step_of_nodes.rend(),
                                   [&](const auto& entry) { return entry.first < number; });
    return next == step_of_nodes.rend() ? std::string() : next->second;
  }

  std::int64_t add(Anomaly anomaly) {
    if (found.size() >= most) return -1;
    anomaly.step = step_now();
    if (!rules.empty()) {
      anomaly.kind = rules.back().kind;
      if (anomaly.operation != rules.back().name) {
        anomaly.made_by = std::move(anomaly.operation);
        anomaly.operation = rules.back().name;
      }
    }
    found.push_back(std::move(anomaly));
    return static_cast<std::int64_t>(found.size()) - 1;
  }
  std::int64_t origin_of(const Tensor& tensor) const {
    const auto place = origins.find(tensor.header()->data);
    return place == origins.end() ? -1 : place->second;
  }
};

namespace {

constinit thread_local AnomalyRecord* watching = nullptr;

// Reading the elements is no operation: nothing is recorded or watched.
bool is_finite(const Tensor& tensor) {
  const Header& header = *tensor.header();
  if (!is_floating(header.dtype) || header.size == 0) return true;
  return !backend_of(tensor)->has_non_finite(view_of(tensor));
}

std::string text_of(const Shape& shape) {
  std::ostringstream text;
  text << shape;
  return text.str();
}

void append_shape(std::string& shapes, const Tensor& tensor) {
  if (!shapes.empty()) shapes += ", ";
  shapes += text_of(tensor.shape());
}

// A result: forgets what lay at its address before, or remembers where its bad elements are from.
void judge(const char* name, Anomaly::Kind kind, const Tensor& result, bool from_finite, std::int64_t origin,
           const std::string& operands) {
  AnomalyRecord& record = *watching;
  const std::byte* const place = result.header()->data;
  if (is_finite(result)) {
    record.origins.erase(place);
    return;
  }
  const bool is_known = record.origins.contains(place);
  // A rule's results have been seen as results of the operations that it is made of.
  if (is_known && kind != Anomaly::Kind::value) return;
  if (!from_finite && origin < 0 && !is_known)
    origin = record.add({Anomaly::Kind::operand, name, {}, text_of(result.shape()), operands, {}});
  else if (from_finite)
    origin = record.add({kind, name, {}, text_of(result.shape()), operands, {}});
  if (origin >= 0) record.origins[place] = origin;
}

// Cotangents or tangents that go into a rule.
SeenOperands look_at_list(std::span<const Tensor> list) {
  SeenOperands seen;
  for (const Tensor& each : list) {
    if (!each.defined()) continue;
    append_shape(seen.shapes, each);
    if (is_finite(each)) continue;
    seen.finite = false;
    seen.origin = std::max(seen.origin, watching->origin_of(each));
  }
  return seen;
}

void add_saved(SeenOperands& seen, const Primal& primal) {
  const auto add = [&](const Tensor* tensor) {
    if (!tensor || !tensor->defined() || is_finite(*tensor)) return;
    seen.finite = false;
    seen.origin = std::max(seen.origin, watching->origin_of(*tensor));
  };
  for (const Tensor* input : primal.inputs) add(input);
  for (const Tensor* output : primal.outputs) add(output);
}

class RunningRule {
 public:
  RunningRule(Anomaly::Kind kind, const char* name) { watching->rules.push_back({kind, name}); }
  ~RunningRule() { watching->rules.pop_back(); }
  RunningRule(const RunningRule&) = delete;
  RunningRule& operator=(const RunningRule&) = delete;
};

}  // namespace

SeenOperands look_at(std::span<const Tensor* const> operands) {
  SeenOperands seen;
  if (!watching) return seen;
  for (const Tensor* operand : operands) {
    if (!operand || !operand->defined()) continue;
    append_shape(seen.shapes, *operand);
    if (!is_finite(*operand)) {
      seen.finite = false;
      seen.origin = std::max(seen.origin, watching->origin_of(*operand));
    }
    for (const Tangent* t = operand->header()->tangents; t; t = t->next) {
      if (is_finite(t->value)) continue;
      seen.finite_tangents = false;
      seen.origin = std::max(seen.origin, watching->origin_of(t->value));
    }
  }
  return seen;
}

void watch_result(const char* name, const SeenOperands& before, std::span<Tensor* const> outputs) {
  if (!watching) return;
  for (const Tensor* output : outputs) {
    if (!output->defined()) continue;
    judge(name, Anomaly::Kind::value, *output, before.finite, before.origin, before.shapes);
    const bool all_finite = before.finite && before.finite_tangents;
    for (const Tangent* t = output->header()->tangents; t; t = t->next)
      judge(name, Anomaly::Kind::tangent, t->value, all_finite, before.origin, before.shapes);
  }
}

void watch_values(const char* name, std::span<const Tensor* const> inputs, std::span<Tensor* const> outputs) {
  if (!watching) return;
  const SeenOperands before = look_at(inputs);
  for (const Tensor* output : outputs)
    if (output->defined())
      judge(name, Anomaly::Kind::value, *output, before.finite, before.origin, before.shapes);
}

void pull_watched(Node& node, Pull& pull) {
  if (!watching) {
    node.rule->pull(pull);
    return;
  }
  AnomalyRecord& record = *watching;
  SeenOperands before = look_at_list(pull.cotangents);
  add_saved(before, pull);
  std::string step = record.step_of(node.number);
  record.steps.push_back(step.empty() ? record.step_now() : std::move(step));
  struct Leave {
    AnomalyRecord& record;
    ~Leave() { record.steps.pop_back(); }
  } const leave{record};
  const RunningRule running(Anomaly::Kind::gradient, node.name());
  node.rule->pull(pull);
  for (const Tensor& gradient : pull.gradients)
    if (gradient.defined())
      judge(node.name(), Anomaly::Kind::gradient, gradient, before.finite, before.origin, before.shapes);
}

void push_watched(const char* name, const OpRule& rule, Push& push) {
  if (!watching) {
    rule.push(push);
    return;
  }
  SeenOperands before = look_at_list(push.tangents);
  add_saved(before, push);
  const RunningRule running(Anomaly::Kind::tangent, name);
  rule.push(push);
  for (const Tensor& result : push.results)
    if (result.defined())
      judge(name, Anomaly::Kind::tangent, result, before.finite, before.origin, before.shapes);
}

namespace {
std::optional<Anomaly> origin_in(const AnomalyRecord& record, const Tensor& result) {
  if (!result.defined() || record.found.empty() || is_finite(result)) return std::nullopt;
  return record.found[static_cast<std::size_t>(std::max<std::int64_t>(record.origin_of(result), 0))];
}
}  // namespace

std::string origin_text(const Tensor& result) {
  if (!is_watched() || !watching) return {};
  const std::optional<Anomaly> origin = origin_in(*watching, result);
  return origin ? "it comes from " + origin->text() : std::string();
}

std::string origin_text(const TensorList& results) {
  for (const Tensor& result : results)
    if (std::string text = origin_text(result); !text.empty()) return text;
  return {};
}

bool AnomalyStep::begin(std::int64_t step, std::int64_t steps) {
  if (!watching) return false;
  std::string text = "step " + std::to_string(step) + " of " + std::to_string(steps);
  watching->step_of_nodes.emplace_back(newest_node_number(), text);
  watching->steps.push_back(std::move(text));
  return true;
}

void AnomalyStep::end() noexcept {
  watching->steps.pop_back();
  watching->step_of_nodes.emplace_back(newest_node_number(), watching->step_now());
}

}  // namespace detail

std::string Anomaly::text() const {
  constexpr const char* kinds[] = {"the value of ", "the tangent of ", "the reverse gradient of ",
                                   "an operand of "};
  std::string all = kinds[static_cast<std::size_t>(kind)] + operation;
  if (!made_by.empty()) all += ", by " + made_by;
  if (kind == Kind::operand)
    all += ", shapes " + operands + ", that was not finite before";
  else
    all += ", shape " + shape + ", from finite operands " + operands;
  if (!step.empty()) all += ", at " + step;
  return all;
}

AnomalyScope::AnomalyScope() : record_(std::make_unique<detail::AnomalyRecord>()) {
  record_->outer = std::exchange(detail::watching, record_.get());
  detail::open_anomaly_scopes.fetch_add(1, std::memory_order_relaxed);
}

AnomalyScope::~AnomalyScope() {
  detail::watching = record_->outer;
  detail::open_anomaly_scopes.fetch_sub(1, std::memory_order_relaxed);
}

std::optional<Anomaly> AnomalyScope::first() const {
  return record_->found.empty() ? std::nullopt : std::optional<Anomaly>(record_->found.front());
}

std::optional<Anomaly> AnomalyScope::origin_of(const Tensor& result) const {
  return detail::origin_in(*record_, result);
}

}  // namespace hypertape
