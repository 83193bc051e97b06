#pragma once

namespace hypertape::detail {

/// The same for every call of a thread, and for no other that lives.
inline const void* thread_tag() noexcept {
  static constinit thread_local char tag = 0;
  return &tag;
}

}  // namespace hypertape::detail
