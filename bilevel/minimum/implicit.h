// Implicit differentiation of a minimum: w* as a value whose derivatives of any order come from f_w(w*, h) =
// 0.
//
// Three nodes nest. The minimum's pullback needs the inverse Hessian applied to a cotangent; that product is
// a function of (w, h, u) with derivatives of its own, given by the same inverse; and everything around it is
// recorded operations. So second derivatives of an implicit hypergradient are what the formulas say.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/minimum/aside.h"
#include "bilevel/run/method.h"

namespace hypertape::bilevel::detail {

/// f(w, h) with w as one vector.
class InnerLoss {
 public:
  /// `method` is for messages.
  InnerLoss(RunPointer run, std::string method);
  Tensor operator()(const Tensor& w, const TensorList& h) const;
  /// f_w; zeros where f does not depend on w.
  Tensor gradient(const Tensor& w, const TensorList& h) const;
  /// f_ww v
  Tensor hessian_vector(const Tensor& w, const TensorList& h, const Tensor& v) const;
  /// d <f_w, v> / dh for the hyperparameters with `needed`; absent where there is no path.
  TensorList mixed(const Tensor& w, const TensorList& h, const Tensor& v,
                   const std::vector<bool>& needed) const;
  /// v -> f_ww v, of the gradient recorded once.
  LinearMap hessian(const Tensor& w, const TensorList& h) const;
  /// f_h for the hyperparameters with `needed`.
  TensorList by_hyper(const Tensor& w, const TensorList& h, const std::vector<bool>& needed) const;

  const Run& run() const noexcept { return *run_; }
  const std::string& method() const noexcept { return method_; }
  Dtype dtype() const noexcept { return run_->initial().tensors().front().dtype(); }
  Tensor flat(const TensorList& w) const;
  TensorList pieces(const Tensor& w) const;

 private:
  RunPointer run_;
  std::string method_;
  std::vector<Shape> shapes_;
};
using InnerLossPointer = std::shared_ptr<const InnerLoss>;

/// Solves f_ww x = u for plain tensors, and what it can of f_ww y = f_w besides.
struct PlainSolver {
  std::function<LinearSolution(const LinearMap& hessian, const TensorList& u, Aside* aside)> solve;
  double tolerance;
};

/// f_ww^-1 u by `solver`, as a function of w, h and u that is differentiable to any order. Notes what the
/// solver did, and throws if it failed where nobody reads the notes.
Tensor inverse_hessian(const InnerLossPointer& inner, const PlainSolver& solver, const Tensor& w,
                       const TensorList& h, const Tensor& u);

/// Notes a linear solve; an Error if it failed where nobody reads the notes. `may_be_short`: not to have
/// converged is no failure.
void note(const InnerLoss& inner, const LinearSolution& solution, bool may_be_short = false);

/// |f_ww^-1 f_w| relative to w, by what a solve of f_ww x = u found out beside x: a Newton step as far as the
/// solver looked, and what is left of f_w over the smallest eigenvalue known. May lower that, and find
/// negative curvature, in `solution`.
double distance_beside(const InnerLoss& inner, const LinearMap& hessian, const Aside& aside,
                       LinearSolution& solution);
/// The same by conjugate gradients of its own, to 1e-2.
double distance_alone(const InnerLoss& inner, const LinearMap& hessian, std::int64_t products,
                      LinearSolution& solution);
/// Whether f_w is small enough to pass, but more than rounding: only the distance can tell.
bool is_doubtful(const InnerLoss& inner);

/// How a method gets from the cotangent of w* to those of h, and from tangents of h to that of w*; made of
/// recorded operations. An empty push refuses forward mode.
struct ImplicitRule {
  std::function<TensorList(const InnerLossPointer&, const Tensor& w, const TensorList& h, const Tensor& w_bar,
                           const std::vector<bool>& needed)>
      pull;
  std::function<Tensor(const InnerLossPointer&, const Tensor& w, const TensorList& h,
                       const TensorList& h_dot)>
      push;
};
/// -f_hw P F_w and its transpose, for a symmetric P in the place of the inverse Hessian.
using Inverse =
    std::function<Tensor(const InnerLossPointer&, const Tensor& w, const TensorList& h, const Tensor& u)>;
ImplicitRule rule_of(Inverse inverse);

/// w* by the problem's own solver, from w; `method` is for messages.
TensorList ask_solver(const Run& run, const TensorList& w, const TensorList& h, const std::string& method);

/// What counts as a minimum. An infinite tolerance is never looked at.
struct InnerTolerance {
  double value;
  /// No lower than 64 roundings of the dtype.
  double at(Dtype dtype) const noexcept;
  /// Of the distance: also as much as rounding explains, 4 roundings times the condition number, up to half
  /// of the dtype's digits.
  double of_distance(Dtype dtype, double condition) const noexcept;
};

/// Trains (or asks the problem's solver) and hands w out with the rule. A pullback or tangent at a w that is
/// no minimum is an Error where nobody reads the notes.
optim::State solve_implicitly(const RunPointer& run, const std::string& method, ImplicitRule rule,
                              InnerTolerance tolerance);

}  // namespace hypertape::bilevel::detail
