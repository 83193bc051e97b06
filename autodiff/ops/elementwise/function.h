// One elementwise function at run time: what its kernels, derivatives and name are. Operations, their fused
// cotangent formulas and the derivatives of those are all of this kind.
#pragma once

#include <span>

#include "autodiff/tape/node.h"
#include "core/elementwise/codes.h"

namespace hypertape::detail {

struct ElementwiseFunction {
  const char* name;
  int arity;
  /// Bit i: a derivative in operand i exists.
  unsigned differentiable;
  Saves (*saves)(unsigned linked);
  ElementwiseKernels (*kernel)(unsigned mask);  ///< plain for 0, else dual
  /// For pulls that are t times one tensor: that tensor, else null.
  const Tensor* (*factor)(int operand, const Primal& primal);
  /// Contribution of operand i: the formula pull<i> at cotangent or tangent t. `sum` as below, or null.
  Tensor (*pull)(int operand, const Primal& primal, double scalar, const Tensor& t, Tensor* sum);
  /// Whether pull<operand> makes 0 of 0 whatever it reads: its slope does not depend on anything, or is a
  /// selection.
  bool (*keeps_zero)(int operand, double scalar);
  bool selects;  ///< the pulls are selections (core/elementwise/structs.h)
};

/// The function of these operands, recorded and with tangents as they demand; a donated operand may become
/// the result. With a `sum` whose memory is free to take, and where nothing is linked, the function is added
/// to it in one pass: then the result is the whole sum, and `sum` is left absent.
Tensor apply_elementwise(const ElementwiseFunction& function, double scalar,
                         std::span<const Operand> operands, Tensor* sum = nullptr);

/// add, of two tensors.
const ElementwiseFunction& addition() noexcept;
/// Whether the node adds two tensors of one shape.
bool is_addition(Node& node) noexcept;

/// Whether supports only pass through the node, none of whose slopes can be infinite.
bool only_passes_supports(Node& node) noexcept;

/// Whether a support that the node gives its result comes from one of its operands.
bool only_hands_supports_on(Node& node) noexcept;

/// The cotangent of tanh's operand from that of its result y: t (1 - y y).
Tensor tanh_cotangent(Operand t, const Tensor& y);

}  // namespace hypertape::detail
