// What a solver learns of an operator's eigenvalues on its way.
#pragma once

#include <vector>

#include "bilevel/minimum/linear_operator.h"
#include "bilevel/minimum/series_term.h"

namespace hypertape::bilevel::detail {

/// Of the tridiagonal matrix that conjugate gradients made without knowing it (Lanczos 1950): its extreme
/// eigenvalues are those of A on the space searched, hence inside A's. The largest is right soon, the
/// smallest once the iteration converges; an eigenvalue whose vector the right-hand side lacks is never seen.
class RitzValues {
 public:
  /// After each step: its length, and |r|^2 after the step over |r|^2 before; 0 where the next direction
  /// starts afresh.
  void add(double length, double ratio);
  bool empty() const noexcept { return pivots_.empty(); }
  /// To 1 %; NaN if empty.
  double smallest() const;
  double largest() const;

 private:
  /// How many eigenvalues lie below `bound`.
  std::size_t below(double bound) const;
  double search(double low, double high, std::size_t wanted) const;
  double gershgorin() const;
  // L D L': D, and the squares of L's elements times D.
  std::vector<double> pivots_, couplings_;
};

/// Sees |A| from below, and with it which p'Ap are zero but for rounding.
class Curvatures {
 public:
  /// p'Ap, exactly 0 if it vanishes.
  double along(const TensorList& p, const TensorList& ap);
  /// Whether x'Ax of a term is negative beyond its rounding.
  bool negative(const SeriesTerm& term, double rounding);
  /// Whether p'Ap / p'p < 0 holds against |A|, for which two products more are made once: a p in the null
  /// space has seen nothing of A but its rounding. `like`: any vector.
  bool confirms(double quotient, const TensorList& like, Operator& apply);
  /// Bounds from inside: the largest |A p| / |p|, and the smallest.
  double largest() const noexcept { return largest_; }
  double smallest() const noexcept { return smallest_; }

 private:
  void see(double stretch) noexcept;
  double largest_ = 0.0, smallest_ = 1e300;
  bool probed_ = false;
};

/// A vector of numbers without structure, in [-1, 1]: no eigenvector is likely to be orthogonal to it.
TensorList unstructured(const TensorList& like);

}  // namespace hypertape::bilevel::detail
