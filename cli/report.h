// A comparison as text.
#pragma once

#include <string>

#include "compare.h"
#include "options.h"

namespace hypertape {

/// An aligned table for people: what was trained, the rows, and what the columns mean.
std::string table_report(const Comparison& comparison);

/// Rows under a header with the names of the JSON keys, and "problem", "optimizer", "dtype"; what is not
/// defined is empty.
std::string csv_report(const Comparison& comparison);

/// {"problem", "optimizer", "training_run_seconds", "steps", "dtype", "threads", "rows": [...], "plan":
/// {"budget_bytes", "message", "rows": [...]}}; what is not defined is null.
std::string json_report(const Comparison& comparison);

/// A field of a CSV file, in quotes where it needs them.
std::string csv_field(const std::string& field);

/// One of optimizer_names in words.
std::string optimizer_title(const std::string& name);

std::string report(const Comparison& comparison, Format format);

}  // namespace hypertape
