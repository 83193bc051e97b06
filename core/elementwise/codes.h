// The elementwise kernels as data: what each operation of elementwise.def is compiled to.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hypertape::detail {

/// The operations, in the order of elementwise.def.
enum class ElementwiseCode : std::uint8_t {
#define HYPERTAPE_UNARY(Op, name) name,
#define HYPERTAPE_BINARY(Op, name) name,
#define HYPERTAPE_TERNARY(Op, name) name,
#define HYPERTAPE_WITH_SCALAR(Op, name) name,
#include <hypertape/core/elementwise.def>
  count
};

/// n elements of unit stride; null operands do not occur.
using ElementwiseLoop = void (*)(std::int64_t n, const void* const* inputs, void* const* outputs,
                                 double scalar);

/// The same kernel for both floating dtypes; null where the derivative does not exist.
struct ElementwiseKernels {
  ElementwiseLoop float32 = nullptr, float64 = nullptr;
  int cost = 1;
  explicit operator bool() const noexcept { return float64 != nullptr; }
};

/// Kernels of one operation. `mask` says which operands carry a tangent; a dual kernel reads the operands,
/// then those tangents in order, and writes the plain kernel's value, bit for bit, and the tangent.
struct OpKernels {
  static constexpr int max_arity = 3, max_pull_arity = 4;
  ElementwiseKernels value;
  ElementwiseKernels dual[1 << max_arity];
  /// Fused pull<i>(t, used...).
  ElementwiseKernels pull[max_arity];
  ElementwiseKernels pull_dual[max_arity][1 << max_pull_arity];
  /// Cotangent of argument j > 0 of pull<i> from s: inputs s, t, used... (in t, it is pull<i> itself).
  ElementwiseKernels pull_pull[max_arity][max_pull_arity];
};

/// The kernels for this machine's ISA level.
const OpKernels& elementwise_kernels(ElementwiseCode code);

}  // namespace hypertape::detail
