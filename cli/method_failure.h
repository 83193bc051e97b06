// What a method's exception means to those who go on without it.
#pragma once

#include <exception>
#include <string>

namespace hypertape {

/// Whether memory ran out, the library's or any other.
bool is_out_of_memory(const std::exception& error) noexcept;

/// A row's status: "out of memory (...)" or "failed (...)".
std::string status_of(const std::exception& error);

}  // namespace hypertape
