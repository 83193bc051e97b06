// Floating-point arithmetic of the library, whatever the thread that calls it has set for its own.
#pragma once

#include <cfenv>
#include <cstdint>

namespace hypertape::detail {

/// While it lives, this thread computes as a new process does: it rounds to nearest, keeps subnormal numbers
/// and traps on nothing. At its end the thread has back what it had, with its exception flags; where
/// nothing was to be changed the flags are what the arithmetic made of them. Every call of a backend makes
/// one (BackendCall), and so does each public function that computes with numbers of its own or calls the
/// user's functions.
class [[nodiscard]] DefaultFloats {
 public:
  DefaultFloats() noexcept : changed_(!are_default()) {
    if (changed_) [[unlikely]]
      set_default(before_);
  }
  ~DefaultFloats() {
    if (changed_) [[unlikely]]
      restore(before_);
  }
  DefaultFloats(const DefaultFloats&) = delete;
  DefaultFloats& operator=(const DefaultFloats&) = delete;

  static bool are_default() noexcept;

 private:
#if defined(__x86_64__)
  // The libraries beneath (conversion of text, long double) ask the x87 unit, all else is SSE.
  struct State {
    unsigned int sse;
    unsigned char x87[28];
  };
#elif defined(__aarch64__)
  struct State {
    std::uint64_t control, flags;
  };
#else
  using State = std::fenv_t;
#endif
  static void set_default(State& before) noexcept;
  static void restore(const State& before) noexcept;

  bool changed_;
  State before_;  // set if changed
};

inline bool DefaultFloats::are_default() noexcept {
#if defined(__x86_64__)
  // All but the flags of both: masks of the exceptions, rounding, and of SSE flush to zero and
  // denormals-are-zero. The precision of x87 (bits 8 and 9) is its user's.
  std::uint16_t x87;
  asm volatile("fnstcw %0" : "=m"(x87));
  return (((__builtin_ia32_stmxcsr() & 0xffc0u) ^ 0x1f80u) | ((x87 & 0x0c3fu) ^ 0x003fu)) == 0;
#elif defined(__aarch64__)
  std::uint64_t control;
  asm volatile("mrs %0, fpcr" : "=r"(control));
  return control == 0;
#elif defined(__GLIBC__)
  return std::fegetround() == FE_TONEAREST && fegetexcept() == 0;
#else
  return std::fegetround() == FE_TONEAREST;
#endif
}

}  // namespace hypertape::detail
