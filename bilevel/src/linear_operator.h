// What the linear solvers have in common: vectors as lists of tensors, and an operator that is checked.
#pragma once

#include "hypertape/bilevel/linear.h"
#include "method.h"

namespace hypertape::bilevel::detail {

/// Error unless b is a vector: floating tensors of one dtype, at least one.
void require_vector(const char* operation, const TensorList& b);

double inner_product(const TensorList& a, const TensorList& b);
/// y + factor x
TensorList plus(const TensorList& y, double factor, const TensorList& x);
TensorList times(const TensorList& x, double factor);
TensorList zeros_like(const TensorList& x);
/// The smallest residual that is worth asking for.
double attainable(double tolerance, const TensorList& b);

/// A x + damping x, with the number of products counted and the shapes checked.
class Operator {
 public:
  Operator(const char* operation, const LinearMap& a, double damping = 0.0, bool differentiable = false);
  TensorList operator()(const TensorList& x);
  std::int64_t products() const noexcept { return products_; }

 private:
  const char* operation_;
  const LinearMap& a_;
  double damping_;
  bool differentiable_;
  std::int64_t products_ = 0;
};

/// b scaled by a power of two to a norm near 1, so that squares neither overflow nor vanish on the way.
class Scaled {
 public:
  explicit Scaled(const TensorList& b);
  /// The right-hand side zero, or not a number: nothing to iterate on, and the solution says so.
  bool is_settled(LinearSolution& solution) const;
  const TensorList& vector() const noexcept { return scaled_; }
  /// Its norm.
  double size() const noexcept { return size_; }
  TensorList restored(const TensorList& x) const { return shifted(x, exponent_); }

 private:
  static TensorList shifted(const TensorList& x, int exponent);
  double original_ = 0.0, size_ = 0.0;
  int exponent_ = 0;
  TensorList scaled_;
};

}  // namespace hypertape::bilevel::detail
