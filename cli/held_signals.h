// Signals that would end the process in the middle of writing a file.
#pragma once

#include <signal.h>

#include <initializer_list>

namespace hypertape {

/// While it lives, the signals given are blocked in this thread. A write into a closed pipe or beyond the
/// limit on a file's size then fails by errno; an interruption comes when this ends.
class HeldSignals {
 public:
  explicit HeldSignals(std::initializer_list<int> signals);
  ~HeldSignals();
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;

 private:
  sigset_t before_, caused_;
};

}  // namespace hypertape
