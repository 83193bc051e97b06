// What the linear solvers have in common: vectors as lists of tensors, and an operator that is checked.
#pragma once

#include <hypertape/bilevel/linear.h>
#include "bilevel/run/method.h"

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

/// x times 2^exponent, in steps that every dtype can represent.
TensorList shifted(const TensorList& x, int exponent);

/// A x + damping x, with the number of products counted and the shapes checked.
class Operator {
 public:
  Operator(const char* operation, const LinearMap& a, double damping = 0.0, bool differentiable = false);
  TensorList operator()(const TensorList& x);
  std::int64_t products() const noexcept { return products_; }
  /// Makes it 2^-exponent A, by what the first product shows of |A|: near 1, so that numbers with A's square
  /// neither overflow nor vanish. An |A| near 1 is left as it is.
  void normalise() noexcept { normalises_ = true; }
  int exponent() const noexcept { return exponent_; }

 private:
  const char* operation_;
  const LinearMap& a_;
  double damping_;
  bool differentiable_, normalises_ = false;
  int exponent_ = 0;
  std::int64_t products_ = 0;
};

/// b scaled by a power of two to a norm near 1, so that squares neither overflow nor vanish on the way.
class Scaled {
 public:
  explicit Scaled(const TensorList& b);
  /// What |b| has too much, as a power of two; 0 where that does no harm.
  static int exponent_of(const TensorList& b);
  /// The right-hand side zero, or not a number: nothing to iterate on, and the solution says so.
  bool is_settled(LinearSolution& solution) const;
  const TensorList& vector() const noexcept { return scaled_; }
  /// Its norm.
  double size() const noexcept { return size_; }
  int exponent() const noexcept { return exponent_; }
  /// x of the scaled system, A being 2^a_exponent times the matrix of that. False if the dtype cannot hold
  /// it.
  bool restore(const TensorList& x, int a_exponent, TensorList& restored) const;

 private:
  double original_ = 0.0, size_ = 0.0;
  int exponent_ = 0;
  TensorList scaled_;
};

}  // namespace hypertape::bilevel::detail
