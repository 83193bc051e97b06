// How to differentiate a training run: one struct per method.
//
// T steps; F and R multiply-adds of the first layer and of the rest (docs/architecture.md). "Exact" means:
// the derivative of the executed map, up to rounding.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "hypertape/core/export.h"

namespace hypertape::bilevel {

namespace detail {
class Method;  // bilevel/src/method.h
}

/// A method with its settings. Made from one of the structs below.
class HYPERTAPE_API Estimator {
 public:
  explicit Estimator(std::shared_ptr<const detail::Method> method) : method_(std::move(method)) {}
  const detail::Method& method() const noexcept { return *method_; }
  /// "unrolled", "checkpointed", ...
  std::string name() const;
  /// Its settings as text, empty if it has none.
  std::string setting() const;

 private:
  std::shared_ptr<const detail::Method> method_;
};

/// The tape of the whole run, in reverse. Exact, differentiable to any order; memory O(T) tapes; 1 +
/// (2F+6R)/(2F+3R) training runs. (Domke 2012; Maclaurin, Duvenaud and Adams 2015; Franceschi et al. 2017,
/// algorithm 1)
struct Unrolled {
  HYPERTAPE_API operator Estimator() const;
};

/// States are kept at `checkpoints` evenly spaced steps; each segment is run again with the tape on. The same
/// bits as Unrolled; memory O(checkpoints) states and T / checkpoints tapes; one more training run. (Griewank
/// 1992)
struct Checkpointed {
  std::int64_t checkpoints = 0;  ///< 0: the square root of T
  HYPERTAPE_API operator Estimator() const;
};

/// Every state is kept; in reverse each step is differentiated by one gradient with dual numbers (gradient,
/// Hessian and mixed product in one pass). Exact; memory O(T) states and no tape; 1 + (4F+9R)/(2F+3R)
/// training runs.
struct Trajectory {
  HYPERTAPE_API operator Estimator() const;
};

/// Trains in fixed-point arithmetic whose momentum steps are undone exactly, so that no state is kept but the
/// digits that momentum drops: log2(1/momentum) bits per weight and step. Exact for the fixed-point map,
/// which is another trajectory than floating-point training. Needs a step with an exact inverse; momenta are
/// rounded to multiples of 2^-16 and that number is used everywhere. (Maclaurin, Duvenaud and Adams 2015,
/// algorithms 2 and 3)
struct Reversible {
  HYPERTAPE_API operator Estimator() const;
};

/// Tangents carried along the run: one run with dual numbers per scalar hyperparameter, no tape. Exact;
/// memory O(1) in T. (Franceschi et al. 2017, algorithm 2)
struct Forward {
  /// Refuses more scalar hyperparameters than this: use directional_derivative along chosen directions.
  std::int64_t most_hyperparameters = 1000;
  HYPERTAPE_API operator Estimator() const;
};

}  // namespace hypertape::bilevel
