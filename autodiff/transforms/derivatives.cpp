#include <hypertape/autodiff/derivatives.h>

#include <mutex>
#include <optional>

#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"
#include "autodiff/tape/support.h"
#include "autodiff/tape/version.h"
#include "autodiff/transforms/replay.h"
#include "autodiff/transforms/walk.h"
#include "core/base/default_floats.h"

namespace hypertape {
namespace detail {

struct GraphState {
  /// Shape and dtype of an input, which tangents must match.
  struct Form {
    Shape shape;
    Dtype dtype = Dtype::float64;
    bool defined = false;
  };
  Graph graph;
  std::vector<Form> forms;
  std::optional<Replay> replay;
  bool consumed = false;
};

namespace {

// The tensor without links to scopes from `low` up; links to outer scopes stay.
Tensor without_scopes(Tensor&& tensor, std::uint64_t low) {
  if (!tensor.defined()) return std::move(tensor);
  Header& header = *tensor.header();
  const bool node = header.node && static_cast<const Node*>(header.node)->min_scope >= low;
  bool tangents = false;
  for (const Tangent* t = header.tangents; t; t = t->next) tangents |= t->scope >= low;
  if (!node && !tangents) return std::move(tensor);
  Tensor alias = make_alias(tensor);
  for (const Tangent* t = header.tangents; t; t = t->next)
    if (t->scope < low) attach_tangent(alias, t->scope, t->value, t->support);
  if (header.node && !node) {
    retain(header.node);
    alias.header()->node = header.node;
    alias.header()->output = header.output;
  }
  return alias;
}

}  // namespace

RecordedFunction record_function(ListFunction f, const TensorList& x) {
  const DefaultFloats floats;
  const std::uint64_t scope = open_scope();
  TensorList leaves(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) leaves[i] = make_leaf(x[i], scope, i);
  auto state = std::make_shared<GraphState>();
  state->graph.inputs = x.size();
  state->forms.reserve(x.size());
  for (const Tensor& input : x)
    state->forms.push_back(input.defined() ? GraphState::Form{input.shape(), input.dtype(), true}
                                           : GraphState::Form{});
  state->graph.outputs = f(leaves);
  state->graph.scope = {scope, scope_bound()};
  RecordedFunction recorded;
  recorded.values.reserve(state->graph.outputs.size());
  for (const Tensor& output : state->graph.outputs)
    recorded.values.push_back(without_scopes(Tensor(output), scope));
  recorded.state = std::move(state);
  return recorded;
}

Tensor leave_scope(const GraphState& state, const Tensor& tensor) {
  return without_scopes(Tensor(tensor), state.graph.scope.low);
}

void require_scalar(const char* operation, const TensorList& outputs) {
  const Tensor& value = outputs.front();
  require_floating(operation, value);
  if (value.size() != 1)
    fail(operation, "the function must return one element, not shape ", value.shape(),
         "; sum it, or use vjp for functions of several outputs");
}

namespace {

TensorList pull_checked(GraphState& state, const TensorList& cotangents, bool consume, TensorList accumulated,
                        WalkSupports* supports) {
  const DefaultFloats floats;  // also of the rules' own numbers, as below
  if (state.consumed) fail("pullback", "was consumed by an earlier call; keep it with operator() instead");
  const TensorList &outputs = state.graph.outputs, &seeds = cotangents;
  if (seeds.size() != outputs.size())
    fail("pullback", seeds.size(), " cotangents given for ", outputs.size(), " outputs");
  if (accumulated.size() > state.graph.inputs)
    fail("pullback", accumulated.size(), " sums to start from given for ", state.graph.inputs, " inputs");
  for (std::size_t i = 0; i < accumulated.size(); ++i) {
    const GraphState::Form& form = state.forms[i];
    if (accumulated[i].defined() &&
        (accumulated[i].shape() != form.shape || accumulated[i].dtype() != form.dtype))
      fail("pullback", "the sum to start from for input ", i, " has shape ", accumulated[i].shape(),
           ", the input ", form.shape);
  }
  for (std::size_t k = 0; k < seeds.size(); ++k) {
    if (!seeds[k].defined()) continue;
    if (!outputs[k].defined()) fail("pullback", "cotangent ", k, " given for an absent output");
    if (seeds[k].shape() != outputs[k].shape() || seeds[k].dtype() != outputs[k].dtype())
      fail("pullback", "cotangent ", k, " has shape ", seeds[k].shape(), " and dtype ", seeds[k].dtype(),
           ", but the output has shape ", outputs[k].shape(), " and dtype ", outputs[k].dtype());
  }
  state.consumed = consume;
  return pull_graph(state.graph, seeds, consume, std::move(accumulated), {}, supports);
}

}  // namespace

TensorList pull_recorded(GraphState& state, const TensorList& cotangents, bool consume,
                         TensorList accumulated) {
  return pull_checked(state, cotangents, consume, std::move(accumulated), nullptr);
}

TensorList pull_with_supports(GraphState& state, const TensorList& cotangents, TensorList accumulated,
                              WalkSupports& supports) {
  return pull_checked(state, cotangents, true, std::move(accumulated), &supports);
}

TensorList pull_scalar(GraphState& state) {
  const Tensor& output = state.graph.outputs.front();
  if (!output.header()->node) return TensorList(state.graph.inputs);
  return pull_recorded(state, {Tensor::full(output.shape(), 1.0, output.dtype())}, true);
}

TensorList push_recorded(GraphState& state, const TensorList& tangents, bool stacked) {
  const DefaultFloats floats;
  if (tangents.size() != state.graph.inputs)
    fail("linearize", tangents.size(), " tangents given for ", state.graph.inputs, " inputs");
  std::int64_t block = 0;
  for (std::size_t i = 0; i < tangents.size(); ++i) {
    if (!tangents[i].defined()) continue;
    const GraphState::Form& form = state.forms[i];
    if (!form.defined) fail("linearize", "tangent ", i, " is given for an absent input");
    require_floating("linearize", tangents[i]);
    if (stacked) {
      const Shape shape = tangents[i].shape();
      if (block == 0 && shape.rank() > 0) block = shape[0];
      if (block == 0 || shape != stacked_shape(block, form.shape) || tangents[i].dtype() != form.dtype)
        fail("linearize", "the stack of tangents ", i, " has shape ", shape, " and dtype ",
             tangents[i].dtype(), ", but ", block, " tangents of an input of shape ", form.shape,
             " and dtype ", form.dtype,
             " are expected along its first axis; all stacks have one length, "
             "at least 1");
      continue;
    }
    if (tangents[i].shape() != form.shape || tangents[i].dtype() != form.dtype)
      fail("linearize", "tangent ", i, " has shape ", tangents[i].shape(), " and dtype ", tangents[i].dtype(),
           ", but the input has shape ", form.shape, " and dtype ", form.dtype);
  }
  if (!state.replay) state.replay.emplace(state.graph);
  return (*state.replay)(state.graph, tangents, block);
}

namespace {

TensorList with_tangents(const char* operation, const TensorList& x, const TensorList& tangents,
                         std::uint64_t scope, const std::vector<SupportPointer>& supports = {}) {
  if (tangents.size() != x.size())
    fail(operation, tangents.size(), " tangents given for ", x.size(), " inputs");
  TensorList inputs(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    inputs[i] = x[i];
    if (!tangents[i].defined()) continue;
    require_same_dtype(operation, x[i], tangents[i]);
    if (x[i].shape() != tangents[i].shape())
      fail(operation, "tangent ", i, " has shape ", tangents[i].shape(), ", but the input has shape ",
           x[i].shape());
    links_of(x[i]);  // refuses a variable whose outer derivative would be lost
    inputs[i] = alias_with_links(x[i]);
    attach_tangent(inputs[i], scope, tangents[i], supports.empty() ? nullptr : supports[i]);
  }
  return inputs;
}

}  // namespace

DualGradients dual_gradients(const char* operation, ListFunction f, const TensorList& x,
                             const TensorList& tangents, const std::vector<Wanted>& wanted) {
  const DefaultFloats floats;
  const TangentScope open;
  const std::uint64_t scope = open.id();
  const TensorList inputs = with_tangents(operation, x, tangents, scope);
  TensorList differentiated;
  std::vector<std::size_t> places;
  WantedTangents alone{scope, {}};
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (wanted[i] == Wanted::nothing) continue;
    differentiated.push_back(inputs[i]);
    places.push_back(i);
    alone.alone.push_back(wanted[i] == Wanted::tangent);
  }
  const RecordedFunction recorded = record_function(
      [&](const TensorList& leaves) {
        if (leaves.size() == inputs.size()) return f(leaves);
        TensorList all = inputs;
        for (std::size_t k = 0; k < leaves.size(); ++k) all[places[k]] = leaves[k];
        return f(all);
      },
      differentiated);
  require_scalar(operation, recorded.values);
  DualGradients result{TensorList(x.size()), TensorList(x.size())};
  GraphState& state = *recorded.state;
  const Tensor& value = state.graph.outputs.front();
  if (!value.header()->node) return result;
  const Tensor one = Tensor::full(value.shape(), 1.0, value.dtype());
  state.consumed = true;
  TensorList pulled = pull_graph(state.graph, {one}, true, {}, alone);
  for (std::size_t k = 0; k < pulled.size(); ++k) {
    Tensor& gradient = pulled[k];
    if (!gradient.defined()) continue;
    if (alone.alone[k]) {
      result.tangents[places[k]] = std::move(gradient);
      continue;
    }
    if (const Tensor* tangent = find_tangent(*gradient.header(), scope))
      result.tangents[places[k]] = *tangent;
    result.gradients[places[k]] = without_scopes(std::move(gradient), scope);
  }
  return result;
}

TensorList hessian_product(const char* operation, ListFunction f, const TensorList& x,
                           const TensorList& tangents) {
  return dual_gradients(operation, f, x, tangents, std::vector<Wanted>(x.size(), Wanted::tangent)).tangents;
}

std::pair<TensorList, TensorList> push_function(ListFunction f, const TensorList& x,
                                                const TensorList& tangents) {
  std::vector<SupportPointer> supports;
  return push_with_supports(f, x, tangents, supports);
}

std::pair<TensorList, TensorList> push_with_supports(ListFunction f, const TensorList& x,
                                                     const TensorList& tangents,
                                                     std::vector<SupportPointer>& supports) {
  const DefaultFloats floats;
  const TangentScope open;
  const std::uint64_t scope = open.id();
  const TensorList inputs = with_tangents("jvp", x, tangents, scope, supports);
  TensorList outputs = f(inputs);
  TensorList results(outputs.size());
  supports.assign(outputs.size(), nullptr);
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    if (!outputs[k].defined()) continue;
    if (const Tensor* tangent = find_tangent(*outputs[k].header(), scope)) results[k] = *tangent;
    supports[k] = find_support(*outputs[k].header(), scope);
    outputs[k] = without_scopes(std::move(outputs[k]), scope);
  }
  return {std::move(outputs), std::move(results)};
}

