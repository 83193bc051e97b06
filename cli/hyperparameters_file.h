// Learned hyperparameters as files: JSON for people and other programs, .npz for NumPy. Both can be read
// back. Numbers are written so that they read back to the same bits.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include <hypertape/core/named_tensors.h>

namespace hypertape {

/// {"format": ..., <facts>, "hyperparameters": {name: {"meaning", "shape", "values" (row-major)}}}
std::string hyperparameters_json(const NamedTensors& groups, const nlohmann::ordered_json& facts);

/// One float64 array per group.
std::string hyperparameters_npz(const NamedTensors& groups);

/// The groups in a file's bytes, of either kind; the content decides which. Values are finite float64. Input
/// is not trusted. Error "[read hyperparameters] <name>: what is wrong".
NamedTensors read_hyperparameters(std::string_view bytes, const std::string& name);

/// The same for the file at `path`.
NamedTensors read_hyperparameters_file(const std::string& path);

}  // namespace hypertape
