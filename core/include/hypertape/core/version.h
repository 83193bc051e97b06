// The version, in one place: the build system and the package files read it from here.
#pragma once

#include <string_view>

#define HYPERTAPE_VERSION_MAJOR 0
#define HYPERTAPE_VERSION_MINOR 1
#define HYPERTAPE_VERSION_PATCH 0
#define HYPERTAPE_VERSION "0.1.0"

namespace hypertape {

/// Version of the headers, "major.minor.patch".
constexpr std::string_view version() noexcept { return HYPERTAPE_VERSION; }

}  // namespace hypertape
