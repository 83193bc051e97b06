// A result file that is there whole or not at all.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace hypertape {

/// Throws Error if `path` can clearly not be written, before the work that would be lost.
void require_writable(const std::string& path);

/// Writes a new file beside `path` and renames it, so that no reader ever sees a part of it and an error
/// leaves what was there; it is on the disk when this returns. A symbolic link keeps pointing; a device or
/// pipe is written to directly. Throws Error.
void write_file(const std::string& path, std::string_view text);

/// Whether `name` is what write_file calls one of `names` while it is not whole: what a killed process
/// leaves.
bool is_temporary_of(std::string_view name, std::span<const char* const> names);

}  // namespace hypertape
