// Signals that would end the process in the middle of writing a file.
#pragma once

#include <signal.h>

#include <initializer_list>
#include <utility>
#include <vector>

namespace hypertape {

/// While it lives, a write of this thread into a closed pipe or beyond the limit on a file's size (SIGPIPE
/// and SIGXFSZ, where they are given) fails by errno; and the other signals given are put off until it ends,
/// in whichever thread they arrive. One thread at a time.
class HeldSignals {
 public:
  explicit HeldSignals(std::initializer_list<int> signals);
  ~HeldSignals();
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;

 private:
  sigset_t mask_, caused_;
  std::vector<std::pair<int, struct sigaction>> put_off_;  // with what they did before
};

}  // namespace hypertape
