// Children that are forked while other threads compute.
#pragma once

namespace hypertape::detail {

/// Has forks wait until the library can be used in the child. Called by what every program links, or the
/// static library would leave it out.
bool prepare_forks() noexcept;

}  // namespace hypertape::detail
