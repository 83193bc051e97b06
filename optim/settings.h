// Settings of an optimizer at one step: numbers, or hyperparameters by name.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include <hypertape/optim/step.h>

namespace hypertape::optim::detail {

/// A setting as a number (constant) or as a tensor (hyperparameter): `tensor` is absent for a constant.
struct Value {
  Tensor tensor;
  double number = 0.0;
  const char *op = "", *what = "";  ///< for messages
  const Setting* setting = nullptr;
  std::int64_t parameter = -1;  ///< whose value it is; -1: of all

  /// Error if it is a hyperparameter of another dtype than the parameter's.
  Tensor as(Dtype dtype) const;
};

Value value_of(const char* op, const char* what, const Setting& setting, const NamedTensors& h);

/// Error unless the hyperparameter, if it is one, has rank 0 in one step. `op` and `what` are for messages.
Value scalar_of(const char* op, const char* what, const Setting& setting, const NamedTensors& h);

/// The setting of each parameter tensor: a scalar for all, or an element of a vector by `groups` (empty: one
/// group for each parameter tensor).
std::vector<Value> per_parameter(const char* op, const char* what, const Setting& setting,
                                 const std::vector<std::int64_t>& groups, const NamedTensors& h,
                                 std::size_t parameters);

/// Error unless there is a gradient for every parameter tensor, which may broadcast to it, and `buffers`
/// buffers in the state, of which the first `moments` times as many as there are parameters are of the
/// parameters' form, one after another.
void require_state(const char* op, const State& state, const TensorList& gradients, std::size_t moments,
                   std::size_t buffers);

/// Whether the setting is the constant 0, for which nothing needs to be computed.
bool is_absent(const Setting& setting) noexcept;

// Checks of constants; a hyperparameter passes.
void require_finite(const char* op, const char* what, const Setting& setting);
/// 0 <= constant < 1
void require_share(const char* op, const char* what, const Setting& setting);
void require_not_negative(const char* op, const char* what, const Setting& setting);
void require_groups(const char* op, const std::vector<std::int64_t>& groups);

}  // namespace hypertape::optim::detail
