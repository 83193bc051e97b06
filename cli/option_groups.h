// Options that more than one command has.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <span>
#include <string>

#include "options.h"

namespace hypertape {

/// Adds an option whose text `parse` understands, or refuses by std::invalid_argument. The last one given
/// holds.
CLI::Option* add_parsed_option(CLI::App& app, const std::string& name, const char* type,
                               const std::string& help, const std::function<void(const std::string&)>& parse);

/// --data, --labels, --label-column, --header, --data-memory, --samples
void add_data_options(CLI::App& app, DataOptions& options);

/// --layers, --activation, --steps, --batch, --seed, --optimizer, --dtype, --rate, --momentum, --l2, --scale
void add_training_options(CLI::App& app, TrainingOptions& training);

/// --threads
void add_threads_option(CLI::App& app, int& threads);

/// {"a", "b"} -> "a,b", with a line break after every `in_a_line` names unless that is 0.
std::string joined(std::span<const char* const> names, std::size_t in_a_line = 0);

}  // namespace hypertape
