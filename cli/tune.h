// Learning the hyperparameters of a training run: `hypertape tune`.
//
//   h_0 from the options;  for k = 0, 1, ...: value and exact gradient of F(h) = validation loss of
//   w_T(h) at h_k;  h_{k+1} = h_k + Adam's move; momenta stay within |logit| <= 11
//
// A point where training diverges, or without a finite gradient, is rejected: the move that led there is
// halved, and the moments stay. The result is the point with the lowest validation loss. docs/tune.md
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tune_state.h"

namespace hypertape {

class Progress;
class TuneFolder;

struct TuneResult {
  std::string data_name;
  std::string scale_text;               ///< what was done to the data
  std::vector<std::string> data_notes;  ///< Dataset::notes
  std::int64_t features = 0, classes = 0;
  std::int64_t training_samples = 0;  ///< in whole minibatches
  std::int64_t validation_samples = 0, test_samples = 0;
  std::vector<std::int64_t> sizes;  ///< of the net's layers
  std::string activation;
  std::int64_t parameters = 0;
  std::int64_t steps = 0, batch = 0;
  int threads = 1;
  std::string optimizer;  ///< one of optimizer_names
  std::string dtype;
  std::string method;
  nlohmann::ordered_json settings;

  NamedTensors hyperparameters;  ///< with the lowest validation loss; empty if there are none
  std::int64_t best_step = -1;   ///< the outer step that tried them, from 0
  std::vector<OuterRecord> history;
  double gradients_of_work = 0.0;  ///< of all hypergradients, in gradients of the training loss
  std::optional<Evaluation> before, after;
  std::vector<GridRecord> grid;
  std::optional<std::size_t> grid_best;
  std::optional<Evaluation> grid_evaluation;
  /// Why the run ended early or has no result; empty if all is well.
  std::string failure;
};

/// Rejections in a row after which a run ends as a failure.
inline constexpr std::int64_t most_rejections = 10;

/// Largest |logit| of a momentum: about what reversible training can execute, 2^-16 from 0 or 1.
inline constexpr double largest_logit = 11.0;

/// Learns, and searches the grid if asked to. Keeps its state in `folder` if there is one, and goes on from
/// the state there: UsageError naming the option for options or data that are not that run's. Divergence is
/// no error: `failure` and the history say so. Error for data that do not fit the options, for a state file
/// that cannot be read, and where the folder cannot be written; what was there is unchanged then.
TuneResult tune(Dataset data, const TuneOptions& options, const TuneFolder* folder, Progress& progress);

/// Writes the result's files.
void write_results(const TuneResult& result, const TuneFolder& folder);

}  // namespace hypertape
