#include <hypertape/core/warning.h>

#include <mutex>
#include <new>
#include <set>
#include <string>
#include <utility>

#include "core/base/warn_once.h"

namespace hypertape {
namespace {

struct Warnings {
  std::mutex calls;  // the sink's, one at a time; taken before `mutex`
  std::mutex mutex;  // guards what follows, and is never held while the sink runs
  WarningSink sink;
  std::set<std::string, std::less<>> given;
};

// Never destroyed: static objects may compute in their destructors.
Warnings& warnings() {
  static Warnings& instance = *new Warnings;
  return instance;
}

constinit thread_local bool is_in_sink = false;

class InSink {
 public:
  InSink() noexcept { is_in_sink = true; }
  ~InSink() { is_in_sink = false; }
  InSink(const InSink&) = delete;
  InSink& operator=(const InSink&) = delete;
};

}  // namespace

void set_warning_sink(WarningSink sink) {
  Warnings& state = warnings();
  const std::lock_guard calls(state.calls);
  const std::lock_guard lock(state.mutex);
  state.sink = std::move(sink);
}

namespace detail {

void warn_once(std::string_view key, std::string_view text) {
  if (is_in_sink) return;  // it computes, and waits for itself otherwise
  Warnings& state = warnings();
  const std::lock_guard calls(state.calls);
  {
    const std::lock_guard lock(state.mutex);
    if (!state.sink || state.given.contains(key)) return;
    state.given.emplace(key);
  }
  const InSink inside;
  state.sink(text);
}

void lock_warnings_for_fork() { warnings().mutex.lock(); }

void unlock_warnings_after_fork(bool in_child) noexcept {
  Warnings& state = warnings();
  state.mutex.unlock();
  // A thread that the child does not have may be in the sink. Nobody ever waits for this mutex here.
  if (in_child && !is_in_sink) new (&state.calls) std::mutex;
}

}  // namespace detail
}  // namespace hypertape
