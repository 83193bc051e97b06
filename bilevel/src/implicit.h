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

#include "method.h"

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
  Tensor flat(const TensorList& w) const;
  TensorList pieces(const Tensor& w) const;

 private:
  RunPointer run_;
  std::string method_;
  std::vector<Shape> shapes_;
};
using InnerLossPointer = std::shared_ptr<const InnerLoss>;

/// Solves f_ww x = u for plain tensors.
using PlainSolver = std::function<LinearSolution(const LinearMap& hessian, const TensorList& u)>;

/// f_ww^-1 u by `solver`, as a function of w, h and u that is differentiable to any order. Notes what the
/// solver did, and throws if it failed where nobody reads the notes.
Tensor inverse_hessian(const InnerLossPointer& inner, const PlainSolver& solver, const Tensor& w,
                       const TensorList& h, const Tensor& u);

/// Notes a linear solve; an Error if it failed where nobody reads the notes. `may_be_short`: not to have
/// converged is no failure.
void note(const InnerLoss& inner, const LinearSolution& solution, bool may_be_short = false);

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

/// Trains (or asks the problem's solver) and hands w out with the rule.
optim::State solve_implicitly(const RunPointer& run, const std::string& method, ImplicitRule rule);

}  // namespace hypertape::bilevel::detail