namespace {

struct CustomAttributes {
  std::shared_ptr<std::string> name;
  std::shared_ptr<TensorList> inputs;
  std::shared_ptr<std::vector<std::uint32_t>> versions;  // of the inputs' storages
  std::function<TensorList(const TensorList&)> pullback;
};

[[noreturn]] void fail_once(const std::string& name) {
  fail(name,
       "is differentiable once: neither its pullback nor its outputs can be differentiated again; use a "
       "method made of recorded operations (for hypergradients: Unrolled) for higher derivatives");
}

void pull_custom(Pull& pull) {
  const auto& attributes = pull.attributes<CustomAttributes>();
  Links links;
  for (std::size_t i = 0; i < attributes.inputs->size(); ++i) {
    const Tensor& input = (*attributes.inputs)[i];
    if (!input.defined()) continue;
    links = links | links_of(input);
    if (version_of(input) != (*attributes.versions)[i])
      fail(*attributes.name, "its input ", i, " of shape ", input.shape(),
           " was overwritten by assign() after the forward pass; assign before, or to a copy");
  }
  TensorList cotangents(pull.cotangents.begin(), pull.cotangents.end());
  for (const Tensor& cotangent : cotangents)
    if (cotangent.defined()) links = links | links_of(cotangent);
  if (links.any()) fail_once(*attributes.name);
  if (!attributes.pullback) fail(*attributes.name, "its forward pass returned no pullback");
  TensorList gradients = attributes.pullback(cotangents);
  if (gradients.size() != pull.gradients.size())
    fail(*attributes.name, "its pullback returned ", gradients.size(), " gradients for ",
         pull.gradients.size(), " inputs");
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    if (!gradients[i].defined()) continue;
    const Tensor& input = (*attributes.inputs)[i];
    if (gradients[i].shape() != input.shape() || gradients[i].dtype() != input.dtype())
      fail(*attributes.name, "its pullback returned a gradient of shape ", gradients[i].shape(),
           " for input ", i, " of shape ", input.shape());
    pull.gradients[i] = std::move(gradients[i]);
  }
}

