// JSON that others wrote.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace hypertape {

/// Throws std::invalid_argument, in words for users, for text that is not JSON, gives a name twice in one
/// object, has a number beyond the range of float64, or is nested more than 20 deep.
nlohmann::ordered_json parse_json(std::string_view text);

/// The value of a name in an object, or of a position in an array; std::invalid_argument if there is none.
const nlohmann::ordered_json& member(const nlohmann::ordered_json& object, const char* name);
const nlohmann::ordered_json& element(const nlohmann::ordered_json& array, std::size_t position);

}  // namespace hypertape
