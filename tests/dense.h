// Small dense algebra in long double for oracles: shares nothing with the library.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace dense {

using Real = long double;
using Vector = std::vector<Real>;

/// Row-major.
struct Matrix {
  std::size_t rows = 0, columns = 0;
  Vector elements;
  Matrix() = default;
  Matrix(std::size_t r, std::size_t c) : rows(r), columns(c), elements(r * c, 0.0L) {}
  Real& operator()(std::size_t i, std::size_t j) { return elements[i * columns + j]; }
  Real operator()(std::size_t i, std::size_t j) const { return elements[i * columns + j]; }
};

inline Vector widened(const std::vector<double>& x) { return {x.begin(), x.end()}; }
inline std::vector<double> narrowed(const Vector& x) {
  std::vector<double> y;
  for (const Real each : x) y.push_back(static_cast<double>(each));
  return y;
}
inline Matrix matrix(const std::vector<double>& elements, std::size_t rows, std::size_t columns) {
  Matrix m(rows, columns);
  m.elements = widened(elements);
  return m;
}

inline Real dot(const Vector& a, const Vector& b) {
  Real sum = 0.0L;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}
inline Vector times(const Matrix& m, const Vector& x) {
  Vector y(m.rows, 0.0L);
  for (std::size_t i = 0; i < m.rows; ++i)
    for (std::size_t j = 0; j < m.columns; ++j) y[i] += m(i, j) * x[j];
  return y;
}
/// m' x
inline Vector transposed_times(const Matrix& m, const Vector& x) {
  Vector y(m.columns, 0.0L);
  for (std::size_t i = 0; i < m.rows; ++i)
    for (std::size_t j = 0; j < m.columns; ++j) y[j] += m(i, j) * x[i];
  return y;
}
inline Vector sum(const Vector& a, const Vector& b, Real factor = 1.0L) {
  Vector y = a;
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += factor * b[i];
  return y;
}
/// m' diag(d) m
inline Matrix gram(const Matrix& m, const Vector& d) {
  Matrix g(m.columns, m.columns);
  for (std::size_t k = 0; k < m.rows; ++k)
    for (std::size_t i = 0; i < m.columns; ++i)
      for (std::size_t j = 0; j < m.columns; ++j) g(i, j) += d[k] * m(k, i) * m(k, j);
  return g;
}

/// Gaussian elimination with row pivots.
inline Vector solve(Matrix a, Vector x) {
  const std::size_t n = a.rows;
  for (std::size_t k = 0; k < n; ++k) {
    std::size_t pivot = k;
    for (std::size_t i = k + 1; i < n; ++i)
      if (std::abs(a(i, k)) > std::abs(a(pivot, k))) pivot = i;
    for (std::size_t j = 0; j < n; ++j) std::swap(a(k, j), a(pivot, j));
    std::swap(x[k], x[pivot]);
    for (std::size_t i = k + 1; i < n; ++i) {
      const Real factor = a(i, k) / a(k, k);
      for (std::size_t j = k; j < n; ++j) a(i, j) -= factor * a(k, j);
      x[i] -= factor * x[k];
    }
  }
  for (std::size_t i = n; i-- > 0;) {
    for (std::size_t j = i + 1; j < n; ++j) x[i] -= a(i, j) * x[j];
    x[i] /= a(i, i);
  }
  return x;
}

}  // namespace dense