void push_custom(Push& push) { fail_once(*push.attributes<CustomAttributes>().name); }

constexpr OpRule custom_rule = {"custom_vjp", pull_custom, push_custom, [](void* attributes) noexcept {
                                  std::destroy_at(static_cast<CustomAttributes*>(attributes));
                                }};

}  // namespace
}  // namespace detail

Tensor stop_gradient(const Tensor& x) {
  const detail::Header& header = detail::header_of("stop_gradient", x);
  return header.node || header.tangents ? detail::make_alias(x) : x;
}

NotReplayed::NotReplayed(std::string_view operation, std::string_view message) : Error(operation, message) {}
NotReplayed::~NotReplayed() = default;

TensorList custom_vjp(const std::string& name, const TensorList& inputs,
                      const std::function<CustomVjp(const TensorList& plain)>& forward) {
  const detail::DefaultFloats floats;
  if (!forward) fail("custom_vjp", "'", name, "' has no function for the forward pass");
  TensorList plain(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].defined()) plain[i] = stop_gradient(inputs[i]);
  CustomVjp result;
  {
    // Nothing that the forward pass does is recorded for anyone outside, even through variables it closes
    // over.
    const detail::ScopeMask mask({0, detail::scope_bound()}, name.c_str());
    result = forward(plain);
  }
  std::vector<const Tensor*> in;
  auto versions = std::make_shared<std::vector<std::uint32_t>>();
  for (const Tensor& input : inputs) {
    in.push_back(&input);
    versions->push_back(input.defined() ? detail::version_of(input) : 0);
  }
  std::vector<Tensor*> out;
  for (Tensor& output : result.outputs) {
    detail::header_of(name.c_str(), output);
    output = detail::make_alias(output);  // the forward pass may have returned one of its inputs
    out.push_back(&output);
  }
  detail::finish(
      detail::custom_rule, {},
      detail::CustomAttributes{std::make_shared<std::string>(name), std::make_shared<TensorList>(inputs),
                               std::move(versions), std::move(result.pullback)},
      in, out);
  return std::move(result.outputs);
}

}  // namespace hypertape
