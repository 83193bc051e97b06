#include "bilevel/minimum/spectrum.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <hypertape/autodiff/ops.h>
#include <hypertape/core/random.h>

namespace hypertape::bilevel::detail {

void RitzValues::add(double length, double ratio) {
  pivots_.push_back(1.0 / length);
  couplings_.push_back(ratio / length);
}

// Signs of the pivots of L D L' - bound I (stationary qd, Fernando and Parlett 1994): no digits of a small
// eigenvalue are lost in the sums that the matrix itself would have.
std::size_t RitzValues::below(double bound) const {
  constexpr double least = 1e-30;
  double shift = -bound;
  std::size_t count = 0;
  for (std::size_t i = 0; i < pivots_.size(); ++i) {
    double pivot = pivots_[i] + shift;
    if (std::abs(pivot) < least * pivots_[i]) pivot = -least * pivots_[i];
    if (pivot < 0.0) ++count;
    shift = shift * (couplings_[i] / pivot) - bound;
  }
  return count;
}

// Of the sorted eigenvalues the one after `wanted` others.
double RitzValues::search(double low, double high, std::size_t wanted) const {
  while (high > 1.01 * low) {
    const double middle = std::sqrt(low) * std::sqrt(high);
    (below(middle) > wanted ? high : low) = middle;
  }
  return high;
}

double RitzValues::gershgorin() const {
  double bound = 0.0, coupling = 0.0, beside = 0.0;
  for (std::size_t i = 0; i < pivots_.size(); ++i) {
    const double next = std::sqrt(couplings_[i] * pivots_[i]);
    bound = std::max(bound, pivots_[i] + coupling + beside + next);
    coupling = couplings_[i];
    beside = next;
  }
  return bound;
}

double RitzValues::smallest() const {
  if (empty()) return std::numeric_limits<double>::quiet_NaN();
  const double high = *std::min_element(pivots_.begin(), pivots_.end());
  return search(1e-20 * gershgorin(), 1.01 * high, 0);
}

double RitzValues::largest() const {
  if (empty()) return std::numeric_limits<double>::quiet_NaN();
  return search(*std::max_element(pivots_.begin(), pivots_.end()) / 1.01, 1.01 * gershgorin(),
                pivots_.size() - 1);
}

void Curvatures::see(double stretch) noexcept {
  largest_ = std::max(largest_, stretch);
  if (stretch > 0.0) smallest_ = std::min(smallest_, stretch);
}

double Curvatures::along(const TensorList& p, const TensorList& ap) {
  const double length = norm(p), curvature = inner_product(p, ap);
  if (length == 0.0) return 0.0;
  see(norm(ap) / length);
  return std::abs(curvature) <= attainable(0.0, p) * largest_ * length * length ? 0.0 : curvature;
}

bool Curvatures::negative(const SeriesTerm& term, double rounding) {
  see(term.stretch);
  return term.cosine * term.stretch < -rounding * largest_;
}

bool Curvatures::confirms(double quotient, const TensorList& like, Operator& apply) {
  if (!(quotient < 0.0)) return false;
  if (!probed_) {
    const TensorList v = unstructured(like), av = apply(v), aav = apply(av);
    const double once = norm(av), twice = norm(aav);
    if (std::isfinite(once)) largest_ = std::max(largest_, once / norm(v));
    if (once > 0.0 && std::isfinite(twice)) largest_ = std::max(largest_, twice / once);
    probed_ = true;
  }
  // Twice what counts as zero: the bound itself is from below.
  return quotient < -2.0 * attainable(0.0, like) * largest_;
}

// A prime number of random elements, over and over: no stride of a matrix is in step with it, and drawing
// each element would take as long as several products.
TensorList unstructured(const TensorList& like) {
  constexpr std::int64_t period = 1009;
  TensorList v;
  for (std::size_t i = 0; i < like.size(); ++i) {
    const std::int64_t size = like[i].size(), drawn = std::min(size, period);
    const Tensor one = random({drawn}, Distribution::uniform, Key{0, 0, i}, like[i].dtype()) * 2.0 - 1.0;
    const Tensor all = size == drawn ? one : slice(tile(one, {(size + period - 1) / period}), 0, 0, size);
    v.push_back(reshape(all, like[i].shape()));
  }
  return v;
}

}  // namespace hypertape::bilevel::detail
