// A second right-hand side, answered from what a solve for the first one does anyway.
#pragma once

#include <cmath>

#include "bilevel/minimum/linear_operator.h"

namespace hypertape::bilevel::detail {

/// A y = g, projected onto the directions along which A x = b is solved. They are conjugate, so that each
/// costs an inner product and two sums of vectors, and no product with A.
class Aside {
 public:
  /// `follows`: whether its size is worth those; without, nothing of it counts as seen.
  Aside(const TensorList& g, bool follows) : scaled_(g), follows_(follows) {
    LinearSolution nothing;
    asks_ = !scaled_.is_settled(nothing);
    if (!asks_) return;
    left_ = scaled_.vector();
    unseen_ = norm(g);
    if (!follows_) return;
    found_ = zeros_like(left_);
  }
  /// Along p: q is A p for conjugate gradients, and `by` p; for the normal equations `by` is q. `square` is
  /// <by, q>.
  void follow(const TensorList& p, const TensorList& q, const TensorList& by, double square) {
    if (!asks_ || !follows_) return;
    const double length = inner_product(by, left_) / square;
    found_ = plus(found_, length, p);
    left_ = plus(left_, -length, q);
  }
  /// The whole of y, where the solver has it.
  void found(double size) noexcept {
    size_ = size;
    unseen_ = 0.0;
  }
  /// At the end, A having been 2^a_exponent times what it was.
  void finish(int a_exponent) {
    if (!asks_ || !follows_) return;
    size_ = std::ldexp(norm(found_), scaled_.exponent() - a_exponent);
    unseen_ = std::ldexp(norm(left_), scaled_.exponent());
  }
  bool asks() const noexcept { return asks_; }
  const TensorList& right() const noexcept { return scaled_.vector(); }
  int exponent() const noexcept { return scaled_.exponent(); }
  /// What is left of g, times 2^-exponent.
  const TensorList& left() const noexcept { return left_; }
  /// |y| on the directions gone along, and |g - A y|; 0 and |g| if there were none.
  double size() const noexcept { return size_; }
  double unseen() const noexcept { return unseen_; }

 private:
  Scaled scaled_;
  bool follows_, asks_ = false;
  TensorList left_, found_;
  double size_ = 0.0, unseen_ = 0.0;
};

/// The public solvers with a second right-hand side; null: none.
LinearSolution solve_definite(const char* operation, const LinearMap& a, const TensorList& b,
                              const CgOptions& options, Aside* aside);
LinearSolution solve_normal(const char* operation, const LinearMap& a, const TensorList& b,
                            const CgOptions& options, Aside* aside);
LinearSolution solve_dense(const char* operation, const LinearMap& a, const TensorList& b,
                           const DenseOptions& options, Aside* aside);

}  // namespace hypertape::bilevel::detail
