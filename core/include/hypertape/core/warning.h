// Warnings: things worth knowing that are no error. The library itself never prints.
//
//     hypertape::set_warning_sink([](std::string_view text) { std::cerr << text << '\n'; });
#pragma once

#include <functional>
#include <string_view>

#include <hypertape/core/export.h>

namespace hypertape {

/// Receives the text of a warning, "[operation] what happened, and what to do about it."
using WarningSink = std::function<void(std::string_view)>;

/// Sets where warnings go; an empty function, which is the default, discards them. The sink is called by one
/// thread at a time, must not throw, and must not call set_warning_sink; it may compute, and fork. Each
/// warning is given once per process; one that was discarded, or arose in the sink, is given again when its
/// cause recurs.
HYPERTAPE_API void set_warning_sink(WarningSink sink);

}  // namespace hypertape
