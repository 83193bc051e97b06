#include "autodiff/transforms/replay.h"

#include <algorithm>
#include <unordered_map>

#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/elementwise/function.h"
#include "autodiff/tape/support.h"
#include "autodiff/transforms/leaf.h"

namespace hypertape::detail {

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
