// The Hessian as a matrix: the oracle of the iterative solvers, and the method of choice for small problems.
#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/linear.h>
#include <hypertape/core/error.h>
#include "bilevel/minimum/aside.h"
#include "bilevel/minimum/linear_operator.h"
#include "bilevel/minimum/spectrum.h"
#include "core/base/default_floats.h"

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
void symmetrise(const char* operation, Matrix& matrix, double rounding) {
  const double allowed = std::sqrt(rounding) * largest_of(matrix);
  for (std::size_t i = 0; i < matrix.n; ++i)
    for (std::size_t j = 0; j < i; ++j) {
      double &below = matrix.row(i)[j], &above = matrix.row(j)[i];
      if (std::abs(below - above) > allowed)
        fail(operation, "the operator is not symmetric: its elements [", i, ", ", j, "] and [", j, ", ", i,
             "] are ", below, " and ", above);
      below = above = 0.5 * (below + above);
    }
}

// What is left of A after factorisation.
class Factors {
 public:
  /// L L'; absent unless every pivot is above `least_pivot`.
  static std::optional<Factors> cholesky(Matrix l, double least_pivot);
  /// By elimination with row pivots; absent if the matrix is singular.
  static std::optional<Factors> elimination(Matrix a, double least_pivot);
  Vector solve(Vector x) const { return swaps_.empty() ? by_cholesky(std::move(x)) : by_rows(std::move(x)); }

 private:
  explicit Factors(Matrix matrix) : matrix_(std::move(matrix)) {}
  Vector by_cholesky(Vector x) const;
  Vector by_rows(Vector x) const;
  Matrix matrix_;
  std::vector<std::size_t> swaps_;  ///< of elimination: the row that took each row's place
};

std::optional<Factors> Factors::cholesky(Matrix l, double least_pivot) {
  for (std::size_t i = 0; i < l.n; ++i) {
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
  return Factors(std::move(l));
}

Vector Factors::by_cholesky(Vector x) const {
  const Matrix& l = matrix_;
  for (std::size_t i = 0; i < l.n; ++i) {
    for (std::size_t k = 0; k < i; ++k) x[i] -= l.row(i)[k] * x[k];
    x[i] /= l.row(i)[i];
  }
  for (std::size_t i = l.n; i-- > 0;) {
    x[i] /= l.row(i)[i];
    for (std::size_t k = 0; k < i; ++k) x[k] -= l.row(i)[k] * x[i];
  }
  return x;
}

std::optional<Factors> Factors::elimination(Matrix a, double least_pivot) {
  const std::size_t n = a.n;
  std::vector<std::size_t> swaps(n);
  for (std::size_t k = 0; k < n; ++k) {
    std::size_t pivot = k;
    for (std::size_t i = k + 1; i < n; ++i)
      if (std::abs(a.row(i)[k]) > std::abs(a.row(pivot)[k])) pivot = i;
    if (!(std::abs(a.row(pivot)[k]) > least_pivot)) return std::nullopt;
    swaps[k] = pivot;
    if (pivot != k) std::swap_ranges(a.row(k), a.row(k) + n, a.row(pivot));
    for (std::size_t i = k + 1; i < n; ++i) {
      const double factor = a.row(i)[k] / a.row(k)[k];
      a.row(i)[k] = factor;
      if (factor == 0.0) continue;
      for (std::size_t j = k + 1; j < n; ++j) a.row(i)[j] -= factor * a.row(k)[j];
    }
  }
  Factors factors(std::move(a));
  factors.swaps_ = std::move(swaps);
  return factors;
}

Vector Factors::by_rows(Vector x) const {
  const Matrix& lu = matrix_;
  for (std::size_t k = 0; k < lu.n; ++k) std::swap(x[k], x[swaps_[k]]);
  for (std::size_t i = 0; i < lu.n; ++i)
    for (std::size_t k = 0; k < i; ++k) x[i] -= lu.row(i)[k] * x[k];
  for (std::size_t i = lu.n; i-- > 0;) {
    for (std::size_t j = i + 1; j < lu.n; ++j) x[i] -= lu.row(i)[j] * x[j];
    x[i] /= lu.row(i)[i];
  }
  return x;
}

// Whether an x has x'Ax < 0 beyond `noise`: Cholesky with the largest pivot first, until what is left is zero
// or shows it.
bool is_indefinite(Matrix a, double noise) {
  const std::size_t n = a.n;
  std::vector<bool> done(n, false);
  for (std::size_t step = 0; step < n; ++step) {
    std::size_t pivot = n;
    for (std::size_t i = 0; i < n; ++i) {
      if (done[i]) continue;
      if (a.row(i)[i] < -noise) return true;
      if (pivot == n || a.row(i)[i] > a.row(pivot)[pivot]) pivot = i;
    }
    const double* top = a.row(pivot);
    if (top[pivot] <= noise) {
      for (std::size_t i = 0; i < n; ++i)
        for (std::size_t j = 0; j < i; ++j)
          if (!done[i] && !done[j] && std::abs(a.row(i)[j]) > 2.0 * noise) return true;
      return false;
    }
    done[pivot] = true;
    for (std::size_t i = 0; i < n; ++i) {
      if (done[i]) continue;
      const double factor = a.row(i)[pivot] / top[pivot];
      for (std::size_t j = 0; j < n; ++j)
        if (!done[j]) a.row(i)[j] -= factor * top[j];
    }
  }
  return false;
}

double length_of(const Vector& x) {
  double squares = 0.0;
  for (const double each : x) squares += each * each;
  return std::sqrt(squares);
}

// The largest eigenvalue in size of a symmetric map, from below.
template <class Map>
double power_iteration(const Map& map, std::size_t n) {
  Vector x = to_double(detail::unstructured({Tensor::zeros({static_cast<std::int64_t>(n)})}));
  double largest = 0.0;
  for (int i = 0; i < 8; ++i) {
    const double length = length_of(x);
    if (!(length > 0.0) || !std::isfinite(length)) break;
    for (double& each : x) each /= length;
    x = map(x);
    largest = std::max(largest, length_of(x));
  }
  return largest;
}

Vector times(const Matrix& a, const Vector& x) {
  Vector product(a.n);
  for (std::size_t i = 0; i < a.n; ++i)
    for (std::size_t j = 0; j < a.n; ++j) product[i] += a.row(i)[j] * x[j];
  return product;
}

}  // namespace

