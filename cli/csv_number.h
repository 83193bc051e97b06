// How the CSV reader understands one field.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace hypertape {

/// Without the spaces and tabs around it.
std::string_view trim(std::string_view text);

/// The whole field as a decimal number, "nan" and "inf" included; absent if it is anything else. A number too
/// large for a double is infinite, one too small is zero.
std::optional<double> parse_number(std::string_view field);

/// The field in quotes for an error message: shortened, and without bytes that would upset a terminal.
std::string shown(std::string_view field);

}  // namespace hypertape
