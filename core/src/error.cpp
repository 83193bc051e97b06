#include "hypertape/core/error.h"

namespace hypertape {

Error::Error(std::string_view operation, std::string_view message)
    : std::runtime_error(std::string("[").append(operation).append("] ").append(message)),
      operation_(operation) {}

Error::~Error() = default;

const char* Error::what() const noexcept {
  return with_context_.empty() ? std::runtime_error::what() : with_context_.c_str();
}

void Error::add_context(std::string_view where) {
  with_context_ = std::string(what()).append(" (").append(where).append(")");
}

}  // namespace hypertape
