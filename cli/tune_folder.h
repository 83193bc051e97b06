// The folder of one run of `hypertape tune`.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "output_file.h"

namespace hypertape {

/// What the folder may hold. A file that is none of these was not written by `tune`.
inline constexpr const char* tune_file_names[] = {
    "state",       "hyperparameters.json", "hyperparameters.npz", "history.csv",
    "results.csv", "baseline.csv",         "figure.svg"};

/// Locks the folder as long as it lives, so that two runs do not write to one. It is opened once: a folder
/// that is moved meanwhile, and another one that takes its name, change nothing.
class TuneFolder {
 public:
  /// Creates the folder if it is missing (not its parents). Error if it cannot be written, if another process
  /// has it open, or if it holds something else than a run's files; nothing is changed then. What a killed
  /// run left half written is removed.
  explicit TuneFolder(std::string path);
  TuneFolder(const TuneFolder&) = delete;
  TuneFolder& operator=(const TuneFolder&) = delete;

  const std::string& path() const { return path_; }
  int descriptor() const { return descriptor_.get(); }
  std::string path_of(const std::string& name) const;
  /// The state file's bytes, absent in a new folder.
  std::optional<std::string> state() const;
  /// Writes a file whole or not at all, and on the disk when this returns.
  void write(const std::string& name, std::string_view text) const;

 private:
  void lock();
  std::vector<std::string> names() const;
  std::vector<std::string> leftovers() const;

  std::string path_;
  Descriptor descriptor_;
};

}  // namespace hypertape
