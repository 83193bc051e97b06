#include "tune_state.h"

#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>

#include <hypertape/core/error.h>
#include "json_text.h"
#include "npz_file.h"
#include "readable.h"

namespace hypertape {
namespace {

using Json = nlohmann::ordered_json;

constexpr char operation[] = "read state";
constexpr std::string_view record_name = "record";

std::string header_of(std::string_view payload) {
  return "hypertape tune state 1, " + std::to_string(payload.size()) + " bytes, checksum " +
         checksum(payload) + "\n";
}

Json or_null(const std::optional<double>& number) { return number ? Json(*number) : Json(nullptr); }

// NaN and infinity are null in JSON.
double number_of(const Json& json) {
  if (!json.is_number()) throw std::invalid_argument("a number is missing");
  return json.get<double>();
}

std::optional<double> optional_of(const Json& json) {
  return json.is_null() ? std::nullopt : std::optional(number_of(json));
}

std::int64_t count_of(const Json& json, std::int64_t least = 0) {
  // What is added to a count stays far from overflow.
  constexpr std::int64_t most = std::int64_t{1} << 53;
  const bool too_large = json.is_number_unsigned() && json.get<std::uint64_t>() > std::uint64_t{most};
  if (!json.is_number_integer() || too_large || json.get<std::int64_t>() < least)
    throw std::invalid_argument("a count is missing or out of range");
  return json.get<std::int64_t>();
}

std::string text_of(const Json& json) {
  if (!json.is_string()) throw std::invalid_argument("a text is missing");
  return json.get<std::string>();
}

const Json& list_of(const Json& json) {
  if (!json.is_array()) throw std::invalid_argument("a list is missing");
  return json;
}

Json json_of(const Quality& quality) { return {quality.loss, quality.accuracy}; }
Quality quality_of(const Json& json) { return {number_of(element(json, 0)), number_of(element(json, 1))}; }

std::vector<std::uint8_t> bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

Json record_of(const TuneState& state) {
  Json history = Json::array(), grid = Json::array();
  for (const OuterRecord& each : state.history)
    history.push_back({or_null(each.validation_loss), or_null(each.training_loss),
                       or_null(each.gradient_norm), each.seconds, each.status});
  for (const GridRecord& each : state.grid)
    grid.push_back({each.rate, each.momentum, each.l2, or_null(each.validation_loss)});
  Json before = nullptr;
  if (state.before)
    before = {json_of(state.before->training), json_of(state.before->validation),
              json_of(state.before->test)};
  return {{"settings", state.settings},     {"best_step", state.best_step},
          {"adam_steps", state.adam.steps}, {"rejections", state.rejections},
          {"gradients", state.gradients},   {"hessian_vector_products", state.hessian_vector_products},
          {"before", std::move(before)},    {"history", std::move(history)},
          {"grid", std::move(grid)}};
}

// Throws std::exception for a record that record_of does not write, or one that contradicts itself.
void set_record(TuneState& state, const Json& record) {
  state.settings = member(record, "settings");
  if (!state.settings.is_object()) throw std::invalid_argument("the settings are missing");
  state.best_step = count_of(member(record, "best_step"), -1);
  state.adam.steps = count_of(member(record, "adam_steps"));
  state.rejections = count_of(member(record, "rejections"));
  state.gradients = count_of(member(record, "gradients"));
  state.hessian_vector_products = count_of(member(record, "hessian_vector_products"));
  if (const Json& before = member(record, "before"); !before.is_null())
    state.before = Evaluation{quality_of(element(before, 0)), quality_of(element(before, 1)),
                              quality_of(element(before, 2))};
  for (const Json& each : list_of(member(record, "history")))
    state.history.push_back({optional_of(element(each, 0)), optional_of(element(each, 1)),
                             optional_of(element(each, 2)), number_of(element(each, 3)),
                             text_of(element(each, 4))});
  for (const Json& each : list_of(member(record, "grid")))
    state.grid.push_back({number_of(element(each, 0)), number_of(element(each, 1)),
                          number_of(element(each, 2)), optional_of(element(each, 3))});
  if (state.adam.steps > state.outer_steps())
    throw std::invalid_argument("it counts more steps than its history has");
  if (state.best_step >= state.outer_steps() ||
      (state.best_step >= 0 && !state.history[static_cast<std::size_t>(state.best_step)].validation_loss))
    throw std::invalid_argument("the best step is not in the history");
}

std::vector<double> vector_of(const NamedArrays& arrays, std::string_view name) {
  const auto found =
      std::find_if(arrays.begin(), arrays.end(), [&](const auto& each) { return each.first == name; });
  const auto* values =
      found == arrays.end() ? nullptr : std::get_if<std::vector<double>>(&found->second.values);
  if (values == nullptr) throw std::invalid_argument("the array " + std::string(name) + " is missing");
  for (const double value : *values)
    if (!std::isfinite(value))
      throw std::invalid_argument("the array " + std::string(name) + " is not finite");
  return *values;
}

TuneState state_from(const NamedArrays& arrays) {
  TuneState state(vector_of(arrays, "next"));
  state.accepted = vector_of(arrays, "accepted");
  state.best = vector_of(arrays, "best");
  state.adam.first = vector_of(arrays, "first_moment");
  state.adam.second = vector_of(arrays, "second_moment");
  const std::size_t size = state.next.size();
  const auto fits = [&](const std::vector<double>& each) { return each.empty() || each.size() == size; };
  if (!fits(state.accepted) || state.accepted.size() != state.best.size() ||
      state.adam.first.size() != size || state.adam.second.size() != size)
    throw std::invalid_argument("its arrays differ in length");
  const auto found =
      std::find_if(arrays.begin(), arrays.end(), [&](const auto& each) { return each.first == record_name; });
  const auto* text =
      found == arrays.end() ? nullptr : std::get_if<std::vector<std::uint8_t>>(&found->second.values);
  if (text == nullptr) throw std::invalid_argument("the record is missing");
  set_record(state, parse_json({reinterpret_cast<const char*>(text->data()), text->size()}));
  if (state.best.empty() != (state.best_step < 0))
    throw std::invalid_argument("the best hyperparameters are missing");
  return state;
}

}  // namespace

std::string checksum(std::string_view bytes) {
  uLong sum = crc32_z(0, nullptr, 0);
  sum = crc32_z(sum, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  char text[16];
  std::snprintf(text, sizeof text, "%08lx", sum);
  return text;
}

std::string state_bytes(const TuneState& state) {
  // A status may quote a message with any bytes in it.
  const std::string record = record_of(state).dump(-1, ' ', false, Json::error_handler_t::replace);
  NamedArrays arrays;
  const auto add = [&](std::string_view name, const std::vector<double>& values) {
    arrays.emplace_back(name, NpyArray{{static_cast<std::int64_t>(values.size())}, values});
  };
  arrays.emplace_back(record_name, NpyArray{{static_cast<std::int64_t>(record.size())}, bytes_of(record)});
  add("next", state.next);
  add("accepted", state.accepted);
  add("best", state.best);
  add("first_moment", state.adam.first);
  add("second_moment", state.adam.second);
  const std::string payload = npz_bytes(arrays);
  return header_of(payload) + payload;
}

TuneState read_state(std::string_view bytes, const std::string& name) {
  const std::size_t line = bytes.substr(0, 100).find('\n');
  if (!bytes.starts_with("hypertape tune state ") || line == bytes.npos)
    fail(operation, name, ": not a state file of hypertape tune");
  const std::string_view payload = bytes.substr(line + 1);
  if (bytes.substr(0, line + 1) != header_of(payload))
    fail(operation, name,
         ": cut short, changed, or of another version: its first line does not fit its content; remove it "
         "to start again");
  NamedArrays arrays;
  try {
    arrays = read_npz(payload, name);
  } catch (const Error& error) {
    fail(operation, name, ": ", bare_message(error.what(), name));
  }
  try {
    return state_from(arrays);
  } catch (const std::invalid_argument& error) {
    fail(operation, name, ": ", error.what());
  }
}

}  // namespace hypertape
