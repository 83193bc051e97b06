#include "held_signals.h"

#include <ctime>

namespace hypertape {
namespace {

constexpr int most_signals = 65;
volatile sig_atomic_t arrived[most_signals];

extern "C" void hypertape_put_off(int signal) { arrived[signal] = 1; }

bool is_caused_by_writing(int signal) { return signal == SIGPIPE || signal == SIGXFSZ; }

}  // namespace

// Blocking would put off nothing: a library's threads take what this one does not.
HeldSignals::HeldSignals(std::initializer_list<int> signals) {
  sigset_t caused, pending;
  sigemptyset(&caused);
  sigemptyset(&caused_);
  for (const int signal : signals)
    if (is_caused_by_writing(signal)) sigaddset(&caused, signal);
  ::pthread_sigmask(SIG_BLOCK, &caused, &mask_);
  ::sigpending(&pending);
  struct sigaction put_off {};
  put_off.sa_handler = hypertape_put_off;
  put_off.sa_flags = SA_RESTART;
  sigemptyset(&put_off.sa_mask);
  for (const int signal : signals) {
    if (is_caused_by_writing(signal)) {
      // Dropped at the end, unless somebody else waits for it.
      if (sigismember(&mask_, signal) == 0 && sigismember(&pending, signal) == 0) sigaddset(&caused_, signal);
      continue;
    }
    struct sigaction before;
    ::sigaction(signal, nullptr, &before);
    if (before.sa_handler == SIG_IGN) continue;
    put_off_.emplace_back(signal, before);
    ::sigaction(signal, &put_off, nullptr);
  }
}

HeldSignals::~HeldSignals() {
  constexpr timespec at_once = {0, 0};
  while (::sigtimedwait(&caused_, nullptr, &at_once) > 0) {
  }
  ::pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
  for (const auto& [signal, before] : put_off_) ::sigaction(signal, &before, nullptr);
  for (const auto& [signal, before] : put_off_) {
    if (arrived[signal] == 0) continue;
    arrived[signal] = 0;
    ::raise(signal);
  }
}

}  // namespace hypertape
