// Runs of `hypertape tune` of a few milliseconds.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "program_run.h"
#include "progress.h"
#include "small_digits.h"
#include "temporary_folder.h"
#include "tune.h"
#include "tune_options.h"

inline const Words small_tune = {"tune", "--layers",      "6", "--steps",   "8", "--batch", "20", "--samples",
                                 "130",  "--outer-steps", "6", "--threads", "1"};

inline hypertape::TuneOptions small_tune_options() {
  hypertape::TuneOptions options;
  options.training.layers = {6};
  options.training.steps = 8;
  options.training.batch = 20;
  options.outer_steps = 6;
  options.threads = 1;
  return options;
}

inline hypertape::TuneResult tuned(const hypertape::Dataset& data, const hypertape::TuneOptions& options) {
  hypertape::Progress progress(nullptr);
  return hypertape::tune(data, options, nullptr, progress);
}

/// A folder's files without the seconds, which differ from run to run.
inline std::map<std::string, std::string> without_seconds(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files = contents_of(folder);
  if (files.contains("state")) {
    hypertape::TuneState state = hypertape::read_state(files["state"], "state");
    for (hypertape::OuterRecord& each : state.history) each.seconds = 0.0;
    files["state"] = hypertape::state_bytes(state);
  }
  std::string history;
  std::istringstream lines(files["history.csv"]);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t last = line.rfind(','), before = line.rfind(',', last - 1);
    history += line.substr(0, before) + line.substr(last) + '\n';
  }
  files["history.csv"] = history;
  return files;
}
