// The library's own threads, and how the calls in progress share them.
#pragma once

#include <sched.h>

#include <hypertape/core/parallel.h>

namespace hypertape::detail {

inline constexpr int most_helpers = 255;

/// The CPUs that the calling thread might run on at the first request; empty if the system does not say.
const cpu_set_t& usable_cpus() noexcept;

/// Before the first helper is made.
void end_helpers_at_exit();

struct Helper;

/// Work of one parallel call, which several threads take part in at once.
class SharedWork {
 public:
  /// At most once for each share, on any thread.
  virtual void take_part(int share) noexcept = 0;

 protected:
  ~SharedWork() = default;
};

/// The caller of one parallel call and its helpers: only as many as leave all calls together with
/// thread_count() threads. Who calls when all are taken works alone, so that k threads of an embedder that
/// call at once do not make k times as many.
class Crew {
 public:
  /// `wanted`: threads with the caller.
  explicit Crew(int wanted) noexcept;
  /// Gives the threads back.
  ~Crew();
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  /// Threads with the caller, who takes share 0.
  int size() const noexcept { return size_; }

  /// Share 0 on this thread, the others on helpers; returns when all who have come are done. The caller never
  /// waits for a helper to come: what nobody has accepted by then is taken back, so that a missing thread (it
  /// could not be made) costs its help and nothing else.
  void run(SharedWork& work, CallSize call) noexcept;

  /// To be called between pieces of share 0: wakes one helper more, if any sleeps that should not. Waking
  /// takes as long as a piece, so that the number of those who are woken grows with the work.
  void wake_another() noexcept {
    if (asleep_ != nullptr) wake_next();
  }

 private:
  void wake_next() noexcept;

  int size_;
  Helper* last_ = nullptr;    // the helpers of this call: each knows the one before it
  Helper* asleep_ = nullptr;  // those up to here may sleep
};

}  // namespace hypertape::detail
