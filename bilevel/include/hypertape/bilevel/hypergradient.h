// Solving the inner problem differentiably, and hypergradients with their cost and status.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <limits>
#include <string>
#include <vector>

#include <hypertape/bilevel/estimators.h>
#include <hypertape/bilevel/problem.h>
#include <hypertape/core/export.h>

namespace hypertape::bilevel {

/// The end of a training run; both are differentiable in h, with the estimator as pullback.
struct Solution {
  NamedTensors parameters;
  TensorList buffers;  ///< empty for implicit methods, which differentiate a minimum and not a run
};

/// Trains and returns the final state. Derivatives with respect to `h` go through `estimator`. Throws Error
/// for a problem that lacks what the method needs (naming it), TrainingDiverged for a non-finite loss. A
/// pullback throws NotReplayed if a step that runs again has another training loss than at first, and Error
/// if its linear system is not solved to its tolerance; hypergradient() makes these a status.
HYPERTAPE_API Solution solve(const Problem& problem, const NamedTensors& h, const Estimator& estimator);

/// Plain training, or what the problem's solver finds if it has one: no derivative, no memory beyond one
/// step.
HYPERTAPE_API Solution train(const Problem& problem, const NamedTensors& h);

enum class ResultStatus : std::uint8_t {
  exact,        ///< the derivative of the executed map
  chaotic,      ///< exact too, but the adjoint grew so much that it says little about nearby hyperparameters
  diverged,     ///< training met a non-finite loss or left the fixed-point range: no hypergradient
  approximate,  ///< what the method is defined as, which is not a derivative: T1T2, Darts, Truncated, ...
  converged,    ///< the derivative of the minimum w*(h): inner problem and linear system to their tolerances
  not_converged,       ///< the inner problem or the linear system is not solved: see message and residuals
  negative_curvature,  ///< f_ww has a negative eigenvalue at w: a stationary point perhaps, but no minimum
  unstable_series,     ///< the Neumann series diverges
  not_replayed         ///< the loss gave another value when a step ran again: no hypergradient
};
HYPERTAPE_API std::string_view name_of(ResultStatus status) noexcept;
/// Whether there is no hypergradient: `diverged` and `not_replayed`.
HYPERTAPE_API bool is_failure(ResultStatus status) noexcept;

/// Whether a hyperparameter has a hypergradient, and if not, why. Told from the graph, never from a value.
/// Truncated and the implicit methods note which hyperparameters take part in any step that they do not
/// record, and look for a path from these in init, in the first step of each and in seven spread over the
/// run.
enum class Availability : std::uint8_t {
  defined,
  unused,       ///< no path to the outer loss at all
  not_defined,  ///< it is an integer; or the run reads it, but the inner loss does not: a minimum does
                ///< not depend on it
  zero_by_construction,  ///< only steps or terms that the method cuts off read it
  partly_zero,           ///< what steps that the method cuts off contributed is zero by construction
  unknown  ///< the run failed before the graph could tell; or steps that are not recorded read it, and those
           ///< looked at had no path from it
};
/// "defined", "unused", "not defined", "zero by construction", "zero by construction before the last steps",
/// "unknown"
HYPERTAPE_API std::string_view name_of(Availability availability) noexcept;

/// Growth of the adjoint's norm over the run above which a hypergradient counts as chaotic.
inline constexpr double chaotic_growth = 100.0;

struct Hypergradient {
  double value = 0.0;                      ///< F(w_T, h); NaN if the run failed
  NamedTensors gradients;                  ///< named and shaped like h; absent unless defined or partly zero
  std::vector<Availability> availability;  ///< of each hyperparameter
  NamedTensors parameters;                 ///< w_T
  Cost cost;
  ResultStatus status = ResultStatus::exact;
  std::string message;  ///< a sentence for a person: why the status is what it is
  /// The step that diverged or did not replay; -1 if none, or the outer loss.
  std::int64_t failed_step = -1;
  /// |dF/dw_0| / |dF/dw_T|; 0 if undefined. By Forward, which has no adjoint: |dw_T| / |dw_0| for one random
  /// change of the initial weights.
  double adjoint_growth = 0.0;
  std::string method, setting;
  /// Implicit methods: |f_w| / max(|f_ww w|, |f_ww (w - w_0)|) at w: its relative distance to the minimum if
  /// f_ww is well conditioned. NaN for T1T2 and Darts, which do not look.
  double inner_residual = 0.0;
  /// Implicit methods: the size of a Newton step, |f_ww^-1 f_w| / max(|w|, |w - w_0|), which is the relative
  /// distance to the minimum to first order. ImplicitDense: in full. ImplicitCg, ImplicitNormalCg: along the
  /// directions in which they search, and |rest of f_w| / (smallest eigenvalue met) beyond, which is all
  /// where f_w is large or rounding anyway. ImplicitNeumann: by a solve of its own where f_w is neither. NaN
  /// if unknown.
  double distance = std::numeric_limits<double>::quiet_NaN();
  /// Implicit methods, of the linear system: LinearSolution's condition(), which is the condition number of
  /// f_ww or less, and its error, about the relative error of the solution. NaN if unknown.
  double condition = std::numeric_limits<double>::quiet_NaN();
  double linear_error = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> linear_residuals;  ///< of the linear system's iterates (LinearSolution::residuals)
  std::int64_t linear_iterations = 0;
  /// Operations that a second derivative met at their kink, abs or norm at 0 (KinkWatch): what the
  /// hypergradient owes to the curvature there is 0 in it, and may not be. The message says so, too; the
  /// status does not change.
  std::vector<std::string> kinks;

  /// Names of hyperparameters without a path to F.
  std::vector<std::string> unused() const;
};

/// Value, norm per group, cost and status, aligned.
HYPERTAPE_API std::ostream& operator<<(std::ostream& out, const Hypergradient& result);

struct HypergradientOptions {
  /// If the result is not finite: runs all of it once more under an AnomalyScope, and lets the message name
  /// the operation and the step that the non-finite elements come from. A result that is finite costs
  /// nothing.
  bool anomaly = false;
  /// Forward and directional_derivative: one run more, which measures the growth that makes a result
  /// `chaotic`. Without it they say `exact` of a chaotic run too.
  bool measure_growth = true;
};

/// dF(w_T(h), h)/dh by the method `estimator`. An Error from one of the problem's functions says where it
/// arose ("at step 37 of 100", counted from 0); other exceptions pass as they are.
HYPERTAPE_API Hypergradient hypergradient(const Problem& problem, const OuterLoss& outer,
                                          const NamedTensors& h, const Estimator& estimator,
                                          const HypergradientOptions& options = {});

/// What directional_derivative returns; fields as in Hypergradient.
struct DirectionalDerivative {
  double value = 0.0;
  double derivative = 0.0;  ///< <dF/dh, direction>
  Cost cost;
  ResultStatus status = ResultStatus::exact;
  std::string message;
  std::int64_t failed_step = -1;
  double growth = 0.0;  ///< |dw_T| / |dw_0| for one random change of the initial weights; 0 if not measured
  std::vector<std::string> kinks;  ///< those on the way, along `direction`
};

/// <dF/dh, direction> by one run with dual numbers (the method Forward), and the growth by another one.
/// `direction` has the names and shapes of h; absent tensors in it are zero, and those of integers must be
/// absent.
HYPERTAPE_API DirectionalDerivative directional_derivative(const Problem& problem, const OuterLoss& outer,
                                                           const NamedTensors& h,
                                                           const NamedTensors& direction,
                                                           const HypergradientOptions& options = {});

}  // namespace hypertape::bilevel
