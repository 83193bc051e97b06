// Chooses, once, the ISA level whose kernels run.
#include "core/cpu/isa/features.h"
#include "core/cpu/isa/loops.h"
#include "core/cpu/steps/kernels.h"
#include "core/elementwise/codes.h"

namespace hypertape::detail {

#define HYPERTAPE_KERNELS(isa)                                  \
  namespace isa {                                               \
  const OpKernels* elementwise_table() noexcept;                \
  const Loops<float>& loops_float32() noexcept;                 \
  const Loops<double>& loops_float64() noexcept;                \
  const OptimizerKernels<float>& optimizer_float32() noexcept;  \
  const OptimizerKernels<double>& optimizer_float64() noexcept; \
  const SoftmaxLoops<float>& softmax_loops_float32() noexcept;  \
  const SoftmaxLoops<double>& softmax_loops_float64() noexcept; \
  }
HYPERTAPE_KERNELS(baseline)
#if defined(__x86_64__)
HYPERTAPE_KERNELS(avx2)
HYPERTAPE_KERNELS(avx512)
#endif
#undef HYPERTAPE_KERNELS

namespace {

struct Kernels {
  const OpKernels* elementwise = baseline::elementwise_table();
  const Loops<float>* float32 = &baseline::loops_float32();
  const Loops<double>* float64 = &baseline::loops_float64();
  const OptimizerKernels<float>* optimizer_float32 = &baseline::optimizer_float32();
  const OptimizerKernels<double>* optimizer_float64 = &baseline::optimizer_float64();
  const SoftmaxLoops<float>* softmax32 = &baseline::softmax_loops_float32();
  const SoftmaxLoops<double>* softmax64 = &baseline::softmax_loops_float64();
};

Kernels choose() {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::avx512:
      return {avx512::elementwise_table(),     &avx512::loops_float32(),     &avx512::loops_float64(),
              &avx512::optimizer_float32(),    &avx512::optimizer_float64(), &avx512::softmax_loops_float32(),
              &avx512::softmax_loops_float64()};
    case Isa::avx2:
      return {avx2::elementwise_table(),     &avx2::loops_float32(),     &avx2::loops_float64(),
              &avx2::optimizer_float32(),    &avx2::optimizer_float64(), &avx2::softmax_loops_float32(),
              &avx2::softmax_loops_float64()};
    case Isa::baseline:
      break;
  }
#endif
  return {};
}

const Kernels& kernels() {
  static const Kernels chosen = choose();
  return chosen;
}

}  // namespace

const OpKernels& elementwise_kernels(ElementwiseCode code) {
  return kernels().elementwise[static_cast<std::size_t>(code)];
}
template <>
const Loops<float>& loops<float>() {
  return *kernels().float32;
}
template <>
const Loops<double>& loops<double>() {
  return *kernels().float64;
}
template <>
const OptimizerKernels<float>& optimizer_kernels<float>() {
  return *kernels().optimizer_float32;
}
template <>
const OptimizerKernels<double>& optimizer_kernels<double>() {
  return *kernels().optimizer_float64;
}
template <>
const SoftmaxLoops<float>& softmax_loops<float>() {
  return *kernels().softmax32;
}
template <>
const SoftmaxLoops<double>& softmax_loops<double>() {
  return *kernels().softmax64;
}

}  // namespace hypertape::detail
