// Linear solvers against spectra that are known: statuses, condition numbers, errors and scales.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/linear.h>
#include <hypertape/core/random.h>
#include "dense.h"
#include "ladder.h"

namespace {

namespace ht = hypertape;
namespace bl = ht::bilevel;
using bl::LinearSolution;
using bl::LinearStatus;
using dense::Matrix;
using dense::Real;
using dense::Vector;
using ht::Dtype;
using ht::Tensor;
using ht::TensorList;

// x - 2 v v'x / v'v
Vector reflected(Vector x, double phase) {
  Vector v;
  for (std::size_t i = 0; i < x.size(); ++i)
    v.push_back(std::sin(phase + 1.7L * static_cast<Real>(i)) + 0.1L);
  return dense::sum(x, v, -2.0L * dense::dot(v, x) / dense::dot(v, v));
}
Vector turned(Vector x) { return reflected(reflected(std::move(x), 0.3), 0.9); }
Vector turned_back(Vector x) { return reflected(reflected(std::move(x), 0.9), 0.3); }

// A symmetric matrix with eigenvalues d, rounded to a dtype; what the dtype holds is `matrix`.
struct System {
  Vector d;
  Tensor a;
  Matrix matrix;

  System(Vector spectrum, Dtype dtype, Real scale = 1.0L)
      : d(std::move(spectrum)), matrix(d.size(), d.size()) {
    const std::size_t n = d.size();
    std::vector<double> rounded(n * n);
    for (std::size_t j = 0; j < n; ++j) {
      Vector column(n, 0.0L);
      column[j] = 1.0L;
      column = turned(std::move(column));
      for (std::size_t i = 0; i < n; ++i) column[i] *= d[i];
      column = turned_back(std::move(column));
      for (std::size_t i = 0; i <= j; ++i)
        rounded[i * n + j] = rounded[j * n + i] = static_cast<double>(scale * column[i]);
    }
    const auto size = static_cast<std::int64_t>(n);
    a = ladder::converted(Tensor::from(rounded, {size, size}), dtype);
    matrix = dense::matrix(ladder::elements(a), n, n);
  }
  bl::LinearMap map() const {
    return [a = a](const TensorList& x) { return TensorList{ht::matmul(a, x[0])}; };
  }
};

Tensor tensor(const Vector& x, Dtype dtype = Dtype::float64) {
  return ladder::converted(Tensor::from(dense::narrowed(x), {static_cast<std::int64_t>(x.size())}), dtype);
}
Vector numbers(const TensorList& x) { return dense::widened(ladder::elements(x[0])); }
double size_of(const Vector& x) { return static_cast<double>(std::sqrt(dense::dot(x, x))); }

// 1 ... 1 / condition
Vector spread(std::size_t n, Real condition) {
  Vector d;
  for (std::size_t i = 0; i < n; ++i)
    d.push_back(std::pow(condition, -static_cast<Real>(i) / static_cast<Real>(n - 1)));
  return d;
}

}  // namespace

TEST_CASE("linear systems: ill-conditioned ones are solved, with their condition and error told") {
  for (const Real condition : {1e2L, 1e5L, 1e7L, 1e10L}) {
    const System system(spread(5, condition), Dtype::float64);
    const double allowed = 2e-16 * static_cast<double>(condition);
    CAPTURE(allowed);
    for (const bool smooth : {false, true}) {
      // x known where b = A x; where b is given, x comes from long double. Of A as it was rounded.
      Vector x, b{1.0L, -0.4L, 0.3L, 0.8L, -0.6L};
      if (smooth) {
        x = b;
        b = numbers({tensor(dense::times(system.matrix, x))});
      }
      x = dense::solve(system.matrix, b);
      const auto check = [&](const char* name, const LinearSolution& solution, double least_seen) {
        CAPTURE(name);
        CAPTURE(smooth);
        const double error = size_of(dense::sum(numbers(solution.x), x, -1.0L)) / size_of(x);
        CHECK(solution.status == LinearStatus::converged);
        CHECK_FALSE(solution.indefinite);
        CHECK(error < 10.0 * allowed + 1e-12);
        CHECK(solution.backward_error <= 1e-12);
        CHECK(solution.condition() < 1.03 * static_cast<double>(condition));
        CHECK(solution.condition() > least_seen * static_cast<double>(condition));
        CHECK(solution.largest_eigenvalue == doctest::Approx(1.0).epsilon(0.02));
        // An estimate that may be too large, since what is left of b need not lie along the smallest.
        CHECK(solution.error > 0.3 * error);
        CHECK(solution.error < 1e-12 * static_cast<double>(condition));
      };
      check("dense", bl::dense_solve(system.map(), {tensor(b)}), 0.97);
      check("conjugate gradients", bl::conjugate_gradient(system.map(), {tensor(b)}), 0.97);
      if (condition < 1e8L)
        check("normal equations", bl::normal_conjugate_gradient(system.map(), {tensor(b)}), 0.97);
    }
  }
}

