// checkpoint: a node that keeps a function and its inputs, and runs it again in its rules.
//
// The results themselves are not kept, but a number for the bits of each, which tells whether the function
// did the same when it ran again.
//
// Both rules are themselves functions of tensors: the pull of (inputs, cotangents), the push of (inputs,
// tangents). Where an outer scope records them, they are checkpointed in turn, so that every order of
// derivative keeps inputs only.

#include <pthread.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>

#include <hypertape/autodiff/derivatives.h>
#include "autodiff/ops/checks.h"
#include "autodiff/tape/support.h"
#include "autodiff/tape/version.h"

namespace hypertape::detail {
namespace {

using Function = std::function<TensorList(const TensorList&)>;

struct CheckpointAttributes {
  std::shared_ptr<const Function> f;
  TensorList inputs;
  std::vector<std::uint32_t> versions;  // of the inputs' storages
};

void require_unchanged(const CheckpointAttributes& at) {
  for (std::size_t i = 0; i < at.inputs.size(); ++i)
    if (version_of(at.inputs[i]) != at.versions[i])
      fail("checkpoint", "its input ", i, " of shape ", at.inputs[i].shape(),
           " was overwritten by assign() before it ran again; assign before, or to a copy");
}

// Functions that are checkpointed inside each other run inside each other: refused before the stack is used
// up. The outermost ones always run.
class Nesting {
 public:
  Nesting() {
    constexpr int always = 4;
    constexpr std::size_t reserve = std::size_t{64} << 10;  // twice what the longest operation needs
    if (++depth_ <= always) return;
    const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    const StackBounds& stack = bounds();
    if (stack.size == 0 ? depth_ <= most_without_bounds
                        : here > stack.low + std::min(reserve, stack.size / 3))
      return;
    const int depth = depth_--;
    fail("checkpoint", depth, " functions are being run inside each other, and the stack of ",
         stack.size >> 10, " KiB is nearly used up; nest fewer, or give the thread a larger stack");
  }
  ~Nesting() { --depth_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  static constexpr int most_without_bounds = 16;
  struct StackBounds {
    std::uintptr_t low = 0;
    std::size_t size = 0;
  };
  static const StackBounds& bounds() {
    thread_local const StackBounds known = [] {
      StackBounds found;
#if defined(__linux__)
      pthread_attr_t attributes;
      if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
        void* low = nullptr;
        if (pthread_attr_getstack(&attributes, &low, &found.size) == 0)
          found.low = reinterpret_cast<std::uintptr_t>(low);
        pthread_attr_destroy(&attributes);
      }
#endif
      return found;
    }();
    return known;
  }
  static constinit thread_local int depth_;
};
constinit thread_local int Nesting::depth_ = 0;

bool any_recorded(const TensorList& list) {
  bool recorded = false;
  for (const Tensor& tensor : list)
    if (tensor.defined()) recorded |= links_of(tensor).recorded;
  return recorded;
}

TensorList joined(const TensorList& a, std::span<const Tensor> b) {
  TensorList both = a;
  both.insert(both.end(), b.begin(), b.end());
  return both;
}

// Runs f again and goes back through it, to the inputs that are wanted.
struct Backward {
  std::shared_ptr<const Function> f;
  std::size_t inputs, outputs;
  /// Which gradient an input contributes to, or -1. Inputs that are one tensor share theirs, or else its
  /// terms would be added up in another order than without a checkpoint.
  std::vector<std::int64_t> gradient_of;
  std::vector<std::size_t> wanted;  // the first input of each gradient
  std::vector<SupportPointer> arrived;
  // Where the gradients' supports go, for as long as somebody waits for them.
  std::weak_ptr<std::vector<SupportPointer>> supports;

