#include "closed_forms.h"

#include <algorithm>
#include <cmath>

namespace hypertape {
namespace {

using Real = long double;
using Vector = std::vector<Real>;

Vector real(const std::vector<double>& x) { return {x.begin(), x.end()}; }
std::vector<double> rounded(const Vector& x) {
  std::vector<double> result;
  for (const Real each : x) result.push_back(static_cast<double>(each));
  return result;
}

// Square, row-major.
struct Matrix {
  explicit Matrix(std::size_t size) : n(size), elements(size * size, 0.0L) {}
  Real& operator()(std::size_t i, std::size_t j) { return elements[i * n + j]; }
  Real operator()(std::size_t i, std::size_t j) const { return elements[i * n + j]; }
  std::size_t n;
  Vector elements;
};

// Solves Ax = b for symmetric positive definite A by A = LL'.
Vector solve(Matrix a, Vector x) {
  for (std::size_t j = 0; j < a.n; ++j)
    for (std::size_t i = j; i < a.n; ++i) {
      Real total = a(i, j);
      for (std::size_t k = 0; k < j; ++k) total -= a(i, k) * a(j, k);
      a(i, j) = i == j ? std::sqrt(total) : total / a(j, j);
    }
  for (std::size_t i = 0; i < a.n; ++i) {
    for (std::size_t k = 0; k < i; ++k) x[i] -= a(i, k) * x[k];
    x[i] /= a(i, i);
  }
  for (std::size_t i = a.n; i-- > 0;) {
    for (std::size_t k = i + 1; k < a.n; ++k) x[i] -= a(k, i) * x[k];
    x[i] /= a(i, i);
  }
  return x;
}

// Smallest and largest eigenvalue of a symmetric matrix, by Jacobi's rotations.
std::pair<Real, Real> extreme_eigenvalues(Matrix a) {
  constexpr int most_sweeps = 50;
  for (int sweep = 0; sweep < most_sweeps; ++sweep) {
    Real off = 0.0L, on = 0.0L;
    for (std::size_t i = 0; i < a.n; ++i)
      for (std::size_t j = 0; j < a.n; ++j) (i == j ? on : off) += a(i, j) * a(i, j);
    if (off <= 1e-30L * on) break;
    for (std::size_t p = 0; p < a.n; ++p)
      for (std::size_t q = p + 1; q < a.n; ++q) {
        if (a(p, q) == 0.0L) continue;
        const Real theta = (a(q, q) - a(p, p)) / (2.0L * a(p, q));
        const Real t = (theta < 0.0L ? -1.0L : 1.0L) / (std::abs(theta) + std::sqrt(theta * theta + 1.0L));
        const Real c = 1.0L / std::sqrt(t * t + 1.0L), s = t * c;
        for (std::size_t k = 0; k < a.n; ++k) {
          const Real left = a(k, p), right = a(k, q);
          a(k, p) = c * left - s * right;
          a(k, q) = s * left + c * right;
        }
        for (std::size_t k = 0; k < a.n; ++k) {
          const Real left = a(p, k), right = a(q, k);
          a(p, k) = c * left - s * right;
          a(q, k) = s * left + c * right;
        }
      }
  }
  Real least = a(0, 0), most = a(0, 0);
  for (std::size_t i = 1; i < a.n; ++i) {
    least = std::min(least, a(i, i));
    most = std::max(most, a(i, i));
  }
  return {least, most};
}

// X'X / N
Matrix gram(const Vector& x, std::size_t p) {
  Matrix a(p);
  const std::size_t samples = x.size() / p;
  for (std::size_t n = 0; n < samples; ++n)
    for (std::size_t i = 0; i < p; ++i)
      for (std::size_t j = 0; j < p; ++j) a(i, j) += x[n * p + i] * x[n * p + j] / Real(samples);
  return a;
}

// 1/(2N) |Xw - y|^2 and its gradient.
Real mean_square(const Vector& x, const Vector& y, const Vector& w, Vector& gradient) {
  const std::size_t p = w.size();
  const Real samples = y.size();
  Real value = 0.0L;
  gradient.assign(p, 0.0L);
  for (std::size_t n = 0; n < y.size(); ++n) {
    Real residual = -y[n];
    for (std::size_t j = 0; j < p; ++j) residual += x[n * p + j] * w[j];
    value += residual * residual / (2.0L * samples);
    for (std::size_t j = 0; j < p; ++j) gradient[j] += residual * x[n * p + j] / samples;
  }
  return value;
}

// Mean softmax cross entropy of X W, its gradient, and if asked its Hessian.
Real cross_entropy(const Vector& x, const std::vector<std::size_t>& labels, const Vector& w,
                   std::size_t classes, Vector& gradient, Matrix* hessian) {
  const std::size_t p = w.size() / classes;
  const Real samples = labels.size();
  Real value = 0.0L;
  gradient.assign(w.size(), 0.0L);
  Vector share(classes);
  for (std::size_t n = 0; n < labels.size(); ++n) {
    for (std::size_t c = 0; c < classes; ++c) {
      share[c] = 0.0L;
      for (std::size_t j = 0; j < p; ++j) share[c] += x[n * p + j] * w[j * classes + c];
    }
    const Real largest = *std::max_element(share.begin(), share.end());
    value += (largest - share[labels[n]]) / samples;
    Real total = 0.0L;
    for (Real& each : share) total += each = std::exp(each - largest);
    value += std::log(total) / samples;
    for (Real& each : share) each /= total;
    for (std::size_t j = 0; j < p; ++j)
      for (std::size_t c = 0; c < classes; ++c)
        gradient[j * classes + c] += x[n * p + j] * (share[c] - (c == labels[n] ? 1.0L : 0.0L)) / samples;
    if (hessian == nullptr) continue;
    for (std::size_t j = 0; j < p; ++j)
      for (std::size_t k = 0; k < p; ++k)
        for (std::size_t c = 0; c < classes; ++c)
          for (std::size_t d = 0; d < classes; ++d)
            (*hessian)(j * classes + c, k * classes + d) +=
                x[n * p + j] * x[n * p + k] * share[c] * ((c == d ? 1.0L : 0.0L) - share[d]) / samples;
  }
  return value;
}

}  // namespace

ClosedForm closed_form(const QuadraticNumbers& numbers) {
  const std::size_t n = numbers.b.size(), m = numbers.h.size();
  Matrix a(n);
  a.elements = real(numbers.a);
  Vector right = real(numbers.b);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < m; ++j) right[i] += Real(numbers.b_matrix[i * m + j]) * numbers.h[j];
  const Vector w = solve(a, right);
  Vector outer(n);
  Real value = 0.0L;
  for (std::size_t i = 0; i < n; ++i) {
    outer[i] = w[i] - numbers.c[i];
    value += 0.5L * outer[i] * outer[i];
  }
  const Vector q = solve(a, outer);
  Vector gradient = real(numbers.d);
  for (std::size_t j = 0; j < m; ++j) {
    value += Real(numbers.d[j]) * numbers.h[j];
    for (std::size_t i = 0; i < n; ++i) gradient[j] += Real(numbers.b_matrix[i * m + j]) * q[i];
  }
  const auto [least, most] = extreme_eigenvalues(a);
  return {static_cast<double>(value), rounded(w), rounded(gradient), static_cast<double>(least),
          static_cast<double>(most)};
}

