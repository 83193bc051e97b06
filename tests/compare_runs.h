// Runs of `hypertape compare` of a few milliseconds.
#pragma once

#include <string>
#include <vector>

#include "compare.h"
#include "progress.h"
#include "small_digits.h"

/// All methods that differentiate the run itself, on twelve steps of a net of a few weights.
inline hypertape::CompareOptions small_compare_options() {
  hypertape::CompareOptions options;
  options.methods = {"ridders", "unrolled", "checkpointed", "trajectory", "reversible", "forward"};
  options.training.layers = {7, 6};
  options.training.steps = 12;
  options.training.batch = 20;
  return options;
}

inline hypertape::Comparison compared(const hypertape::CompareOptions& options) {
  hypertape::Progress progress(nullptr);
  return hypertape::compare(first_digits(130), options, progress);
}

inline std::vector<hypertape::ComparisonRow> rows_of(const hypertape::Comparison& comparison,
                                                     const std::string& method) {
  std::vector<hypertape::ComparisonRow> rows;
  for (const hypertape::ComparisonRow& row : comparison.rows)
    if (row.method == method) rows.push_back(row);
  return rows;
}
