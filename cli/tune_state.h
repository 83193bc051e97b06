// How far a run of `hypertape tune` is: everything that its next outer step depends on, as one file.
//
//     hypertape tune state 1, 12345 bytes, checksum 89abcdef\n
//     an .npz archive: the array "record" is JSON, the others are vectors over all hyperparameters
//
// The checksum (CRC-32) covers the archive, so that what was cut short or changed is not continued.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "outer_adam.h"
#include "tune_problem.h"

namespace hypertape {

/// One hypergradient.
struct OuterRecord {
  std::optional<double> validation_loss, training_loss, gradient_norm;  ///< absent if rejected
  double seconds = 0.0;
  std::string status;  ///< "exact", "chaotic", "rejected: ..."
};

/// One run of the baseline.
struct GridRecord {
  double rate = 0.0, momentum = 0.0, l2 = 0.0;
  std::optional<double> validation_loss;  ///< absent if training diverged
};

struct TuneState {
  explicit TuneState(std::vector<double> start) : next(std::move(start)), adam(next.size()) {}

  /// Options and data of the run, by the options' names: what another run must agree with to continue it.
  nlohmann::ordered_json settings;
  std::vector<double> next;      ///< to be differentiated next
  std::vector<double> accepted;  ///< the last ones with a hypergradient; empty before
  std::vector<double> best;      ///< those with the lowest validation loss; empty before
  std::int64_t best_step = -1;
  OuterAdam adam;
  std::int64_t rejections = 0;  ///< in a row
  std::int64_t gradients = 0, hessian_vector_products = 0;
  std::optional<Evaluation> before;
  std::vector<OuterRecord> history;
  std::vector<GridRecord> grid;

  std::int64_t outer_steps() const { return static_cast<std::int64_t>(history.size()); }
};

std::string state_bytes(const TuneState& state);

/// The state in a file's bytes. Error "[read state] <name>: what is wrong" for anything that state_bytes does
/// not write, such as a file cut short, one of another program, or one whose vectors differ in length.
TuneState read_state(std::string_view bytes, const std::string& name);

/// CRC-32, as eight hexadecimal digits.
std::string checksum(std::string_view bytes);

}  // namespace hypertape
