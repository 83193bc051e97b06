#include "hypertape/core/warning.h"

#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "warn_once.h"

namespace hypertape {
namespace {

struct Warnings {
  std::mutex mutex;
  WarningSink sink;
  std::set<std::string, std::less<>> given;
};

// Never destroyed: static objects may compute in their destructors.
Warnings& warnings() {
  static Warnings& instance = *new Warnings;
  return instance;
}

}  // namespace

void set_warning_sink(WarningSink sink) {
  Warnings& state = warnings();
  const std::lock_guard lock(state.mutex);
  state.sink = std::move(sink);
}

namespace detail {

void warn_once(std::string_view key, std::string_view text) {
  Warnings& state = warnings();
  const std::lock_guard lock(state.mutex);
  if (!state.sink || state.given.contains(key)) return;
  state.given.emplace(key);
  state.sink(text);
}

}  // namespace detail
}  // namespace hypertape
