// Children that are forked while other threads compute.
#pragma once

namespace hypertape::detail {

/// Has forks wait until the library can be used in the child. Called beside cpu_backend(), which every
/// program links, or the static library would leave it out.
bool prepare_forks() noexcept;

}  // namespace hypertape::detail
