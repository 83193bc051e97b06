#include "optim/settings.h"

#include <algorithm>
#include <cmath>

#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include "autodiff/ops/checks.h"

namespace hypertape::optim::detail {

Tensor Value::as(Dtype dtype) const {
  if (!tensor.defined()) return Tensor::scalar(number, dtype);
  if (tensor.dtype() != dtype) {
    const std::string whose = parameter < 0 ? "the parameters" : "parameter " + std::to_string(parameter);
    fail(op, what, " '", setting->name, "' is ", tensor.dtype(), ", but ", whose,
         parameter < 0 ? " are " : " is ", dtype, "; give both one dtype (astype)");
  }
  return tensor;
}

Value value_of(const char* op, const char* what, const Setting& setting, const NamedTensors& h) {
  if (setting.name.empty()) return {Tensor(), setting.value};
  return {h[setting.name], 0.0, op, what, &setting};
}

Value scalar_of(const char* op, const char* what, const Setting& setting, const NamedTensors& h) {
  Value value = value_of(op, what, setting, h);
  if (value.tensor.defined() && value.tensor.rank() != 0)
    fail(op, what, " '", setting.name, "' has shape ", value.tensor.shape(),
         " in one step; it must be a scalar");
  return value;
}

std::vector<Value> per_parameter(const char* op, const char* what, const Setting& setting,
                                 const std::vector<std::int64_t>& groups, const NamedTensors& h,
                                 std::size_t parameters) {
  const Value value = value_of(op, what, setting, h);
  std::vector<Value> values(parameters, value);
  for (std::size_t i = 0; i < parameters; ++i) values[i].parameter = static_cast<std::int64_t>(i);
  if (!value.tensor.defined() || value.tensor.rank() == 0) return values;
  if (value.tensor.rank() != 1)
    fail(op, what, " '", setting.name, "' has shape ", value.tensor.shape(),
         " in one step; it must be a scalar or a vector with one ", what, " per group");
  if (!groups.empty() && groups.size() != parameters)
    fail(op, groups.size(), " rate groups given for ", parameters, " parameter tensors");
  std::int64_t needed = groups.empty() ? static_cast<std::int64_t>(parameters) : 0;
  for (const std::int64_t group : groups) needed = std::max(needed, group + 1);
  if (value.tensor.size() != needed)
    fail(op, what, " '", setting.name, "' has ", value.tensor.size(), " elements in one step, but there are ",
         needed, " groups");
  const TensorList elements = unstack(value.tensor);
  for (std::size_t i = 0; i < parameters; ++i)
    values[i].tensor = elements[groups.empty() ? i : static_cast<std::size_t>(groups[i])];
  return values;
}

namespace {

// Whether operations take x for a tensor of that form.
bool broadcasts_to(const hypertape::detail::Header& x, const hypertape::detail::Header& like) noexcept {
  if (x.rank > like.rank) return false;
  const std::int64_t* extents = like.extents() + (like.rank - x.rank);
  for (int axis = 0; axis < x.rank; ++axis)
    if (x.extents()[axis] != 1 && x.extents()[axis] != extents[axis]) return false;
  return true;
}

void require_like(const char* op, const char* what, std::size_t number, const Tensor& x, const Tensor& like,
                  std::size_t parameter, bool may_broadcast = false) {
  if (!like.defined()) fail(op, "parameter ", parameter, " is absent");
  if (!x.defined()) fail(op, what, ' ', number, " is absent");
  const hypertape::detail::Header &a = *x.header(), &b = *like.header();
  if (a.dtype == b.dtype && (may_broadcast ? broadcasts_to(a, b) : hypertape::detail::same_shape(a, b)))
    return;
  fail(op, what, ' ', number, " is ", x.dtype(), ' ', x.shape(), ", but parameter ", parameter, " is ",
       like.dtype(), ' ', like.shape());
}

}  // namespace

void require_state(const char* op, const State& state, const TensorList& gradients, std::size_t moments,
                   std::size_t buffers) {
  const std::size_t count = state.parameters.size();
  if (state.buffers.size() != buffers)
    fail(op, state.buffers.size(), " buffers for ", count, " parameter tensors; there must be ", buffers);
  if (gradients.size() != count)
    fail(op, gradients.size(), " gradients for ", count, " parameter tensors; there must be as many");
  for (std::size_t i = 0; i < count; ++i)
    require_like(op, "gradient", i, gradients[i], state.parameters[i], i, true);
  for (std::size_t i = 0; i < moments * count; ++i)
    require_like(op, "buffer", i, state.buffers[i], state.parameters[i % count], i % count);
  for (std::size_t i = moments * count; i < buffers; ++i)
    if (!state.buffers[i].defined() || state.buffers[i].rank() != 0)
      fail(op, "buffer ", i, " must be a scalar");
}

bool is_absent(const Setting& setting) noexcept { return setting.name.empty() && setting.value == 0.0; }

void require_finite(const char* op, const char* what, const Setting& setting) {
  if (setting.name.empty() && !std::isfinite(setting.value))
    fail(op, what, ' ', setting.value, " is not finite");
}

void require_share(const char* op, const char* what, const Setting& setting) {
  if (setting.name.empty() && !(setting.value >= 0.0 && setting.value < 1.0))
    fail(op, what, ' ', setting.value, " is not in [0, 1)");
}

void require_not_negative(const char* op, const char* what, const Setting& setting) {
  require_finite(op, what, setting);
  if (setting.name.empty() && setting.value < 0.0) fail(op, what, ' ', setting.value, " is negative");
}

void require_groups(const char* op, const std::vector<std::int64_t>& groups) {
  for (const std::int64_t group : groups)
    if (group < 0) fail(op, "rate group ", group, " is negative");
}

}  // namespace hypertape::optim::detail
