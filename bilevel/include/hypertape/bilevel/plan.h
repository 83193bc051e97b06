// Choosing how to differentiate a run by the memory there is: what each method would need, before any is run.
//
//     bilevel::Plan plan = bilevel::plan(problem, validation_loss, h, {.budget_bytes = 40'000'000});
//     std::cout << plan;                                                 // candidates, choice and why
//     auto result = bilevel::hypergradient(problem, validation_loss, h, plan.choice().estimator);
//
// Candidates are the methods that differentiate the run itself: the tape, the stored trajectory, checkpoints
// (their number and how much of the tape at a time), and, where the run may be trained in fixed point,
// reversible training. Operations are counted; bytes are measured on the first few steps of the very run and
// extended to all T: docs/bilevel.md has the formulas.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <hypertape/bilevel/hypergradient.h>
#include <hypertape/core/export.h>

namespace hypertape::bilevel {

/// What hypergradient() would report in Cost.
struct Prediction {
  std::int64_t gradients = 0;                ///< exact, for a run that does not diverge
  std::int64_t hessian_vector_products = 0;  ///< exact too
  /// Within 10 % where steps need equal memory, or within 2 peak_granularity (8 KiB) where that is more:
  /// what is measured and what is predicted from it are both known to peak_granularity only.
  std::int64_t peak_bytes = 0;
};

struct PlanOptions {
  /// What hypergradient() may take above the level at its start; absent: anything.
  std::optional<std::int64_t> budget_bytes = std::nullopt;
  /// Whether training in fixed point, which is another trajectory, may take the run's place.
  bool fixed_point = false;
};

/// A method with what it would need.
struct Candidate {
  Estimator estimator;
  Prediction prediction;
  bool fits = true;         ///< into the budget
  std::string reason = {};  ///< a few words: why it is the choice, or why not
};

struct Plan {
  /// One per method and kind of schedule, fewest operations first, then fewest bytes.
  std::vector<Candidate> candidates;
  std::optional<std::size_t> chosen;  ///< position among the candidates; absent if none fits
  std::string message;                ///< sentences for a person: the choice and why, or what would fit

  /// The chosen candidate; Error with the message if none fits.
  HYPERTAPE_API const Candidate& choice() const;
};

/// Candidates in a table, then the message.
HYPERTAPE_API std::ostream& operator<<(std::ostream& out, const Plan& plan);

/// Predicts costs for one problem. What a prediction needs is measured when it is first asked for, by
/// differentiating runs of 1, 2, 4, ... steps with the method in question until the bytes of a step have
/// settled: with nets of some size 7 steps a method. Small nets take more steps, up to 0.5 MiB of memory's
/// worth.
///
/// Assumed: from about the third step on, steps need equal memory. If they do not (batches of several sizes,
/// a loss that branches on its values), predictions are those for the first steps. Memory that other threads
/// take in the meantime is counted too.
class HYPERTAPE_API Planner {
 public:
  /// Error for a problem that hypergradient() would refuse. The functions are used until the planner ends.
  Planner(Problem problem, OuterLoss outer, NamedTensors h);
  Planner(Planner&&) noexcept;
  Planner& operator=(Planner&&) noexcept;
  ~Planner();

  /// Error if the method refuses the problem, and if the steps that are measured diverge.
  Prediction predict(const Unrolled& method);
  Prediction predict(const Trajectory& method);
  Prediction predict(const Checkpointed& method);
  Prediction predict(const Reversible& method);

  /// The method that fits with the fewest operations (gradients and Hessian-vector products), and of those
  /// with the same the one with the fewest bytes. Error for a budget that is not positive, and as predict().
  Plan plan(const PlanOptions& options = {});

 private:
  class Measured;
  std::unique_ptr<Measured> measured_;
};

/// One plan by a planner of its own.
HYPERTAPE_API Plan plan(const Problem& problem, const OuterLoss& outer, const NamedTensors& h,
                        const PlanOptions& options = {});

}  // namespace hypertape::bilevel
