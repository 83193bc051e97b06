#include "autodiff/tape/support.h"

#include <algorithm>

#include <hypertape/autodiff/ops.h>
#include "autodiff/tape/version.h"

namespace hypertape::detail {

namespace {
// Supports that wait for each other are asked by recursion.
constexpr int most_depth = 32;
int depth_of(const SupportPointer& support) { return support ? support->depth() : 0; }
}  // namespace

Support::Support(int depth, std::function<Tensor()> make) : depth_(depth + 1), make_(std::move(make)) {
  if (depth >= most_depth) mask();
}

const Tensor& Support::mask() const {
  std::call_once(once_, [this] {
    mask_ = make_();
    make_ = nullptr;
    depth_.store(0, std::memory_order_relaxed);
  });
  return mask_;
}

ReadLater::ReadLater(const Tensor& tensor) : tensor_(make_alias(tensor)), version_(version_of(tensor)) {}

const Tensor& ReadLater::get() const {
  if (version_of(tensor_) != version_)
    fail("selection", "a tensor of shape ", tensor_.shape(),
         " that its derivative needs was overwritten by assign() after it was used; assign before, or to a "
         "copy");
  return tensor_;
}

SupportPointer joined_support(std::vector<SupportPointer> parts) {
  if (parts.size() == 1) return std::move(parts.front());
  int depth = 0;
  for (const SupportPointer& part : parts) depth = std::max(depth, depth_of(part));
  return std::make_shared<const Support>(depth, [parts = std::move(parts)] {
    Tensor all = Tensor::full(Shape{}, 0.0, Dtype::boolean);
    for (const SupportPointer& part : parts) all = logical_or(all, part->mask());
    return all;
  });
}

SupportPointer summed_support(SupportPointer support, const Shape& from, const Shape& to) {
  const int depth = depth_of(support);
  return std::make_shared<const Support>(depth, [support = std::move(support), from, to] {
    const int missing = from.rank() - to.rank();
    std::vector<std::int64_t> axes;
    for (int axis = 0; axis < from.rank(); ++axis)
      if (axis < missing || to[axis - missing] != from[axis]) axes.push_back(axis);
    return reshape(any(expand(support->mask(), from), axes), to);
  });
}

void select_lines(Pull& pull, int input, std::int64_t axis, const Shape& lines) {
  const SupportPointer arrived = pull.support();
  Tensor& gradient = pull.gradients[static_cast<std::size_t>(input)];
  if (!arrived || !gradient.defined()) return;
  const auto support = std::make_shared<const Support>(
      depth_of(arrived), [arrived, axis, lines, shape = pull.cotangent().shape()] {
        const Tensor mask = expand(arrived->mask(), shape);
        return reshape(axis < 0 ? mask : any(mask, {axis}, true), lines);
      });
  gradient = where(support->mask(), gradient, 0.0);
  if (pull.wants_support(input)) pull.set_support(input, support);
}

Tensor indicator(const SupportPointer& support, const Shape& shape, Dtype dtype) {
  const Tensor one = Tensor::scalar(1.0, dtype);
  return expand(support ? where(support->mask(), one, 0.0) : one, shape);
}

Tensor mask_of_indicator(const Tensor& pulled) { return not_equal(pulled, 0.0); }

namespace {
// Without links: a support is a constant for every derivative.
Tensor unlinked(const Tensor* tensor) { return tensor ? make_alias(*tensor) : Tensor(); }
}  // namespace

PulledSupport::PulledSupport(Node& node, const Pull& pull) : node_(&node), arrived_(pull.cotangents.size()) {
  retain(static_cast<TapeRecord*>(&node));
  for (std::size_t i = 0; i < inputs_.size(); ++i) inputs_[i] = unlinked(pull.inputs[i]);
  for (std::size_t k = 0; k < outputs_.size(); ++k) outputs_[k] = unlinked(pull.outputs[k]);
  for (std::size_t k = 0; k < arrived_.size(); ++k) {
    const Tensor& cotangent = pull.cotangents[k];
    if (!cotangent.defined()) continue;
    arrived_[k] = {cotangent.shape(), cotangent.dtype(), true, pull.support(static_cast<int>(k))};
  }
}

PulledSupport::~PulledSupport() { release(static_cast<TapeRecord*>(node_)); }

void PulledSupport::compute() {
  TensorList cotangents(arrived_.size()), gradients(node_->input_count);
  for (std::size_t k = 0; k < arrived_.size(); ++k)
    if (arrived_[k].defined)
      cotangents[k] = indicator(arrived_[k].support, arrived_[k].shape, arrived_[k].dtype);
  Pull pull;
  pull.attribute_bytes = node_->attributes();
  for (std::size_t i = 0; i < inputs_.size(); ++i)
    if (inputs_[i].defined()) pull.inputs[i] = &inputs_[i];
  for (std::size_t k = 0; k < outputs_.size(); ++k)
    if (outputs_[k].defined()) pull.outputs[k] = &outputs_[k];
  pull.cotangents = cotangents;
  pull.gradients = gradients;
  node_->rule->pull(pull);
  masks_.resize(gradients.size());
  for (std::size_t i = 0; i < gradients.size(); ++i)
    if (gradients[i].defined()) masks_[i] = mask_of_indicator(gradients[i]);
  arrived_.clear();
}

SupportPointer PulledSupport::of_input(const std::shared_ptr<PulledSupport>& all, int input) {
  int depth = 0;
  for (const Arrived& each : all->arrived_) depth = std::max(depth, depth_of(each.support));
  return std::make_shared<const Support>(depth, [all, input] {
    if (all->masks_.empty()) all->compute();
    return all->masks_[static_cast<std::size_t>(input)];
  });
}

namespace {

// A push that can run again.
class PushedRule {
 public:
  PushedRule(const OpRule& rule, const Push& push, const Kept& kept)
      : rule_(rule), results_(push.results.size()) {
    if (kept.node) {
      retain(static_cast<TapeRecord*>(kept.node));
      attributes_ = {push.attribute_bytes,
                     [node = kept.node](const void*) { release(static_cast<TapeRecord*>(node)); }};
    } else {
      attributes_ = kept.copy(push.attribute_bytes);
    }
    for (std::size_t i = 0; i < inputs_.size(); ++i)
      if ((kept.saves.inputs >> i & 1u) && push.inputs[i]) inputs_[i] = ReadLater(*push.inputs[i]);
    for (std::size_t k = 0; k < outputs_.size(); ++k)
      if ((kept.saves.outputs >> k & 1u) && push.outputs[k]) outputs_[k] = ReadLater(*push.outputs[k]);
    for (std::size_t i = 0; i < push.tangents.size(); ++i) {
      const Tensor& tangent = push.tangents[i];
      if (!tangent.defined()) {
        arrived_.emplace_back();
        continue;
      }
      arrived_.push_back({push.block > 0 ? inner_shape(tangent.shape()) : tangent.shape(), tangent.dtype(),
                          true, push.support(static_cast<int>(i))});
      depth_ = std::max(depth_, depth_of(arrived_.back().support));
    }
  }

