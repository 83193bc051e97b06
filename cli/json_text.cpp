#include "json_text.h"

#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "readable.h"

namespace hypertape {

using Json = nlohmann::ordered_json;

Json parse_json(std::string_view text) {
  // Copying and printing take the stack for each level.
  constexpr int deepest = 20;
  std::vector<std::set<std::string>> names;  // of the objects that are open
  const auto check = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > deepest) throw std::invalid_argument("it is nested too deeply");
    if (event == Json::parse_event_t::object_start) names.emplace_back();
    if (event == Json::parse_event_t::object_end) names.pop_back();
    if (event == Json::parse_event_t::key && !names.back().insert(parsed.get<std::string>()).second)
      throw std::invalid_argument("\"" + printable(parsed.get<std::string>()) + "\" is there twice");
    return true;
  };
  try {
    return Json::parse(text, check);
  } catch (const Json::parse_error& error) {
    throw std::invalid_argument("it is no JSON: byte " + std::to_string(error.byte) + " does not fit");
  } catch (const Json::out_of_range&) {
    throw std::invalid_argument("a number is too large");
  }
}

const Json& member(const Json& object, const char* name) {
  const auto found = object.is_object() ? object.find(name) : object.end();
  if (found == object.end()) throw std::invalid_argument("\"" + std::string(name) + "\" is missing");
  return *found;
}

const Json& element(const Json& array, std::size_t position) {
  if (!array.is_array() || position >= array.size()) throw std::invalid_argument("a list is too short");
  return array[position];
}

}  // namespace hypertape
