// What `hypertape tune` found, as text.
#pragma once

#include <string>

#include "tune.h"

namespace hypertape {

/// An aligned table for people: what was learned, and losses and accuracies before and after.
std::string tune_table(const TuneResult& result);

/// One line per outer step: outer_step,validation_loss,training_loss,gradient_norm,seconds,status; numbers
/// that are not defined are empty. Of two runs with the same options only `seconds` differs.
std::string history_csv(const TuneResult& result);

/// One line each for before, learned and grid (where they exist): row, then loss and accuracy of training,
/// validation and test, then the work in gradients.
std::string results_csv(const TuneResult& result);

/// One line per run of the grid: rate,momentum,l2,validation_loss; no loss if training diverged.
std::string baseline_csv(const TuneResult& result);

/// Learned rates and momenta over the training steps, losses over the outer steps, as SVG.
std::string tune_figure(const TuneResult& result);

}  // namespace hypertape
