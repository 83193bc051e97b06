// The library's side of hypertape/core/warning.h.
#pragma once

#include <string_view>

namespace hypertape::detail {

/// Gives `text` to the warning sink unless the sink has already had a warning with this key.
void warn_once(std::string_view key, std::string_view text);

}  // namespace hypertape::detail
