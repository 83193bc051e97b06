#include "support.h"

#include <algorithm>

#include "hypertape/autodiff/ops.h"

namespace hypertape::detail {

namespace {
// Supports that wait for each other are asked by recursion.
constexpr int most_depth = 32;
int depth_of(const SupportPointer& support) { return support ? support->depth() : 0; }
}  // namespace

Support::Support(int depth, std::function<Tensor()> make) : depth_(depth + 1), make_(std::move(make)) {
  if (depth_ > most_depth) mask();
}

const Tensor& Support::mask() const {
  if (make_) {
    mask_ = make_();
    make_ = nullptr;
  }
  return mask_;
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

}  // namespace hypertape::detail