  int depth() const noexcept { return depth_; }
  Tensor mask(std::size_t output) {
    std::call_once(once_, [this] { compute(); });
    return masks_[output];
  }

 private:
  struct Arrived {
    Shape shape;
    Dtype dtype = Dtype::float64;
    bool defined = false;
    SupportPointer support;
  };
  static Shape inner_shape(const Shape& stacked) {
    std::vector<std::int64_t> extents;
    for (int axis = 1; axis < stacked.rank(); ++axis) extents.push_back(stacked[axis]);
    return Shape(std::span<const std::int64_t>(extents));
  }
  void compute() {
    TensorList tangents(arrived_.size()), results(results_);
    for (std::size_t i = 0; i < arrived_.size(); ++i)
      if (arrived_[i].defined)
        tangents[i] = indicator(arrived_[i].support, arrived_[i].shape, arrived_[i].dtype);
    Push push;
    push.attribute_bytes = attributes_.get();
    for (std::size_t i = 0; i < inputs_.size(); ++i)
      if (inputs_[i].defined()) push.inputs[i] = &inputs_[i].get();
    for (std::size_t k = 0; k < outputs_.size(); ++k)
      if (outputs_[k].defined()) push.outputs[k] = &outputs_[k].get();
    push.tangents = tangents;
    push.results = results;
    rule_.push(push);
    masks_.resize(results_);
    for (std::size_t k = 0; k < results_; ++k)
      if (results[k].defined()) masks_[k] = mask_of_indicator(results[k]);
    arrived_.clear();
    inputs_ = {};
    outputs_ = {};
    attributes_ = nullptr;
  }

  const OpRule& rule_;
  std::shared_ptr<const void> attributes_;
  std::array<ReadLater, Primal::max_saved> inputs_;
  std::array<ReadLater, 2> outputs_;
  std::vector<Arrived> arrived_;
  std::size_t results_;
  int depth_ = 0;
  std::once_flag once_;
  TensorList masks_;
};

bool all_defined(std::span<const Tensor> tangents) {
  return std::all_of(tangents.begin(), tangents.end(), [](const Tensor& t) { return t.defined(); });
}

}  // namespace

void PushedSupports::prepare(const OpRule& rule, Push& push, const std::vector<SupportPointer>& known,
                             const Kept& kept) {
  if (!known.empty()) {
    lists_.tangents = known.data();
    push.supports = &lists_;
  }
  const Supports kind = rule.tangent_supports;
  if (kind == Supports::dropped || (kind == Supports::moved && known.empty())) return;
  // Several tensors are joined, and each has a tangent of which nothing is known.
  if (kind == Supports::selected && known.empty() && push.tangents.size() > 1 && all_defined(push.tangents))
    return;
  const std::size_t count = push.results.size();
  if (count != 1) many_.resize(count);
  SupportPointer* const results = count == 1 ? &first_ : many_.data();
  prepared_ = true;
  if (kind == Supports::handled) {
    lists_.results = results;
    push.supports = &lists_;
    return;
  }
  const auto again = std::make_shared<PushedRule>(rule, push, kept);
  for (std::size_t k = 0; k < count; ++k)
    results[k] = std::make_shared<const Support>(again->depth(), [again, k] { return again->mask(k); });
}

void PushedLines::add(int input, Tensor term, std::int64_t axis, const Shape& lines) {
  if (const SupportPointer arrived = lines_known_ ? push_.support(input) : nullptr) {
    const auto support = std::make_shared<const Support>(
        depth_of(arrived),
        [arrived, axis, lines, shape = push_.tangents[static_cast<std::size_t>(input)].shape()] {
          const Tensor mask = expand(arrived->mask(), shape);
          return reshape(axis < 0 ? mask : any(mask, {axis}, true), lines);
        });
    term = where(support->mask(), term, 0.0);
    parts_.push_back(support);
  } else {
    whole_ = true;
  }
  total_ = total_.defined() ? hypertape::add(std::move(total_), std::move(term)) : std::move(term);
}

void PushedLines::finish() {
  push_.results[0] = std::move(total_);
  if (!whole_ && push_.result_supports()) push_.result_supports()[0] = joined_support(std::move(parts_));
}

}  // namespace hypertape::detail
