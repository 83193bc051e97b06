// The elementwise operations: one struct each, everything about the operation in it.
//
//   arity     number of operands
//   value     the body, one element, float or double
//   pull<i>   cotangent of operand i from the output's cotangent t: t * d value / d operand i. The Jacobian
//   is
//             diagonal, so the same formula gives the tangent that operand i contributes from its tangent t.
//             Instantiated for elements, for their dual numbers if fused, and for Tensor (public operations,
//             any order).
//   uses[i]   what pull<i> reads besides t, in this order: first to third operand, output. An operation
//             without derivatives has empty arrays here and below.
//   fused[i]  whether pull<i> is a kernel of its own, with kernels for its derivatives; if not, it is one
//             public operation, or a few that are not worth a kernel
//   product   (optional) whether pull<i> is t times one used tensor: summed to a scalar, it is a dot product
//   selects   (optional) true if the pulls pass t on, a constant multiple of it, or 0, depending on what they
//             read
//   cost      passes over memory that evaluating the body takes as long as, pull_cost the same for fused
//   pulls;
//             1 if not given
//   domain    where tests sample each operand; kinks (one for all operands, or one for each) are points where
//             the derivative jumps
//
// Selections such as relu's have a derivative in what they pass on and none in what decides: their pulls do
// not depend on the latter, and a second derivative is absent rather than zeros.
//
// Adding an operation: one struct in the file of its theme, one line in elementwise.def.
#pragma once

#include "core/elementwise/activations.h"
#include "core/elementwise/arithmetic.h"
#include "core/elementwise/functions.h"

namespace hypertape {
namespace {
namespace elementwise {

template <class Op, int operand>
inline constexpr int pull_arity = 1 + __builtin_popcount(Op::uses[operand]);

namespace bodies {
template <class Op, int operand, int j, std::size_t... k>
constexpr bool pull_depends_on(std::index_sequence<k...>) {
  const auto argument = []<std::size_t position>() {
    if constexpr (position == j)
      return Dual<double>{};
    else
      return double{};
  };
  return IsDual<decltype(Op::template pull<operand>(Constant{0.0},
                                                    argument.template operator()<k>()...))>::value;
}
}  // namespace bodies

/// Whether the formula pull<operand> has a derivative in its argument j, counting t, then what it uses.
template <class Op, int operand, int j>
inline constexpr bool pull_depends_on =
    bodies::pull_depends_on<Op, operand, j>(std::make_index_sequence<pull_arity<Op, operand>>());

/// Whether the pulls of Op are selections.
template <class Op>
inline constexpr bool selects = [] {
  if constexpr (requires { Op::selects; })
    return Op::selects;
  else
    return false;
}();

}  // namespace elementwise
}  // namespace
}  // namespace hypertape
