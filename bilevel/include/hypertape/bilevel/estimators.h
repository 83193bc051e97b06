// How to differentiate a training run: one struct per method.
//
// T steps; F and R multiply-adds of the first layer and of the rest. "Exact" means: the derivative of the
// executed map, up to rounding. What each method computes, with worked numbers: docs/on-hypergradients.md.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <hypertape/core/export.h>

namespace hypertape::bilevel {

namespace detail {
class Method;  // bilevel/run/method.h
}

/// A method with its settings. Made from one of the structs below.
class HYPERTAPE_API Estimator {
 public:
  explicit Estimator(std::shared_ptr<const detail::Method> method) : method_((std::move)(method)) {}
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
/// bits as Unrolled; memory O(checkpoints) states and T / checkpoints tapes; one more training run. With
/// `segment` at most so many steps are on the tape at a time; where checkpoints * segment is less than T,
/// states are kept anew in what remains while going back, and steps are run several times: c checkpoints
/// reach C(c + r + 1, c) - 1 segments with r more runs of each at most. (Griewank 1992; Griewank and Walther
/// 2000)
struct Checkpointed {
  std::int64_t checkpoints = 0;  ///< at a time; 0: the square root of T
  std::int64_t segment = 0;      ///< 0: T / checkpoints, so that no step is run more than twice
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
/// which is another trajectory than floating-point training. Needs a step with an exact inverse and a
/// momentum above 0; momenta are rounded to multiples of 2^-16 and that number is used everywhere. Numbers
/// have 52 fraction bits below 2^10. Where those of a parameter get larger, training starts again with fewer
/// bits for it; beyond 2^40 the run has diverged. (Maclaurin, Duvenaud and Adams 2015, algorithms 2 and 3)
struct Reversible {
  HYPERTAPE_API operator Estimator() const;
};

/// Tangents carried along the run: one run with dual numbers per scalar hyperparameter, no tape, and one for
/// the growth of a random change of the initial weights. Exact; memory O(1) in T, but for the losses of the
/// steps. (Franceschi et al. 2017, algorithm 2)
struct Forward {
  /// Refuses more scalar hyperparameters than this: use directional_derivative along chosen directions.
  std::int64_t most_hyperparameters = 1000;
  HYPERTAPE_API operator Estimator() const;
};

/// The tape of the last `steps` steps, started from the state that plain training reached, optimizer state
/// included. Not exact: what earlier steps contributed is zero by construction, and the result says where.
/// (Shaban, Cheng, Hatch and Boots 2019)
struct Truncated {
  std::int64_t steps = 1;
  HYPERTAPE_API operator Estimator() const;
};

// Implicit methods. They take the end of the run (or what Problem::solver found) for the minimum w* of
// Problem::full_loss f and use f_w(w*(h), h) = 0 (implicit function theorem):
//
//     dF/dh = F_h - f_hw (f_ww)^-1 F_w,        at w*, with f_ww from linearised Hessian-vector products
//
// Memory O(1) in T. Only hyperparameters in the inner loss have such a derivative; for others (rates, initial
// scales) it is not defined, and the result says so. Solution::buffers is empty. `inner_tolerance`: w counts
// as the minimum if |f_w| is at most this times max(|f_ww w|, |f_ww (w - w_0)|), and a Newton step at most
// this times max(|w|, |w - w_0|) as far as it is known (Hypergradient::distance); less than 64 roundings of
// the dtype counts as that. Exact at w* means to the tolerances and to the condition of f_ww.

/// The linear system by conjugate gradients. Exact at w*, to the tolerance; differentiable to any order.
/// Needs a positive definite f_ww. With damping, f_ww + damping I takes its place: an approximation.
/// (Pedregosa 2016; Rajeswaran, Finn, Kakade and Levine 2019)
struct ImplicitCg {
  double tolerance = 1e-12;
  std::int64_t iterations = 1000;
  double damping = 0.0;
  double inner_tolerance = 1e-8;
  HYPERTAPE_API operator Estimator() const;
};

/// Conjugate gradients on the normal equations f_ww f_ww x = f_ww F_w: also where f_ww is indefinite, such as
/// at a saddle point (ResultStatus::negative_curvature, with the derivative of that stationary point); two
/// products an iteration, and the condition number squared. Differentiable to any order. (Hestenes and
/// Stiefel 1952)
struct ImplicitNormalCg {
  double tolerance = 1e-12;
  std::int64_t iterations = 1000;
  double inner_tolerance = 1e-8;
  HYPERTAPE_API operator Estimator() const;
};

/// f_ww formed by one product per parameter, and factorised. Differentiable to any order; the oracle for
/// small problems.
struct ImplicitDense {
  std::int64_t most_parameters = 3000;  ///< more are refused
  double tolerance = 1e-12;             ///< of the backward error
  double inner_tolerance = 1e-8;
  HYPERTAPE_API operator Estimator() const;
};

/// The inverse replaced by rate sum_{i=0..K} (I - rate f_ww)^i, K = terms; with momentum, by the accelerated
/// series (neumann_series in linear.h). Without momentum, at an exact w* that plain gradient descent with
/// this constant rate reached, it is Truncated{terms + 1}. (Lorraine, Vicol and Duvenaud 2020)
struct ImplicitNeumann {
  std::int64_t terms = 20;
  double rate = 0.0;  ///< must be given, e.g. the learning rate of the training
  double momentum = 0.0;
  double tolerance = 1e-12;  ///< of the relative residual: what counts as converged; all terms are made
  double inner_tolerance = 1e-8;
  HYPERTAPE_API operator Estimator() const;
};

/// The inverse replaced by rate I, as if one more step of this rate were all of training: F_h - rate f_hw
/// F_w. An approximation at every w, which need not be a minimum. (Luketina, Berglund, Greff and Raiko 2016)
struct T1T2 {
  double rate = 1.0;
  HYPERTAPE_API operator Estimator() const;
};

/// T1T2 with the mixed product by finite differences: F_h - rate (f_h(w + e F_w) - f_h(w - e F_w)) / (2 e) at
/// e = scale / |F_w|. Three gradients (one tells from the graph what interacts) and no second derivative of
/// f; the error against T1T2 is O(e^2). (Liu, Simonyan and Yang 2019, equation 8)
struct Darts {
  double rate = 1.0;
  double scale = 0.01;
  HYPERTAPE_API operator Estimator() const;
};

}  // namespace hypertape::bilevel
