#pragma once

#include <sched.h>

#include <chrono>

namespace hypertape::detail {

/// Makes room for helpers that were woken and do not come.
///
/// Linux wakes a thread on its waker's CPU where it takes the other CPUs for busy, and under KVM it takes
/// halted ones for preempted. The helper then waits behind its caller until the next balancing: measured 1 ms
/// and more without help after every pause, where it else comes within 80 us. A caller that has been alone
/// for `patience` moves to another CPU of its own, which leaves this one to the helper. Affinity is as before
/// afterwards, and results never depend on who computes.
///
/// One for each calling thread.
class LateHelp {
 public:
  /// At the start of a parallel call.
  void begin() noexcept {
    const Clock::time_point now = Clock::now();
    if (now - ended_ > patience) alone_since_ = now;  // after a pause helpers are woken anew
  }
  /// Between chunks: the caller has had no help in this call.
  void alone() noexcept {
    const Clock::time_point now = Clock::now();
    if (now - alone_since_ < patience || now < not_before_) return;
    not_before_ = now + rest;
    step_aside();
    alone_since_ = Clock::now();
  }
  /// At the end of a call.
  void end(bool helped) noexcept {
    ended_ = Clock::now();
    if (helped) alone_since_ = ended_;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr auto patience = std::chrono::microseconds(150);
  // Where all CPUs are busy, moving is in vain: 20 us, rarely.
  static constexpr auto rest = std::chrono::milliseconds(1);

  static void step_aside() noexcept {
    cpu_set_t all;
    CPU_ZERO(&all);
    if (sched_getaffinity(0, sizeof all, &all) != 0) return;
    cpu_set_t others = all;
    const int here = sched_getcpu();
    if (here < 0 || here >= CPU_SETSIZE) return;
    CPU_CLR(here, &others);
    if (CPU_COUNT(&others) == 0) return;
    if (sched_setaffinity(0, sizeof others, &others) == 0) sched_setaffinity(0, sizeof all, &all);
  }

  Clock::time_point ended_{}, alone_since_{}, not_before_{};
};

}  // namespace hypertape::detail
