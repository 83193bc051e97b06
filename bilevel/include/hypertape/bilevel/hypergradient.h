// Solving the inner problem differentiably, and hypergradients with their cost and status.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "hypertape/bilevel/estimators.h"
#include "hypertape/bilevel/problem.h"
#include "hypertape/core/export.h"

namespace hypertape::bilevel {

/// The end of a training run; both are differentiable in h, with the estimator as pullback.
struct Solution {
  NamedTensors parameters;
  TensorList slots;
};

/// Trains and returns the final state. Derivatives with respect to `h` go through `estimator`. Throws Error
/// for a problem that lacks what the method needs (naming it), TrainingDiverged for a non-finite loss.
HYPERTAPE_API Solution solve(const Problem& problem, const NamedTensors& h, const Estimator& estimator);

/// Plain training: no derivative, no memory beyond one step.
HYPERTAPE_API Solution train(const Problem& problem, const NamedTensors& h);

enum class Status : std::uint8_t {
  exact,    ///< the derivative of the executed map
  chaotic,  ///< exact too, but the adjoint grew so much that it says little about nearby hyperparameters
  diverged  ///< training met a non-finite loss or left the fixed-point range: no hypergradient
};
HYPERTAPE_API std::string_view name_of(Status status) noexcept;

/// Growth of the adjoint's norm over the run above which a hypergradient counts as chaotic.
inline constexpr double chaotic_growth = 100.0;

struct Hypergradient {
  double value = 0.0;       ///< F(w_T, h); NaN if the run diverged
  NamedTensors gradients;   ///< named and shaped like h; absent where h has no path to F ("unused")
  NamedTensors parameters;  ///< w_T
  Cost cost;
  Status status = Status::exact;
  std::string message;            ///< a sentence for a person: why the status is what it is
  std::int64_t failed_step = -1;  ///< the step that diverged; -1 if none did, or only the outer loss
  double adjoint_growth = 0.0;    ///< |dF/dw_0| / |dF/dw_T|; 0 if undefined
  std::string method, setting;

  /// Names of hyperparameters without a path to F.
  std::vector<std::string> unused() const;
};

/// Value, norm per group, cost and status, aligned.
HYPERTAPE_API std::ostream& operator<<(std::ostream& out, const Hypergradient& result);

/// dF(w_T(h), h)/dh by the method `estimator`.
HYPERTAPE_API Hypergradient hypergradient(const Problem& problem, const OuterLoss& outer,
                                          const NamedTensors& h, const Estimator& estimator);

struct DirectionalDerivative {
  double value = 0.0;
  double derivative = 0.0;  ///< <dF/dh, direction>
  Cost cost;
  Status status = Status::exact;
  std::string message;
  std::int64_t failed_step = -1;
};

/// <dF/dh, direction> by one run with dual numbers (the method Forward); absent tensors in `direction` are
/// zero.
HYPERTAPE_API DirectionalDerivative directional_derivative(const Problem& problem, const OuterLoss& outer,
                                                           const NamedTensors& h,
                                                           const NamedTensors& direction);

}  // namespace hypertape::bilevel
