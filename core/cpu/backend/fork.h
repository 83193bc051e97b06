// Children that are forked while other threads compute.
#pragma once

namespace hypertape::detail {

/// Has forks wait until the library can be used in the child. Called by what every program links, or the
/// static library would leave it out.
bool prepare_forks() noexcept;

/// The same for every call of a thread, and for no other that lives.
inline const void* thread_tag() noexcept {
  static constinit thread_local char tag = 0;
  return &tag;
}

}  // namespace hypertape::detail
