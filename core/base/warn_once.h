// The library's side of hypertape/core/warning.h.
#pragma once

#include <string_view>

namespace hypertape::detail {

/// Gives `text` to the warning sink unless the sink has already had a warning with this key.
/// From within the sink nothing happens.
void warn_once(std::string_view key, std::string_view text);

// Around a fork, which waits for no sink: one may fork, or take long.
void lock_warnings_for_fork();
void unlock_warnings_after_fork(bool in_child) noexcept;

}  // namespace hypertape::detail
