// Apart from their users, so that no arithmetic is moved over the change.
#include "core/base/default_floats.h"

namespace hypertape::detail {

#if defined(__x86_64__)

void DefaultFloats::set_default(State& before) noexcept {
  before.sse = __builtin_ia32_stmxcsr();
  asm volatile("fnstenv %0" : "=m"(before.x87));
  constexpr std::uint16_t x87 = 0x037f;
  asm volatile("fnclex\n\tfldcw %0" : : "m"(x87));
  __builtin_ia32_ldmxcsr(0x1f80u);
}

// The flags of x87 come back with its masks: one that was raised meanwhile would trap.
void DefaultFloats::restore(const State& before) noexcept {
  asm volatile("fldenv %0" : : "m"(before.x87));
  __builtin_ia32_ldmxcsr(before.sse);
}

#elif defined(__aarch64__)

void DefaultFloats::set_default(State& before) noexcept {
  asm volatile("mrs %0, fpcr" : "=r"(before.control));
  asm volatile("mrs %0, fpsr" : "=r"(before.flags));
  asm volatile("msr fpcr, %0" : : "r"(std::uint64_t{0}));
}

void DefaultFloats::restore(const State& before) noexcept {
  asm volatile("msr fpsr, %0" : : "r"(before.flags));
  asm volatile("msr fpcr, %0" : : "r"(before.control));
}

#else

void DefaultFloats::set_default(State& before) noexcept {
  std::fegetenv(&before);
  std::fesetenv(FE_DFL_ENV);
}

void DefaultFloats::restore(const State& before) noexcept { std::fesetenv(&before); }

#endif

}  // namespace hypertape::detail