LinearSolution dense_solve(const LinearMap& a, const TensorList& b, const DenseOptions& options) {
  const hypertape::detail::DefaultFloats floats;
  return detail::solve_dense("dense_solve", a, b, options, nullptr);
}

LinearSolution detail::solve_dense(const char* name, const LinearMap& a, const TensorList& b,
                                   const DenseOptions& options, Aside* aside) {
  Operator apply(name, a);
  require_vector(name, b);
  require_plain(name, b);
  if (!(options.tolerance >= 0.0)) fail(name, "tolerance is ", options.tolerance);
  std::int64_t n = 0;
  for (const Tensor& each : b) n += each.size();
  if (n > options.most)
    fail(name, n, " unknowns would take a matrix of ", n, " x ", n, "; more than ", options.most,
         " are refused: use conjugate_gradient, or raise the limit");
  const Scaled right(b);
  const double rounding = attainable(0.0, b);
  Matrix matrix = form(apply, b, static_cast<std::size_t>(n));
  LinearSolution solution;
  solution.x = zeros_like(b);
  solution.residuals = {right.size() > 0.0 ? 1.0 : 0.0};
  solution.products = apply.products();
  double largest = largest_of(matrix);
  const bool finite = std::all_of(matrix.elements.begin(), matrix.elements.end(),
                                  [](double each) { return std::isfinite(each); });
  if (!finite || !std::isfinite(right.size())) {
    solution.status = LinearStatus::not_finite;
    return solution;
  }
  symmetrise(name, matrix, rounding);
  // Even, so that roots keep their bits.
  const int exponent = largest > 0.0 ? std::ilogb(largest) / 2 * 2 : 0;
  for (double& each : matrix.elements) each = std::ldexp(each, -exponent);
  largest = std::ldexp(largest, -exponent);
  const double least_pivot = static_cast<double>(n) * rounding * largest;
  std::optional<Factors> factors = Factors::cholesky(matrix, least_pivot);
  if (!factors) {
    solution.indefinite = is_indefinite(matrix, least_pivot);
    factors = Factors::elimination(matrix, least_pivot);
  }
  if (!factors) {
    solution.status = LinearStatus::singular;
    return solution;
  }
  const auto solve = [&](const Vector& u) { return factors->solve(u); };
  const double most = std::max(largest,
                               power_iteration([&](const Vector&u) { return times(matrix, u); }, matrix.n)),
               least = 1.0 / power_iteration(solve, matrix.n);
  solution.largest_eigenvalue = std::ldexp(most, exponent);
  solution.smallest_eigenvalue = std::ldexp(least, exponent);
  if (aside && aside->asks())
    aside->found(std::ldexp(length_of(solve(to_double(aside->right()))), aside->exponent() - exponent));
  if (right.size() == 0.0) {
    solution.status = LinearStatus::converged;
    solution.backward_error = solution.error = 0.0;
    return solution;
  }
  const Vector x = solve(to_double(right.vector()));
  const bool fits = right.restore(to_tensors(x, b), exponent, solution.x);
  const double size = norm(b);
  solution.residuals = {norm(plus(b, -1.0, apply(solution.x))) / size};
  solution.products = apply.products();
  const double stretched = most * length_of(x) / right.size();
  solution.backward_error = solution.residuals[0] / (stretched + 1.0);
  solution.error = solution.residuals[0] * most / (least * stretched);
  // What rounding leaves of a factorisation, of a product and of x itself.
  const double tolerance = std::max(options.tolerance, 4.0 * static_cast<double>(n) * rounding);
  if (!fits)
    solution.status = LinearStatus::out_of_range;
  else if (solution.backward_error <= tolerance)
    solution.status = LinearStatus::converged;
  return solution;
}

}  // namespace hypertape::bilevel
