#include "held_signals.h"

#include <ctime>

namespace hypertape {

HeldSignals::HeldSignals(std::initializer_list<int> signals) {
  sigset_t held, pending;
  sigemptyset(&held);
  sigemptyset(&caused_);
  for (const int signal : signals) sigaddset(&held, signal);
  ::pthread_sigmask(SIG_BLOCK, &held, &before_);
  ::sigpending(&pending);
  // What a write itself causes is reported by errno, and dropped here unless somebody else waits for it.
  for (const int signal : {SIGPIPE, SIGXFSZ})
    if (sigismember(&held, signal) == 1 && sigismember(&before_, signal) == 0 &&
        sigismember(&pending, signal) == 0)
      sigaddset(&caused_, signal);
}

HeldSignals::~HeldSignals() {
  constexpr timespec at_once = {0, 0};
  while (::sigtimedwait(&caused_, nullptr, &at_once) > 0) {
  }
  ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

}  // namespace hypertape
