// The Hessian as a matrix: the oracle of the iterative solvers, and the method of choice for small problems.
#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "hypertape/autodiff/ops.h"
#include "hypertape/bilevel/linear.h"
#include "hypertape/core/error.h"
#include "linear_operator.h"

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

Matrix form(detail::Operator& apply, const TensorList& like, std::size_t n) {
  Matrix matrix{n, Vector(n * n)};
  Vector unit(n, 0.0);
  for (std::size_t j = 0; j < n; ++j) {
    unit[j] = 1.0;
    const Vector values = to_double(apply(to_tensors(unit, like)));
    std::copy(values.begin(), values.end(), matrix.row(j));
    unit[j] = 0.0;
  }
  return matrix;
}

double largest_of(const Matrix& matrix) {
  double largest = 0.0;
  for (const double each : matrix.elements) largest = std::max(largest, std::abs(each));
  return largest;
}

// The mean of both triangles, which may differ by rounding.
void symmetrise(Matrix& matrix, double rounding) {
  const double allowed = std::sqrt(rounding) * largest_of(matrix);
  for (std::size_t i = 0; i < matrix.n; ++i)
    for (std::size_t j = 0; j < i; ++j) {
      double &below = matrix.row(i)[j], &above = matrix.row(j)[i];
      if (std::abs(below - above) > allowed)
        fail("dense_solve", "the operator is not symmetric: its elements [", i, ", ", j, "] and [", j, ", ",
             i, "] are ", below, " and ", above);
      below = above = 0.5 * (below + above);
    }
}

// Absent if the matrix is not positive definite.
std::optional<Vector> cholesky_solve(Matrix l, Vector x, double least_pivot) {
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
        if (!(sum > least_pivot)) return std::nullopt;
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

// By elimination with row pivots; absent if the matrix is singular.
std::optional<Vector> eliminate(Matrix a, Vector x, double least_pivot) {
  const std::size_t n = a.n;
  for (std::size_t k = 0; k < n; ++k) {
    std::size_t pivot = k;
    for (std::size_t i = k + 1; i < n; ++i)
      if (std::abs(a.row(i)[k]) > std::abs(a.row(pivot)[k])) pivot = i;
    if (!(std::abs(a.row(pivot)[k]) > least_pivot)) return std::nullopt;
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

}  // namespace

LinearSolution dense_solve(const LinearMap& a, const TensorList& b, std::int64_t most) {
  constexpr const char* name = "dense_solve";
  detail::Operator apply(name, a);
  detail::require_vector(name, b);
  detail::require_plain(name, b);
  std::int64_t n = 0;
  for (const Tensor& each : b) n += each.size();
  if (n > most)
    fail(name, n, " unknowns would take a matrix of ", n, " x ", n, "; more than ", most,
         " are refused: use conjugate_gradient, or raise the limit");
  const double size = detail::norm(b), rounding = detail::attainable(0.0, b);
  Matrix matrix = form(apply, b, static_cast<std::size_t>(n));
  LinearSolution solution;
  solution.x = detail::zeros_like(b);
  solution.residuals = {size > 0.0 ? 1.0 : 0.0};
  solution.products = apply.products();
  const double largest = largest_of(matrix);
  const bool finite = std::all_of(matrix.elements.begin(), matrix.elements.end(),
                                  [](double each) { return std::isfinite(each); });
  if (!finite || !std::isfinite(size)) {
    solution.status = LinearStatus::not_finite;
    return solution;
  }
  symmetrise(matrix, rounding);
  const double least_pivot = static_cast<double>(n) * rounding * largest;
  std::optional<Vector> x = cholesky_solve(matrix, to_double(b), least_pivot);
  if (!x) {
    x = eliminate(matrix, to_double(b), least_pivot);
    if (!x) {
      solution.status = LinearStatus::singular;
      return solution;
    }
    solution.indefinite = true;
  }
  solution.x = to_tensors(*x, b);
  if (size > 0.0) solution.residuals = {detail::norm(detail::plus(b, -1.0, apply(solution.x))) / size};
  solution.products = apply.products();
  // What rounding leaves of a factorisation, generously.
  const bool solved = solution.residuals[0] <= 1e3 * static_cast<double>(n) * rounding;
  solution.status = solved ? LinearStatus::converged : LinearStatus::singular;
  return solution;
}

}  // namespace hypertape::bilevel