  TensorList run(std::span<const Tensor> x, const TensorList& cotangents, TensorList sums) const {
    const Nesting nesting;
    TensorList active;
    for (const std::size_t i : wanted) active.push_back(x[i]);
    RecordedFunction recorded = record_function(
        [&](const TensorList& leaves) {
          TensorList all(x.begin(), x.end());
          for (std::size_t i = 0; i < inputs; ++i)
            if (gradient_of[i] >= 0) all[i] = leaves[static_cast<std::size_t>(gradient_of[i])];
          return (*f)(all);
        },
        active);
    recorded.values.clear();
    const auto asked = supports.lock();
    if (!asked && arrived.empty()) return pull_recorded(*recorded.state, cotangents, true, std::move(sums));
    WalkSupports known{arrived, {}};
    TensorList gradients = pull_with_supports(*recorded.state, cotangents, std::move(sums), known);
    if (asked) *asked = std::move(known.gradients);
    return gradients;
  }

  TensorList operator()(const TensorList& arguments) const {
    const auto cotangents = arguments.begin() + static_cast<std::ptrdiff_t>(inputs);
    const auto sums = cotangents + static_cast<std::ptrdiff_t>(outputs);
    return run(std::span(arguments).first(inputs), {cotangents, sums}, {sums, arguments.end()});
  }
};

void pull_checkpoint(Pull& pull) {
  const auto& at = pull.attributes<CheckpointAttributes>();
  require_unchanged(at);
  const std::size_t count = at.inputs.size();
  Backward backward{at.f,
                    count,
                    pull.cotangents.size(),
                    std::vector<std::int64_t>(count, -1),
                    {},
                    pull.supports ? pull.supports->cotangents : std::vector<SupportPointer>(),
                    {}};
  TensorList sums;
  std::vector<bool> whole_sums;
  bool wanted_support = false;
  for (std::size_t i = 0; i < count; ++i) {
    if (!pull.needs(static_cast<int>(i))) continue;
    const Edge& edge = pull.node->edges()[i];
    for (std::size_t w = 0; w < backward.wanted.size() && backward.gradient_of[i] < 0; ++w) {
      const Edge& other = pull.node->edges()[backward.wanted[w]];
      if (other.node == edge.node && other.output == edge.output)
        backward.gradient_of[i] = static_cast<std::int64_t>(w);
    }
    if (backward.gradient_of[i] >= 0) continue;
    backward.gradient_of[i] = static_cast<std::int64_t>(backward.wanted.size());
    backward.wanted.push_back(i);
    bool whole = false;
    sums.push_back(pull.take_sum(static_cast<int>(i), &whole));
    whole_sums.push_back(whole);
    wanted_support |= pull.wants_support(static_cast<int>(i));
  }
  const auto supports = std::make_shared<std::vector<SupportPointer>>();
  if (wanted_support) backward.supports = supports;
  TensorList cotangents(pull.cotangents.begin(), pull.cotangents.end());
  TensorList gradients;
  if (any_recorded(at.inputs) || any_recorded(cotangents))
    gradients = checkpoint_list(backward, joined(joined(at.inputs, cotangents), sums));
  else
    gradients = backward.run(at.inputs, cotangents, std::move(sums));
  for (std::size_t w = 0; w < gradients.size(); ++w)
    pull.gradients[backward.wanted[w]] = std::move(gradients[w]);
  for (std::size_t w = 0; w < supports->size(); ++w)
    if (!whole_sums[w]) pull.set_support(static_cast<int>(backward.wanted[w]), std::move((*supports)[w]));
}

void push_checkpoint(Push& push) {
  const auto& at = push.attributes<CheckpointAttributes>();
  require_unchanged(at);
  const TensorList arguments = joined(at.inputs, push.tangents);
  std::vector<SupportPointer> arrived;
  if (const SupportPointer* known = push.tangent_supports()) arrived.assign(known, known + at.inputs.size());
  const auto supports = std::make_shared<std::vector<SupportPointer>>();
  // Where the results' supports go, for as long as somebody waits for them.
  const auto forward = [f = at.f, inputs = at.inputs.size(), arrived = std::move(arrived),
                        asked = std::weak_ptr(supports)](const TensorList& list) {
    const auto middle = list.begin() + static_cast<std::ptrdiff_t>(inputs);
    std::vector<SupportPointer> known = arrived;
    TensorList results = push_with_supports([&](const TensorList& x) { return (*f)(x); },
                                            {list.begin(), middle}, {middle, list.end()}, known)
                             .second;
    if (const auto waiting = asked.lock()) *waiting = std::move(known);
    return results;
  };
  TensorList results = any_recorded(arguments) ? checkpoint_list(forward, arguments) : forward(arguments);
  for (std::size_t k = 0; k < results.size(); ++k) {
    push.results[k] = std::move(results[k]);
    if (push.result_supports()) push.result_supports()[k] = std::move((*supports)[k]);
  }
}

constexpr OpRule checkpoint_rule =
    handling({"checkpoint", pull_checkpoint, push_checkpoint, [](void* attributes) noexcept {
                std::destroy_at(static_cast<CheckpointAttributes*>(attributes));
              }});

// One int64 for each of `places`.
Tensor fingerprints(const TensorList& results, const std::vector<std::size_t>& places) {
  const Tensor all = make_tensor(Shape{static_cast<std::int64_t>(places.size())}, Dtype::int64);
  for (std::size_t i = 0; i < places.size(); ++i) {
    const Tensor result = make_contiguous(results[places[i]]);
    const Tensor one = make_view(all, Shape{}, nullptr, static_cast<std::int64_t>(i));
    backend_of(all)->fingerprint(view_of(result), view_of(one));
  }
  return all;
}

void require_replayed(const TensorList& results, const std::vector<std::size_t>& places,
                      const Tensor& first) {
  for (const std::size_t k : places)
    if (k >= results.size() || !results[k].defined())
      throw NotReplayed("checkpoint", "the function returned fewer tensors when it ran again than at first");
  const Tensor again = fingerprints(results, places);
  if (!backend_of(first)->expect_same(view_of(again), view_of(first)))
    throw NotReplayed("checkpoint",
                      "the function gave other values when it ran again; it may depend on its arguments and "
                      "on constants alone: no random generator of its own, no counter, and no captured "
                      "tensor that is overwritten in between (pass it in, or capture a copy)");
}

}  // namespace

TensorList checkpoint_list(std::function<TensorList(const TensorList&)> f, const TensorList& x) {
  const DefaultFloats floats;
  const Nesting nesting;
  // Forward mode keeps nothing anyway.
  if (!any_recorded(x)) return f(x);
  TensorList outputs;
  {
    TensorList plain(x.size());
    for (std::size_t i = 0; i < x.size(); ++i)
      if (x[i].defined()) plain[i] = make_alias(x[i]);
    const ScopeMask mask({0, scope_bound()}, "checkpoint");
    outputs = f(plain);
  }
  // The outputs that have derivatives are the node's.
  std::vector<Tensor*> out;
  std::vector<std::size_t> places;
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    if (!outputs[k].defined()) continue;
    outputs[k] = make_alias(outputs[k]);  // f may have returned one of its inputs
    if (!is_floating(outputs[k].dtype())) continue;
    out.push_back(&outputs[k]);
    places.push_back(k);
  }
  if (out.empty()) return outputs;
  CheckpointAttributes at;
  at.f = std::make_shared<const Function>(
      [f = std::move(f), places, first = fingerprints(outputs, places)](const TensorList& inputs) {
        TensorList all = f(inputs), some;
        require_replayed(all, places, first);
        for (const std::size_t k : places) some.push_back(std::move(all[k]));
        return some;
      });
  at.inputs = x;
  std::vector<const Tensor*> in;
  for (const Tensor& input : x) {
    in.push_back(&input);
    at.versions.push_back(version_of(input));
  }
  finish(checkpoint_rule, {}, std::move(at), in, out);
  return outputs;
}

}  // namespace hypertape::detail
