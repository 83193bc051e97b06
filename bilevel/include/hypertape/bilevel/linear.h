// Linear systems with an operator that is only applied, never formed: what implicit hypergradients solve.
//
//     auto hessian = bilevel::hessian_operator(loss, {w});          // the primal is paid once
//     auto solution = bilevel::conjugate_gradient(hessian, b);
//     bool good = solution.status == bilevel::LinearStatus::converged;  // solution.residuals: how far it got
//
// Vectors are lists of tensors of one dtype; residuals are |b - A x| / |b| (with damping, of the damped
// system). A tolerance below 16 roundings of the dtype counts as that. Where rounding ends all progress
// before that, since |A| |x| is much larger than |b|, the tolerance is one of the backward error. A
// right-hand side of zero has the solution zero, converged, without a product. Powers of two are taken out of
// A and b, so that their scales do not matter as long as x fits into the dtype. Only neumann_series is
// differentiable; the others refuse a system that depends on a variable being differentiated.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include <hypertape/core/export.h>
#include <hypertape/core/tensor.h>

namespace hypertape::bilevel {

/// x -> A x; the result has the shapes of x. Absent tensors in a result count as zeros.
using LinearMap = std::function<TensorList(const TensorList&)>;

/// A symmetric matrix of a function at fixed w, recorded once: a LinearMap that takes blocks, too. From one
/// thread at a time.
class HYPERTAPE_API CurvatureOperator {
 public:
  /// A v
  TensorList operator()(const TensorList& v) const { return product_(v); }
  /// A times k vectors: every tensor of `v`, and of the result, holds k of them stacked along a new first
  /// axis. The same bits as one by one; one walk for all, and products with what was recorded in one batch.
  TensorList block(const TensorList& v) const { return block_(v); }

  /// For the functions that make one.
  CurvatureOperator(LinearMap product, LinearMap block)
      : product_((std::move)(product)), block_((std::move)(block)) {}

 private:
  LinearMap product_, block_;
};

/// v -> (d2 loss / dw2) v at w, of the gradient recorded once: of a net whose first layer has F multiply-adds
/// and the others R, 2F + 3R at first and 2F + 6R for each product. An Error if `loss` does not depend on w.
HYPERTAPE_API CurvatureOperator hessian_operator(std::function<Tensor(const TensorList& w)> loss,
                                                 const TensorList& w);

/// v -> J' H J v at w, J the Jacobian of `model` (the logits of all rows, say) and H the Hessian of `loss` in
/// the model's outputs: the generalised Gauss-Newton matrix, positive semidefinite where `loss` is convex.
/// The model is recorded once: F + R at first and 2F + 4R for each product. Absent where no path leads from a
/// tensor of w to the outputs. An Error if `loss` does not depend on the outputs. (Schraudolph 2002)
HYPERTAPE_API CurvatureOperator gauss_newton_operator(std::function<TensorList(const TensorList& w)> model,
                                                      std::function<Tensor(const TensorList& outputs)> loss,
                                                      const TensorList& w);

enum class LinearStatus : std::uint8_t {
  converged,           ///< the residual, or the backward error, is below the tolerance: not the error of x
  not_converged,       ///< iterations or terms were used up, or rounding stopped progress, first
  negative_curvature,  ///< a direction p with p'Ap < 0 stopped the solver: A is not positive definite
  diverging,           ///< a series whose terms grow: an eigenvalue of I - rate A lies outside [-1, 1]
  singular,            ///< A has no inverse, up to rounding
  not_finite,          ///< the operator returned infinite or NaN elements, or the numbers overflowed
  out_of_range         ///< solved, but the dtype is too narrow for x, which overflows or vanishes
};
HYPERTAPE_API std::string_view name_of(LinearStatus status) noexcept;

struct LinearSolution {
  TensorList x;  ///< where not converged: the iterate with the smallest residual
  LinearStatus status = LinearStatus::not_converged;
  /// A direction with p'Ap < 0 was met. Solvers that do not need positive definite A go on.
  bool indefinite = false;
  /// Relative, of every iterate from x = 0 (or a series' first term) on. Those of conjugate gradients follow
  /// the recursion; a last one that claims to have converged has been computed from x itself. A series of
  /// fixed length has none for its last iterate, which would cost one more product.
  std::vector<double> residuals;
  std::int64_t iterations = 0;
  std::int64_t products = 0;  ///< with A
  /// |b - A x| / (|A| |x| + |b|): the smallest relative change of A and b for which x is exact (Rigal and
  /// Gaches 1967). NaN if it was not looked at.
  double backward_error = std::numeric_limits<double>::quiet_NaN();
  /// The largest and the smallest of A's eigenvalues in size that the solver met (with damping, of the damped
  /// A): estimates from inside, |A| being at least the one, and the smallest at most the other. By Ritz
  /// values from conjugate gradients, power iterations from a factorisation, and |A x| / |x| from a series.
  /// What b has no part of is seen by the factorisation alone. NaN if nothing was seen.
  double largest_eigenvalue = std::numeric_limits<double>::quiet_NaN();
  double smallest_eigenvalue = std::numeric_limits<double>::quiet_NaN();
  /// |b - A x| / (smallest |x|): about the relative error of x. It takes the smallest for granted, and is too
  /// small where that is too large.
  double error = std::numeric_limits<double>::quiet_NaN();
  /// largest over smallest: the condition number, or less.
  double condition() const noexcept { return largest_eigenvalue / smallest_eigenvalue; }
};

struct CgOptions {
  double tolerance = 1e-12;  ///< of the relative residual; where rounding forbids that, of the backward error
  std::int64_t iterations = 1000;
  double damping = 0.0;  ///< solves (A + damping I) x = b
};

/// Conjugate gradients, for symmetric positive definite A. (Hestenes and Stiefel 1952)
HYPERTAPE_API LinearSolution conjugate_gradient(const LinearMap& a, const TensorList& b,
                                                const CgOptions& options = {});

/// Conjugate gradients on A A x = A b, for symmetric A of any signature; two products per iteration. The
/// residual stays that of A x = b; the condition number is squared.
HYPERTAPE_API LinearSolution normal_conjugate_gradient(const LinearMap& a, const TensorList& b,
                                                       const CgOptions& options = {});

struct NeumannOptions {
  double rate = 0.0;        ///< alpha; must be positive, and below 2 / (largest eigenvalue) to converge
  std::int64_t terms = 20;  ///< K, products with A
  double momentum = 0.0;    ///< of the accelerated series, in [0, 1)
  double tolerance = 1e-12;
};

/// alpha sum_{i=0..K} (I - alpha A)^i b, as x <- x + d, d <- momentum d + alpha (b - A x) from x = d = alpha
/// b. (Lorraine, Vicol and Duvenaud 2020, algorithm 3; Polyak 1964 for the momentum)
HYPERTAPE_API LinearSolution neumann_series(const LinearMap& a, const TensorList& b,
                                            const NeumannOptions& options);

struct DenseOptions {
  double tolerance = 1e-12;  ///< of the backward error; 64 roundings times the unknowns at least
  std::int64_t most = 3000;  ///< more unknowns are an Error
};

/// Forms A column by column and factorises it in double precision: Cholesky, or elimination with pivots where
/// A is not positive definite (`indefinite`: with a negative eigenvalue beyond rounding). For a few thousand
/// unknowns. An Error if A is not symmetric.
HYPERTAPE_API LinearSolution dense_solve(const LinearMap& a, const TensorList& b,
                                         const DenseOptions& options = {});

}  // namespace hypertape::bilevel