TEST_CASE("linear systems: what b has no part of is seen by a factorisation alone") {
  const Tensor diagonal = Tensor::from({1.0, 0.5, 1e-6, -0.25});
  const auto map = [&](const TensorList& x) { return TensorList{diagonal * x[0]}; };
  const TensorList b = {Tensor::from({1.0, 1.0, 0.0, 0.0})};
  for (const LinearSolution& solution :
       {bl::conjugate_gradient(map, b), bl::normal_conjugate_gradient(map, b)}) {
    CHECK(solution.status == LinearStatus::converged);
    CHECK_FALSE(solution.indefinite);
    CHECK(solution.condition() == doctest::Approx(2.0).epsilon(0.02));
  }
  const LinearSolution dense = bl::dense_solve(map, b);
  CHECK(dense.indefinite);
  CHECK(dense.condition() == doctest::Approx(1e6).epsilon(0.02));
  // With damping, of the damped matrix. A series tells by |A x| / |x|.
  const TensorList all = {Tensor::from({1.0, 1.0, 1.0, 0.0})};
  CHECK(bl::conjugate_gradient(map, all, {.damping = 0.25}).condition() ==
        doctest::Approx(5.0).epsilon(0.02));
  const LinearSolution series = bl::neumann_series(map, all, {.rate = 1.0, .terms = 4000});
  CHECK(series.largest_eigenvalue > 0.6);
  CHECK(series.largest_eigenvalue <= 1.0);
  CHECK(series.smallest_eigenvalue >= 1e-6);
  CHECK(series.smallest_eigenvalue < 1e-3);
  const LinearSolution nothing = bl::conjugate_gradient(map, {Tensor::zeros({4})});
  CHECK(std::isnan(nothing.condition()));
}

TEST_CASE("linear systems: random spectra, signs and scales get the status that they deserve") {
  for (std::uint64_t seed = 0; seed < 240; ++seed) {
    CAPTURE(seed);
    const std::vector<double> u =
        ladder::elements(ht::random({40}, ht::Distribution::uniform, {.seed = seed}));
    const auto n = static_cast<std::size_t>(1 + static_cast<int>(7.0 * u[0]));
    const Dtype dtype = u[1] < 0.25 ? Dtype::float32 : Dtype::float64;
    const bool narrow = dtype == Dtype::float32;
    const double rounding = narrow ? 1.2e-7 : 2.2e-16, range = narrow ? 12.0 : 90.0;
    const int kind = static_cast<int>(5.0 * u[2]);
    Vector d(n);
    for (std::size_t i = 0; i < n; ++i) d[i] = std::pow(10.0L, -(narrow ? 4.0L : 10.0L) * u[3] * u[10 + i]);
    if (kind == 1) d[n - 1] *= -1.0L;
    if (kind == 2 && n > 1) d[n - 1] = 0.0L;
    if (kind == 3)
      for (std::size_t i = 0; i < n; i += 2) d[i] *= -1.0L;
    const Real scale = u[4] < 0.6 ? 1.0L : std::pow(10.0L, range * (2.0L * u[5] - 1.0L)),
               b_scale = u[6] < 0.6 ? 1.0L : std::pow(10.0L, range * (2.0L * u[7] - 1.0L));
    const System system(d, dtype, scale);
    Vector b(n);
    for (std::size_t i = 0; i < n; ++i) b[i] = b_scale * (2.0L * u[20 + i] - 1.0L);
    // In the null space: all that the products show is rounding.
    if (kind == 2 && n > 1 && u[8] < 0.5) {
      Vector last(n, 0.0L);
      last[n - 1] = b_scale;
      b = turned_back(last);
    }
    const TensorList right = {tensor(b, dtype)};
    b = numbers(right);
    double largest = 0.0, smallest = 1.0, lowest = 1.0;
    for (const Real each : d) {
      const double value = static_cast<double>(each);
      largest = std::max(largest, std::abs(value));
      smallest = std::min(smallest, std::abs(value));
      lowest = std::min(lowest, value);
    }
    const double noise = 8.0 * static_cast<double>(n) * rounding * largest;
    const double factor = static_cast<double>(scale);
    const auto check = [&](const char* name, const LinearSolution& solution) {
      CAPTURE(name);
      CAPTURE(solution.status);
      const Vector x = numbers(solution.x);
      const double left = size_of(dense::sum(b, dense::times(system.matrix, x), -1.0L)) / size_of(b),
                   stretched = factor * largest * size_of(x) / size_of(b);
      if (solution.status == LinearStatus::converged)
        CHECK(left <= (narrow ? 8e-6 : 4e-12) + 2.0 * noise / largest * stretched);
      if (solution.indefinite) CHECK(lowest < -0.1 * noise);
      CHECK(solution.status != LinearStatus::not_finite);
      return solution.status;
    };
    const LinearStatus definite = check("conjugate gradients", bl::conjugate_gradient(system.map(), right)),
                       normal = check("normal equations", bl::normal_conjugate_gradient(system.map(), right));
    const LinearSolution factorised = bl::dense_solve(system.map(), right);
    check("dense", factorised);
    const bool fits = size_of(b) / factor / smallest < (narrow ? 1e37 : 1e300) &&
                      size_of(b) / factor / largest > (narrow ? 1e-36 : 1e-300);
    if (smallest > 100.0 * noise && fits) {
      CHECK(factorised.status == LinearStatus::converged);
      CHECK(factorised.indefinite == (lowest < 0.0));
    }
    if (smallest > 0.01 * largest && fits) {
      if (lowest > 0.0) CHECK(definite == LinearStatus::converged);
      CHECK(normal == LinearStatus::converged);
    }
  }
}

