#include "method_failure.h"

#include <new>

#include <hypertape/core/error.h>

namespace hypertape {

bool is_out_of_memory(const std::exception& error) noexcept {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return true;
  const auto* own = dynamic_cast<const Error*>(&error);
  return own != nullptr && own->operation() == "allocate";
}

std::string status_of(const std::exception& error) {
  if (!is_out_of_memory(error)) return std::string("failed (") + error.what() + ')';
  // The standard library's says nothing more.
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return "out of memory";
  return std::string("out of memory (") + error.what() + ')';
}

}  // namespace hypertape
