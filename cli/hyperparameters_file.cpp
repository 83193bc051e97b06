#include "hyperparameters_file.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include <hypertape/core/error.h>
#include "convert.h"
#include "json_text.h"
#include "npz_file.h"
#include "readable.h"

namespace hypertape {
namespace {

using Json = nlohmann::ordered_json;

constexpr char operation[] = "read hyperparameters";
constexpr char format_name[] = "hypertape hyperparameters 1";
constexpr std::string_view zip_magic = "PK";
constexpr std::size_t most_axes = 8;  // of a tensor

const char* meaning_of(const std::string& group) {
  if (group == "log_rates") return "learning rate = exp(value); steps x layers";
  if (group == "momenta") return "momentum = 1 / (1 + exp(-value)); steps";
  if (group == "log_init_scales") return "standard deviation of the initial weights = exp(value); layers";
  if (group == "log_l2") return "weight decay = exp(value); layers, or parameters in their order";
  return "";
}

Tensor tensor_from(const std::vector<double>& values, const std::vector<std::int64_t>& extents) {
  if (extents.size() > most_axes) throw std::invalid_argument("an array has too many axes");
  for (const double value : values)
    if (!std::isfinite(value)) throw std::invalid_argument("a value is infinite or NaN");
  const Shape shape{std::span<const std::int64_t>(extents)};
  return Tensor::from(values, shape);  // refuses counts that differ
}

// Extents are checked one by one, so that their product cannot overflow before it is compared.
std::vector<std::int64_t> extents_of(const Json& json, std::size_t values) {
  std::vector<std::int64_t> extents;
  std::size_t product = 1;
  if (!json.is_array()) throw std::invalid_argument("a shape is missing");
  for (const Json& each : json) {
    if (!each.is_number_unsigned() || each.get<std::uint64_t>() > values)
      throw std::invalid_argument("a shape does not fit its values");
    extents.push_back(each.get<std::int64_t>());
    product *= static_cast<std::size_t>(extents.back());
    if (product > values) throw std::invalid_argument("a shape does not fit its values");
  }
  if (product != values) throw std::invalid_argument("a shape does not fit its values");
  return extents;
}

NamedTensors groups_of(const Json& document) {
  if (member(document, "format") != format_name) throw std::invalid_argument("it is of another format");
  const Json& all = member(document, "hyperparameters");
  if (!all.is_object()) throw std::invalid_argument("the hyperparameters are missing");
  NamedTensors groups;
  for (const auto& [name, group] : all.items()) {
    const Json& numbers = member(group, "values");
    if (!numbers.is_array()) throw std::invalid_argument("the values are missing");
    std::vector<double> values;
    for (const Json& number : numbers) {
      if (!number.is_number()) throw std::invalid_argument("a value is no number");
      values.push_back(number.get<double>());
    }
    groups.add(name, tensor_from(values, extents_of(member(group, "shape"), values.size())));
  }
  return groups;
}

NamedTensors groups_of(const NamedArrays& arrays) {
  NamedTensors groups;
  for (const auto& [name, array] : arrays) {
    const auto* values = std::get_if<std::vector<double>>(&array.values);
    if (values == nullptr) throw std::invalid_argument("an array is not of float64");
    groups.add(name, tensor_from(*values, array.shape));
  }
  return groups;
}

}  // namespace

std::string hyperparameters_json(const NamedTensors& groups, const Json& facts) {
  Json document = {{"format", format_name}};
  document.update(facts);
  Json all = Json::object();
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const Tensor& group = groups.tensors()[i];
    Json extents = Json::array();
    for (int axis = 0; axis < group.rank(); ++axis) extents.push_back(group.extent(axis));
    all[groups.names()[i]] = {{"meaning", meaning_of(groups.names()[i])},
                              {"shape", std::move(extents)},
                              {"values", doubles_of(group)}};
  }
  document["hyperparameters"] = std::move(all);
  return document.dump(1, ' ', false, Json::error_handler_t::replace) + '\n';
}

std::string hyperparameters_npz(const NamedTensors& groups) {
  NamedArrays arrays;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const Tensor& group = groups.tensors()[i];
    NpyArray array{{}, doubles_of(group)};
    for (int axis = 0; axis < group.rank(); ++axis) array.shape.push_back(group.extent(axis));
    arrays.emplace_back(groups.names()[i], std::move(array));
  }
  return npz_bytes(arrays);
}

NamedTensors read_hyperparameters(std::string_view bytes, const std::string& name) {
  try {
    return bytes.starts_with(zip_magic) ? groups_of(read_npz(bytes, name)) : groups_of(parse_json(bytes));
  } catch (const std::exception& error) {
    fail(operation, name, ": not hyperparameters that tune wrote: ", bare_message(error.what(), name));
  }
}

NamedTensors read_hyperparameters_file(const std::string& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    fail(operation, "cannot read ", path, ": not a regular file");
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(operation, "cannot read ", path, ": ", std::strerror(errno));
  const std::string bytes(std::istreambuf_iterator<char>(file), {});
  return read_hyperparameters(bytes, path);
}

}  // namespace hypertape
