// One hypergradient by every method, against the unrolled tape's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <hypertape/bilevel/hypergradient.h>
#include "compared_problem.h"
#include "data.h"
#include "options.h"

namespace hypertape {

class Progress;

/// One group of hyperparameters by one method. What is not defined is absent.
struct ComparisonRow {
  std::string method;
  std::string setting;
  std::string group;
  std::optional<double> relative_error;  ///< against the reference; 0: the same bits
  std::optional<double> cosine;          ///< with the reference
  // The method's cost, for all groups together.
  std::optional<double> seconds;
  std::optional<double> training_runs;  ///< the seconds, in plain training runs
  std::optional<std::int64_t> gradients;
  std::optional<std::int64_t> hessian_vector_products;
  std::optional<std::int64_t> peak_bytes;
  /// "exact", "converged", "chaotic (...)", "approximate (...)", "not converged (...)", "unused", "not
  /// defined (...)", "diverged ...", "skipped (...)", "out of memory (...)", "failed (...)", ...
  std::string status;
};

/// One method in the plan, or one that was compared.
struct PlanRow {
  std::string method, setting;
  std::int64_t gradients = 0, hessian_vector_products = 0;
  std::int64_t predicted_bytes = 0;
  std::optional<std::int64_t> measured_bytes;  ///< absent if it did not run
  bool is_chosen = false;
  std::string reason;  ///< why it is chosen or not; empty for what the planner did not consider
};

/// What the planner chose within the budget (plan.h of bilevel), and its predictions for what was compared.
struct ComparedPlan {
  std::optional<std::int64_t> budget_bytes;
  std::string message;        ///< the choice and why, or why there is none
  std::vector<PlanRow> rows;  ///< candidates, then what else was compared and predicted
};

struct Comparison {
  std::string problem;      ///< one of problem_names
  std::string optimizer;    ///< one of optimizer_names
  std::string description;  ///< closed forms: sizes; the next ones are for a net
  std::string data_name;
  std::string scale;                    ///< what was done to the data: one of scale_names, but for "auto"
  std::string scale_text;               ///< the same in words
  std::vector<std::string> data_notes;  ///< Dataset::notes
  std::int64_t features = 0, classes = 0;
  std::int64_t training_samples = 0, validation_samples = 0;
  std::vector<std::int64_t> sizes;  ///< of the net's layers
  std::string activation;
  std::int64_t parameters = 0;
  std::vector<std::pair<std::string, std::int64_t>> groups;  ///< name and number of hyperparameters
  std::int64_t steps = 0, batch = 0;                         ///< closed forms have no batch
  double rate = 0.0;                                         ///< closed forms: of gradient descent
  std::string dtype;
  int threads = 1;
  std::optional<double> training_run_seconds;   ///< median of several plain runs
  std::optional<double> first_loss, last_loss;  ///< of training
  std::optional<double> validation_loss;
  std::string reference;  ///< the method that the others are compared with, or "none"
  std::vector<ComparisonRow> rows;
  std::optional<ComparedPlan> plan;  ///< nets only
  /// The first method that failed where it should have had a number, and why; empty if none did.
  std::string failure;
};

/// What is compared, and with what: the same problem in float64, or a closed form.
struct ComparisonSubject {
  ComparedProblem problem;
  std::optional<ComparedProblem> reference = {};  ///< absent: the problem itself
  std::optional<bilevel::Hypergradient> closed_form = {};
  bool is_large = false;  ///< enough for memory to matter
};

/// Trains a net and differentiates by options.methods with respect to options.training.groups. The reference
/// is the unrolled tape in float64, which runs in any case; with float32 it starts from the same rounded
/// numbers; a method that needs more memory than there is gets the status "skipped", and where that is the
/// tape, checkpointing with the square root of T takes its place as reference. Training that diverges is no
/// error, nor is a method that cannot do it at this point or runs out of memory: statuses and `failure` say
/// so, and the others go on. With options.memory_bytes the method that the planner chooses runs too. Error
/// for data that do not fit the options, and where plain training fails. The data are given up once they are
/// tensors.
Comparison compare(Dataset data, const CompareOptions& options, Progress& progress);

/// The same for the problem options.problem, any but net; the reference is its closed form.
Comparison compare_closed(const CompareOptions& options, Progress& progress);

/// The same for any problem. `known`: what is to be said of it.
Comparison compare(ComparisonSubject subject, const CompareOptions& options, Comparison known,
                   Progress& progress);

}  // namespace hypertape