ClosedForm closed_form(const RegressionNumbers& numbers) {
  const std::size_t p = numbers.penalties.size();
  const Vector x = real(numbers.x), y = real(numbers.y);
  Matrix hessian = gram(x, p);
  for (std::size_t j = 0; j < p; ++j) hessian(j, j) += numbers.penalties[j];
  Vector right;  // X'y / N is minus the gradient at w = 0
  mean_square(x, y, Vector(p, 0.0L), right);
  for (Real& each : right) each = -each;
  const Vector w = solve(hessian, right);
  Vector outer;
  const Real value = mean_square(real(numbers.x_outer), real(numbers.y_outer), w, outer);
  Vector gradient = solve(hessian, outer);
  for (std::size_t j = 0; j < p; ++j) gradient[j] *= -w[j];
  const auto [least, most] = extreme_eigenvalues(hessian);
  return {static_cast<double>(value), rounded(w), rounded(gradient), static_cast<double>(least),
          static_cast<double>(most)};
}

ClosedForm closed_form(const LogisticNumbers& numbers) {
  const std::size_t p = numbers.penalties.size(), classes = numbers.classes, size = p * classes;
  const Vector x = real(numbers.x);
  const auto penalty = [&](std::size_t k) { return Real(numbers.penalties[k / classes]); };
  Vector w(size, 0.0L), gradient;
  Matrix hessian(size);
  const auto evaluate = [&](const Vector& at) {
    hessian = Matrix(size);
    Real value = cross_entropy(x, numbers.labels, at, classes, gradient, &hessian);
    for (std::size_t k = 0; k < size; ++k) {
      value += 0.5L * penalty(k) * at[k] * at[k];
      gradient[k] += penalty(k) * at[k];
      hessian(k, k) += penalty(k);
    }
    return value;
  };
  // The objective is strongly convex: halved where a step would go up, Newton's method ends at its minimum.
  // It stops where a step is lost in rounding.
  constexpr int most_steps = 100;
  constexpr Real enough = 1e-18L;
  Real value = evaluate(w), moved = 1.0L;
  for (int step = 0; step < most_steps && moved > enough; ++step) {
    const Vector direction = solve(hessian, gradient);
    moved = 0.0L;
    for (const Real each : direction) moved = std::max(moved, std::abs(each));
    for (Real length = 1.0L; length > enough; length /= 2.0L) {
      Vector next = w;
      for (std::size_t k = 0; k < size; ++k) next[k] -= length * direction[k];
      const Real there = evaluate(next);
      if (there > value && moved > 1e-8L) continue;  // nearer, the values differ by rounding alone
      w = next;
      value = there;
      break;
    }
  }
  evaluate(w);
  Vector outer;
  const Real outer_value =
      cross_entropy(real(numbers.x_outer), numbers.labels_outer, w, classes, outer, nullptr);
  const Vector q = solve(hessian, outer);
  Vector result(p, 0.0L);
  for (std::size_t k = 0; k < size; ++k) result[k / classes] -= q[k] * w[k];
  // diag(share) - share share' is at most 1/2, whatever w.
  Matrix bound = gram(x, p);
  for (Real& each : bound.elements) each *= 0.5L;
  for (std::size_t j = 0; j < p; ++j) bound(j, j) += numbers.penalties[j];
  return {static_cast<double>(outer_value), rounded(w), rounded(result),
          static_cast<double>(extreme_eigenvalues(hessian).first),
          static_cast<double>(extreme_eigenvalues(bound).second)};
}

}  // namespace hypertape
