#include "hypertape/core/error.h"

namespace hypertape {

Error::Error(std::string_view operation, std::string_view message)
    : std::runtime_error(std::string("[").append(operation).append("] ").append(message)),
      operation_(operation) {}

Error::~Error() = default;

}  // namespace hypertape