TEST_CASE("linear systems: b in the null space of a semidefinite matrix") {
  // Eigenvalues 1 and 0 up to rounding, which decides the sign of what is left.
  const Tensor a = Tensor::from({0.1, 0.3, 0.3, 0.9}, {2, 2}), null = Tensor::from({3.0, -1.0});
  for (const Dtype dtype : {Dtype::float64, Dtype::float32})
    for (int i = 1; i < 40; ++i) {
      CAPTURE(i);
      const Tensor matrix = ladder::converted(a, dtype);
      const auto map = [&](const TensorList& x) { return TensorList{ht::matmul(matrix, x[0])}; };
      const TensorList b = {ladder::converted(null * ((i % 2 == 0 ? 0.0625 : 0.07) * i), dtype)};
      for (const LinearSolution& solution :
           {bl::conjugate_gradient(map, b), bl::normal_conjugate_gradient(map, b), bl::dense_solve(map, b)}) {
        CHECK(solution.status != LinearStatus::converged);
        CHECK(solution.status != LinearStatus::negative_curvature);
        CHECK_FALSE(solution.indefinite);
      }
      CHECK_FALSE(bl::neumann_series(map, b, {.rate = 0.5, .terms = 5}).indefinite);
    }
}

TEST_CASE(
    "linear systems: the scale of the matrix does not matter, and a solution out of range is called that") {
  const Vector spectrum{2.0L, 1.0L, -0.5L}, b{1.0L, -2.0L, 0.5L},
      x = dense::solve(System(spectrum, Dtype::float64).matrix, b);
  const auto expect = [&](Dtype dtype, int exponent, double tolerance) {
    CAPTURE(exponent);
    const System system(spectrum, dtype, std::ldexp(1.0L, exponent));
    for (const LinearSolution& solution : {bl::normal_conjugate_gradient(system.map(), {tensor(b, dtype)}),
                                           bl::dense_solve(system.map(), {tensor(b, dtype)})}) {
      CHECK(solution.status == LinearStatus::converged);
      Vector found = numbers(solution.x);
      for (Real& each : found) each = std::ldexp(each, exponent);
      CHECK(size_of(dense::sum(found, x, -1.0L)) < tolerance * size_of(x));
      CHECK(solution.largest_eigenvalue == doctest::Approx(std::ldexp(2.0, exponent)).epsilon(0.02));
      CHECK(solution.condition() == doctest::Approx(4.0).epsilon(0.03));
    }
    const System squared({2.0L, 1.0L, 0.5L}, dtype, std::ldexp(1.0L, exponent));
    CHECK(bl::conjugate_gradient(squared.map(), {tensor(b, dtype)}).status == LinearStatus::converged);
  };
  for (const int exponent : {-1000, -500, -300, 0, 300, 500, 1000}) expect(Dtype::float64, exponent, 1e-11);
  for (const int exponent : {-120, -40, 0, 40, 120}) expect(Dtype::float32, exponent, 2e-5);
  // x = b / A: 1e-60 and 1e60 are no numbers of float32.
  for (const double scale : {1e30, 1e-30}) {
    const auto map = [&](const TensorList& v) { return TensorList{v[0] * scale}; };
    const TensorList right = {Tensor::full({3}, 1.0 / scale, Dtype::float32)};
    CHECK(bl::conjugate_gradient(map, right).status == LinearStatus::out_of_range);
    CHECK(bl::normal_conjugate_gradient(map, right).status == LinearStatus::out_of_range);
    CHECK(bl::dense_solve(map, right).status == LinearStatus::out_of_range);
  }
}

TEST_CASE("linear systems: tolerances of the dense solve") {
  const System system(spread(3, 10.0L), Dtype::float64);
  // An operator that is symmetric to 1e-9 only: the factorisation is of another matrix.
  const Tensor skew = Tensor::from({0.0, 1e-9, 0.0, -1e-9, 0.0, 0.0, 0.0, 0.0, 0.0}, {3, 3});
  const auto map = [&](const TensorList& x) { return TensorList{ht::matmul(system.a + skew, x[0])}; };
  const TensorList b = {Tensor::from({1.0, 2.0, 3.0})};
  const LinearSolution strict = bl::dense_solve(map, b);
  CHECK(strict.status == LinearStatus::not_converged);
  CHECK(strict.backward_error > 1e-11);
  CHECK(strict.backward_error < 2e-9);
  CHECK(bl::dense_solve(map, b, {.tolerance = 1e-8}).status == LinearStatus::converged);
}
