// The Hessian as a matrix: the oracle of the iterative solvers, and the method of choice for small problems.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "hypertape/autodiff/ops.h"
#include "hypertape/bilevel/linear.h"
#include "hypertape/core/error.h"
#include "method.h"

namespace hypertape::bilevel {
namespace {

using Vector = std::vector<double>;

std::vector<Shape> shapes_of(const TensorList& list) {
  std::vector<Shape> shapes;
  for (const Tensor& each : list) shapes.push_back(each.shape());
  return shapes;
}

Vector to_double(const TensorList& list) {
  Vector values;
  for (const Tensor& each : list) {
    if (each.dtype() == Dtype::float64) {
      const std::vector<double> part = each.to_vector<double>();
      values.insert(values.end(), part.begin(), part.end());
    } else {
      const std::vector<float> part = each.to_vector<float>();
      values.insert(values.end(), part.begin(), part.end());
    }
  }
  return values;
}

TensorList to_tensors(const Vector& values, const TensorList& like) {
  const auto n = static_cast<std::int64_t>(values.size());
  const Tensor flat = like[0].dtype() == Dtype::float64
                          ? Tensor::from(values, {n})
                          : Tensor::from(std::vector<float>(values.begin(), values.end()), {n});
  return unflatten(flat, shapes_of(like));
}

// Row-major, n x n.
struct Matrix {
  std::size_t n;
  Vector elements;
  double* row(std::size_t i) { return elements.data() + i * n; }
  const double* row(std::size_t i) const { return elements.data() + i * n; }
};

Matrix form(const LinearMap& a, const TensorList& like, std::size_t n) {
  Matrix matrix{n, Vector(n * n)};
  Vector unit(n, 0.0);
  for (std::size_t j = 0; j < n; ++j) {
    unit[j] = 1.0;
    TensorList column = a(to_tensors(unit, like));
    detail::require_plain("dense_solve", column);
    if (column.size() != like.size())
      fail("dense_solve", "the operator returned ", column.size(), " tensors for ", like.size());
    detail::fill_absent(column, like);
    const Vector values = to_double(column);
    if (values.size() != n) fail("dense_solve", "the operator returned ", values.size(), " elements for ", n);
    std::copy(values.begin(), values.end(), matrix.row(j));
    unit[j] = 0.0;
  }
  // Symmetric up to rounding: the mean of both triangles.
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < i; ++j)
      matrix.row(i)[j] = matrix.row(j)[i] = 0.5 * (matrix.row(i)[j] + matrix.row(j)[i]);
  return matrix;
}

// Absent if the matrix is not positive definite.
std::optional<Vector> cholesky_solve(Matrix l, Vector x) {
  const std::size_t n = l.n;
  for (std::size_t i = 0; i < n; ++i) {
    double* row = l.row(i);
    for (std::size_t j = 0; j <= i; ++j) {
      const double* other = l.row(j);
      double sum = row[j];
      for (std::size_t k = 0; k < j; ++k) sum -= row[k] * other[k];
      if (j < i) {
        row[j] = sum / other[j];
      } else {
        if (!(sum > 0.0)) return std::nullopt;
        row[i] = std::sqrt(sum);
      }
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < i; ++k) x[i] -= l.row(i)[k] * x[k];
    x[i] /= l.row(i)[i];
  }
  for (std::size_t i = n; i-- > 0;) {
    x[i] /= l.row(i)[i];
    for (std::size_t k = 0; k < i; ++k) x[k] -= l.row(i)[k] * x[i];
  }
  return x;
}

// By elimination with row pivots; not finite where the matrix is singular.
Vector eliminate(Matrix a, Vector x) {
  const std::size_t n = a.n;
  for (std::size_t k = 0; k < n; ++k) {
    std::size_t pivot = k;
    for (std::size_t i = k + 1; i < n; ++i)
      if (std::abs(a.row(i)[k]) > std::abs(a.row(pivot)[k])) pivot = i;
    if (a.row(pivot)[k] == 0.0) return Vector(n, std::numeric_limits<double>::quiet_NaN());
    if (pivot != k) {
      std::swap_ranges(a.row(k), a.row(k) + n, a.row(pivot));
      std::swap(x[k], x[pivot]);
    }
    for (std::size_t i = k + 1; i < n; ++i) {
      const double factor = a.row(i)[k] / a.row(k)[k];
      if (factor == 0.0) continue;
      for (std::size_t j = k; j < n; ++j) a.row(i)[j] -= factor * a.row(k)[j];
      x[i] -= factor * x[k];
    }
  }
  for (std::size_t i = n; i-- > 0;) {
    for (std::size_t j = i + 1; j < n; ++j) x[i] -= a.row(i)[j] * x[j];
    x[i] /= a.row(i)[i];
  }
  return x;
}

double relative_residual(const Matrix& a, const Vector& x, const Vector& b) {
  double error = 0.0, size = 0.0;
  for (std::size_t i = 0; i < a.n; ++i) {
    double r = b[i];
    for (std::size_t j = 0; j < a.n; ++j) r -= a.row(i)[j] * x[j];
    error += r * r;
    size += b[i] * b[i];
  }
  return size > 0.0 ? std::sqrt(error / size) : 0.0;
}

}  // namespace

LinearSolution dense_solve(const LinearMap& a, const TensorList& b, std::int64_t most) {
  if (!a) fail("dense_solve", "there is no operator");
  if (b.empty()) fail("dense_solve", "the right-hand side has no tensors");
  std::int64_t n = 0;
  for (const Tensor& each : b) {
    if (!each.defined() || !is_floating(each.dtype()) || each.dtype() != b[0].dtype())
      fail("dense_solve", "the right-hand side must be floating tensors of one dtype");
    n += each.size();
  }
  if (n > most)
    fail("dense_solve", n, " unknowns would take a matrix of ", n, " x ", n, "; more than ", most,
         " are refused: use conjugate_gradient, or raise the limit");
  detail::require_plain("dense_solve", b);
  const Matrix matrix = form(a, b, static_cast<std::size_t>(n));
  const Vector right = to_double(b);
  LinearSolution solution;
  solution.products = n;
  std::optional<Vector> x = cholesky_solve(matrix, right);
  solution.status = x ? LinearStatus::converged : LinearStatus::negative_curvature;
  if (!x) x = eliminate(matrix, right);
  solution.residuals = {relative_residual(matrix, *x, right)};
  if (!std::isfinite(solution.residuals[0])) solution.status = LinearStatus::not_finite;
  solution.x = to_tensors(*x, b);
  return solution;
}

}  // namespace hypertape::bilevel
