// What an elementwise node keeps, and the rules that read it.
#pragma once

#include <array>

#include "autodiff/ops/elementwise/function.h"

namespace hypertape::detail {

inline constexpr int max_arguments = 5;

/// Attributes of a node: which function, its scalar, and the operands' shapes where they broadcast.
struct ElementwiseAttributes {
  const ElementwiseFunction* function;
  double scalar;
};
struct BroadcastAttributes {
  ElementwiseAttributes plain;
  std::array<Shape, max_arguments> shapes;
};

/// Of nodes whose operands have the shape of the result, and of all others.
extern const OpRule elementwise_rule;
extern const OpRule broadcast_rule;

/// What a selection gives its result of the tangents of `present` operands: the sum of its pulls of
/// indicators, whose coefficients have one sign. `shapes`: of the operands, or one for all.
SupportPointer placed_support(const ElementwiseFunction& function, double scalar, const Primal& primal,
                              unsigned present, std::span<const Shape> shapes, Dtype dtype,
                              std::span<const SupportPointer> arrived);
/// The support of a sum of the terms that `present` operands' tangents make: null if nothing is known of one.
SupportPointer joined_terms(unsigned present, std::span<const SupportPointer> arrived);

}  // namespace hypertape::detail
