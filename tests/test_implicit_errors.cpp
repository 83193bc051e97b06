// What implicit methods, truncation and the linear solvers refuse, and what they say.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/linear.h>
#include "implicit_problems.h"
#include "ladder.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using namespace implicit_problems;
using ht::NamedTensors;
using ht::Tensor;
using ht::TensorList;
using ht::bilevel::Availability;
using ht::bilevel::Estimator;
using ht::bilevel::ImplicitCg;
using ht::bilevel::ImplicitDense;
using ht::bilevel::ImplicitNeumann;
using ht::bilevel::LinearMap;
using ht::bilevel::LinearStatus;
using ht::bilevel::Truncated;
using ht::bilevel::Unrolled;

LinearMap by_matrix(const Tensor& a) {
  return [a](const TensorList& x) { return TensorList{ht::matmul(a, x[0])}; };
}

const Tensor definite = Tensor::from({4.0, 1.0, 0.5, 1.0, 3.0, -0.2, 0.5, -0.2, 2.0}, {3, 3});

}  // namespace

TEST_CASE("implicit: settings out of range are refused when the method is made") {
  const auto made = [](const auto& method) { return thrown([&] { static_cast<void>(Estimator(method)); }); };
  expect_text(made(ImplicitCg{.tolerance = -1.0}), "[implicit-cg] tolerance is -1");
  expect_text(made(ImplicitCg{.iterations = 0}), "[implicit-cg] iterations is 0");
  expect_text(made(ImplicitCg{.damping = -0.5}), "[implicit-cg] damping is -0.5");
  expect_text(made(ImplicitCg{.inner_tolerance = std::numeric_limits<double>::quiet_NaN()}),
              "[implicit-cg] inner_tolerance");
  expect_text(made(ImplicitNeumann{}), "[implicit-neumann] rate is 0; it must be positive");
  expect_text(made(ImplicitNeumann{.terms = -1, .rate = 0.1}), "[implicit-neumann] terms is -1");
  expect_text(made(ImplicitNeumann{.rate = 0.1, .momentum = 1.0}), "[implicit-neumann] momentum 1");
  expect_text(made(ht::bilevel::T1T2{.rate = 0.0}), "[t1-t2] rate is 0");
  expect_text(made(ht::bilevel::Darts{.scale = 0.0}), "[darts] scale is 0");
  expect_text(made(Truncated{0}), "[truncated] steps is 0");
  expect_text(made(ImplicitDense{.most_parameters = -1}), "[implicit-dense] most_parameters is -1");
}

TEST_CASE("implicit: a problem that lacks what the method needs is named") {
  Case problem = quadratic().problem;
  problem.problem.full_loss = {};
  expect_text(thrown([&] { problem.by(ImplicitCg{}); }), "[implicit-cg] the problem has no full_loss");
  problem = quadratic().problem;
  problem.problem.full_loss = [](const NamedTensors&, const NamedTensors& h) { return ht::sum(h["shift"]); };
  expect_text(thrown([&] { problem.by(ImplicitCg{}); }), "does not depend on the parameters");
  problem = quadratic().problem;
  problem.problem.init = [](const NamedTensors&) {
    return NamedTensors{{"first", Tensor::zeros({3})}, {"second", Tensor::zeros({2}, ht::Dtype::float32)}};
  };
  expect_text(thrown([&] { problem.by(ImplicitCg{}); }), "parameter 'second' is float32");
  problem = logistic().problem;
  expect_text(thrown([&] { problem.by(Unrolled{}); }), "no loss");
  problem.problem.solver = [](const NamedTensors&, const NamedTensors&) {
    return NamedTensors{{"w", Tensor::zeros({3})}};
  };
  expect_text(thrown([&] { problem.by(ImplicitCg{}); }), "solver returned parameter 'w' in another form");
  expect_text(thrown([&] { quadratic().problem.by(ImplicitDense{.most_parameters = 4}); }),
              "5 unknowns would take a matrix of 5 x 5");
}

TEST_CASE("implicit: variables behind the problem's back are refused, and DARTS has no tangents") {
  const Known known = quadratic();
  const auto behind = [&](const Tensor& extra) {
    Case problem = known.problem;
    problem.problem.full_loss = [=](const NamedTensors& w, const NamedTensors& h) {
      return known.problem.problem.full_loss(w, h) * extra;
    };
    return ht::bilevel::solve(problem.problem, problem.h, ImplicitCg{}).parameters["first"];
  };
  expect_text(
      thrown([&] { ht::grad([&](const Tensor& x) { return ht::sum(behind(x)); }, Tensor::scalar(1.0)); }),
      "was not passed in");
  const auto by_darts = [&](const TensorList& h) {
    const NamedTensors named = known.problem.h.with(h);
    return ht::sum(
        ht::bilevel::solve(known.problem.problem, named, ht::bilevel::Darts{}).parameters["first"]);
  };
  expect_text(thrown([&] { ht::jvp(by_darts, known.problem.h.tensors(), known.problem.h.tensors()); }),
              "[darts] has a pullback only");
}

TEST_CASE("truncated: all steps are unrolled, fewer say what they left out") {
  const Case problem = bilevel_problems::Quadratic(6, bilevel_problems::Rule::momentum).problem();
  const auto whole = problem.by(Unrolled{}), all = problem.by(Truncated{6}), more = problem.by(Truncated{99});
  CHECK(bilevel_problems::relative_error(all.gradients, whole.gradients) < 1e-14);
  CHECK(bilevel_problems::relative_error(more.gradients, whole.gradients) < 1e-14);
  CHECK(more.status == ht::bilevel::ResultStatus::exact);
  CHECK(more.availability == whole.availability);
  const auto part = problem.by(Truncated{2});
  CHECK(part.status == ht::bilevel::ResultStatus::approximate);
  // The quadratic's hyperparameters: h, rates, momenta, start. Its h also enters the outer loss.
  const std::vector<Availability> expected = {Availability::partly_zero, Availability::partly_zero,
                                              Availability::partly_zero, Availability::zero_by_construction};
  CHECK(part.availability == expected);
  CHECK(!part.gradients["start"].defined());
  const std::vector<double> rates = ladder::elements(part.gradients["rates"]);
  for (std::size_t k = 0; k < rates.size(); ++k) CHECK((rates[k] != 0.0) == (k >= 8));
  // The same steps as a run of their own from the state reached: optimizer state is carried along.
  const std::vector<double> whole_rates = ladder::elements(whole.gradients["rates"]);
  for (std::size_t k = 8; k < 12; ++k) CHECK(rates[k] == doctest::Approx(whole_rates[k]).epsilon(1e-13));
  CHECK(part.cost.hessian_vector_products == 2);
  CHECK(ladder::same_bits(part.parameters.tensors(), whole.parameters.tensors()));
}

TEST_CASE("linear: CG, normal CG and the dense solve agree, in as many steps as there are unknowns") {
  const Tensor b = Tensor::from({1.0, -2.0, 0.5});
  const auto a = by_matrix(definite);
  const auto cg = ht::bilevel::conjugate_gradient(a, {b});
  CHECK(cg.status == LinearStatus::converged);
  CHECK(cg.iterations <= 4);
  CHECK(cg.products == cg.iterations + 1);  // the last residual is computed, not carried along
  CHECK(cg.residuals.front() == 1.0);
  CHECK(cg.residuals.size() == static_cast<std::size_t>(cg.iterations) + 1);
  const auto dense = ht::bilevel::dense_solve(a, {b});
  CHECK(dense.status == LinearStatus::converged);
  CHECK(ladder::difference(cg.x, dense.x) < 1e-13);
  CHECK(ladder::difference({ht::matmul(definite, dense.x[0])}, {b}) < 1e-14);
  CHECK(ladder::difference(ht::bilevel::normal_conjugate_gradient(a, {b}).x, dense.x) < 1e-12);
  const auto damped = ht::bilevel::conjugate_gradient(a, {b}, {.damping = 2.0});
  const Tensor shifted = definite + Tensor::from({2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0}, {3, 3});
  CHECK(ladder::difference(damped.x, ht::bilevel::dense_solve(by_matrix(shifted), {b}).x) < 1e-13);
  CHECK(ladder::difference(ht::bilevel::neumann_series(a, {b}, {.rate = 0.3, .terms = 300}).x, dense.x) <
        1e-12);
}

TEST_CASE("linear: zero, infinite, singular and indefinite systems") {
  const auto a = by_matrix(definite);
  const auto zero = ht::bilevel::conjugate_gradient(a, {Tensor::zeros({3})});
  CHECK(zero.status == LinearStatus::converged);
  CHECK(zero.products == 0);
  CHECK(ladder::norm(zero.x) == 0.0);
  const Tensor infinite = Tensor::from({1.0, std::numeric_limits<double>::infinity(), 0.0});
  CHECK(ht::bilevel::conjugate_gradient(a, {infinite}).status == LinearStatus::not_finite);
  const auto to_nan = [](const TensorList& x) { return TensorList{x[0] * std::nan("")}; };
  const TensorList b = {Tensor::from({1.0, 2.0, 3.0})};
  CHECK(ht::bilevel::conjugate_gradient(to_nan, b).status == LinearStatus::not_finite);
  CHECK(ht::bilevel::normal_conjugate_gradient(to_nan, b).status == LinearStatus::not_finite);
  CHECK(ht::bilevel::neumann_series(to_nan, b, {.rate = 0.1}).status == LinearStatus::not_finite);
  CHECK(ht::bilevel::dense_solve(to_nan, b).status == LinearStatus::not_finite);
  const auto nothing = [](const TensorList& x) { return TensorList(x.size()); };
  CHECK(ht::bilevel::conjugate_gradient(nothing, b).status == LinearStatus::singular);
  CHECK(ht::bilevel::normal_conjugate_gradient(nothing, b).status == LinearStatus::singular);
  CHECK(ht::bilevel::dense_solve(nothing, b).status == LinearStatus::singular);
  const auto negative = [](const TensorList& x) { return TensorList{ht::negate(x[0])}; };
  CHECK(ht::bilevel::conjugate_gradient(negative, b).status == LinearStatus::negative_curvature);
  const auto indefinite = ht::bilevel::dense_solve(negative, b);
  CHECK(indefinite.status == LinearStatus::converged);
  CHECK(indefinite.indefinite);
  CHECK(ladder::difference(indefinite.x, {ht::negate(b[0])}) == 0.0);
  CHECK(ht::bilevel::neumann_series(a, b, {.rate = 1.0, .terms = 9}).status == LinearStatus::diverging);
}

TEST_CASE("linear: residuals are those of x, not of a recursion that drifted") {
  // Condition 1e10.
  const Tensor diagonal = Tensor::from({1.0, 1e-3, 1e-5, 1e-7, 1e-10});
  const auto scales = [&](const TensorList& x) { return TensorList{diagonal * x[0]}; };
  const auto wide = [](const Tensor& d, const TensorList& x, const TensorList& b) {
    const std::vector<double> a = ladder::elements(d), y = ladder::elements(x[0]), z = ladder::elements(b[0]);
    double error = 0.0, size = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      error += (z[i] - a[i] * y[i]) * (z[i] - a[i] * y[i]);
      size += z[i] * z[i];
    }
    return std::sqrt(error / size);
  };
  const TensorList b = {ladder::sample({5}, 0.5, 1.0, 3)};
  for (const auto& solution : {ht::bilevel::conjugate_gradient(scales, b),
                               ht::bilevel::conjugate_gradient(scales, b, {.tolerance = 1e-9})}) {
    const double residual = wide(diagonal, solution.x, b);
    CAPTURE(residual);
    if (solution.status == LinearStatus::converged) CHECK(residual < 1e-9);
    CHECK(residual < 2.0 * solution.residuals.back() + 1e-15);
  }
  const TensorList narrow = {ladder::converted(b[0], ht::Dtype::float32)};
  const Tensor moderate = ladder::converted(Tensor::from({1.0, 0.7, 0.3, 0.1, 0.05}), ht::Dtype::float32);
  const auto solution = ht::bilevel::conjugate_gradient(
      [&](const TensorList& x) { return TensorList{moderate * x[0]}; }, narrow);
  CHECK(solution.status == LinearStatus::converged);
  CHECK(wide(moderate, solution.x, narrow) < 4e-6);
}

TEST_CASE("linear: singular but semidefinite systems are called that, and nothing explodes") {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Tensor half = ladder::sample({3, 6}, -1.0, 1.0, seed);
    const Tensor a = ht::matmul(half, half, true, false);
    const TensorList b = {ladder::sample({6}, -1.0, 1.0, seed + 100)};
    CAPTURE(seed);
    CHECK(ht::bilevel::dense_solve(by_matrix(a), b).status == LinearStatus::singular);
    for (const auto& solution : {ht::bilevel::conjugate_gradient(by_matrix(a), b),
                                 ht::bilevel::normal_conjugate_gradient(by_matrix(a), b)}) {
      CHECK(solution.status != LinearStatus::converged);
      CHECK(solution.status != LinearStatus::negative_curvature);
      CHECK(!solution.indefinite);
      CHECK(ladder::norm(solution.x) < 1e4);
    }
    // A right-hand side within reach has a solution, and CG finds it.
    const TensorList reachable = {ht::matmul(a, b[0])};
    const auto found = ht::bilevel::conjugate_gradient(by_matrix(a), reachable);
    CHECK(found.status == LinearStatus::converged);
    CHECK(ladder::difference({ht::matmul(a, found.x[0])}, reachable) < 1e-10);
  }
}

TEST_CASE("linear: right-hand sides whose squares overflow or vanish") {
  const auto a = by_matrix(definite);
  const TensorList b = {Tensor::from({1.0, -2.0, 0.5})};
  const TensorList x = ht::bilevel::dense_solve(a, b).x;
  for (const double scale : {1e-300, 1e-165, 1e165, 1e300}) {
    CAPTURE(scale);
    const auto cg = ht::bilevel::conjugate_gradient(a, {b[0] * scale});
    const auto normal = ht::bilevel::normal_conjugate_gradient(a, {b[0] * scale});
    CHECK(cg.status == LinearStatus::converged);
    CHECK(ladder::difference({cg.x[0] / scale}, x) < 1e-12);
    CHECK(ladder::difference({normal.x[0] / scale}, x) < 1e-11);
  }
  const Tensor narrow = ladder::converted(definite, ht::Dtype::float32);
  for (const double scale : {1e-30, 1e-24, 1e20, 1e30}) {
    const TensorList tiny = {ladder::converted(b[0], ht::Dtype::float32) * scale};
    const auto cg = ht::bilevel::conjugate_gradient(by_matrix(narrow), tiny);
    CHECK(cg.status == LinearStatus::converged);
    CHECK(ladder::difference({ladder::converted(cg.x[0], ht::Dtype::float64) / scale}, x) < 1e-5);
  }
}

TEST_CASE("linear: a series' numbers whose squares overflow, vanish or lose their bits") {
  struct Range {
    ht::Dtype dtype;
    int small, denormal, large;  ///< exponents of 2: squares 0, of a few bits, infinite
    double rounding;
  };
  for (const Range& range :
       {Range{ht::Dtype::float32, -100, -72, 70, 1e-6}, Range{ht::Dtype::float64, -600, -535, 520, 1e-14}}) {
    CAPTURE(range.dtype);
    const auto two = [&](int exponent) { return std::ldexp(1.0, exponent); };
    const auto vector = [&](std::initializer_list<double> values) {
      return TensorList{ladder::converted(Tensor::from(values), range.dtype)};
    };
    // Powers of two change no bits of a product, nor then of a ratio.
    const auto a = by_matrix(ladder::converted(definite, range.dtype));
    for (const double momentum : {0.0, 0.5}) {
      const ht::bilevel::NeumannOptions options{.rate = 0.2, .terms = 6, .momentum = momentum};
      const std::vector<double> expected =
          ht::bilevel::neumann_series(a, vector({1.0, -2.0, 0.5}), options).residuals;
      for (const int exponent : {range.small, range.denormal, range.large}) {
        CAPTURE(exponent);
        const double s = two(exponent);
        const auto series = ht::bilevel::neumann_series(a, vector({s, -2.0 * s, 0.5 * s}), options);
        REQUIRE(series.residuals.size() == expected.size());
        for (std::size_t i = 0; i < expected.size(); ++i)
          CHECK(std::abs(series.residuals[i] - expected[i]) <= range.rounding * expected[i]);
      }
    }

    // What x'Ax counts as negative depends on |x| and |A x|. The first term is x = b.
    const auto indefinite = [&](double factor, bool exchanged, const TensorList& b) {
      const Tensor matrix = exchanged ? Tensor::from({0.0, factor, factor, 0.0}, {2, 2})
                                      : Tensor::from({factor, 0.0, 0.0, factor}, {2, 2});
      return ht::bilevel::neumann_series(by_matrix(ladder::converted(matrix, range.dtype)), b,
                                         {.rate = 1.0, .terms = 1})
          .indefinite;
    };
    const bool wide = range.dtype == ht::Dtype::float64;
    // Zero but for rounding: -2 s^2 e beside |x| |A x| = s^2.
    const double s = two(range.large), e = two(wide ? -60 : -40);
    CHECK_FALSE(indefinite(1.0, true, vector({1.0, -e})));
    CHECK_FALSE(indefinite(1.0, true, vector({s, -s * e})));
    CHECK_FALSE(indefinite(two(range.small), true, vector({1.0, -e})));
    // Negative, of an x whose squares vanish.
    CHECK(indefinite(-1.0, false, vector({1.0, -e})));
    CHECK(indefinite(-two(wide ? 400 : 60), false, vector({two(wide ? -600 : -80), 0.0})));
    // And where x'Ax itself vanishes or overflows.
    CHECK(indefinite(-1.0, false, vector({two(range.small), 0.0})));
    CHECK(indefinite(-1.0, false, vector({s, 0.0})));
    CHECK_FALSE(indefinite(1.0, false, vector({two(range.small), 0.0})));
    CHECK_FALSE(indefinite(1.0, false, vector({s, 0.0})));
    CHECK_FALSE(indefinite(-1.0, false, vector({0.0, 0.0})));
    CHECK_FALSE(indefinite(0.0, false, vector({s, 0.0})));
  }
}

TEST_CASE("linear: momentum that overshoots at first is no divergence") {
  const auto one = [](const TensorList& x) { return TensorList{x[0] * 1.0}; };
  const TensorList b = {Tensor::from({1.0})};
  for (std::int64_t terms = 1; terms < 80; ++terms) {
    const auto series =
        ht::bilevel::neumann_series(one, b, {.rate = 0.9 * 2.0 * 1.9, .terms = terms, .momentum = 0.9});
    CAPTURE(terms);
    CHECK(series.status != LinearStatus::diverging);
  }
  const auto unstable =
      ht::bilevel::neumann_series(one, b, {.rate = 1.1 * 2.0 * 1.9, .terms = 40, .momentum = 0.9});
  CHECK(unstable.status == LinearStatus::diverging);
  // A slowly growing part, hidden behind one that still shrinks.
  const Tensor diagonal = Tensor::from({1.0, -0.05});
  const auto hidden =
      ht::bilevel::neumann_series([&](const TensorList& x) { return TensorList{diagonal * x[0]}; },
                                  {Tensor::from({1.0, 1e-3})}, {.rate = 1.0, .terms = 100});
  CHECK(hidden.status == LinearStatus::diverging);
}

TEST_CASE("linear: bad arguments and silent derivatives are refused") {
  const auto a = by_matrix(definite);
  const TensorList b = {Tensor::from({1.0, 2.0, 3.0})};
  expect_text(thrown([&] { ht::bilevel::conjugate_gradient({}, b); }), "no operator");
  expect_text(thrown([&] { ht::bilevel::conjugate_gradient(a, {}); }), "no tensors");
  expect_text(thrown([&] { ht::bilevel::conjugate_gradient(a, {Tensor()}); }), "absent");
  expect_text(thrown([&] { ht::bilevel::conjugate_gradient(a, {Tensor::zeros({3}, ht::Dtype::int64)}); }),
              "int64");
  const auto shrinks = [](const TensorList& x) { return TensorList{ht::slice(x[0], 0, 0, 2)}; };
  expect_text(thrown([&] { ht::bilevel::conjugate_gradient(shrinks, b); }), "turned tensor 0");
  expect_text(thrown([&] { ht::bilevel::neumann_series(a, b, {}); }), "rate is 0");
  expect_text(thrown([&] { ht::bilevel::hessian_operator({}, b); }), "no loss");
  expect_text(thrown([&] {
                ht::bilevel::dense_solve(
                    by_matrix(Tensor::from({2.0, 1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 1.0}, {3, 3})), b);
              }),
              "not symmetric: its elements");
  expect_text(thrown([&] { ht::bilevel::dense_solve(shrinks, b); }), "turned tensor 0");
  const auto through = [&](const Tensor& x) { return ht::sum(ht::bilevel::conjugate_gradient(a, {x}).x[0]); };
  expect_text(thrown([&] { ht::grad(through, b[0]); }), "[conjugate_gradient] is not differentiable");
  const auto operated = [&](const Tensor& x) {
    return ht::sum(
        ht::bilevel::dense_solve([&](const TensorList& v) { return TensorList{x * v[0]}; }, b).x[0]);
  };
  expect_text(thrown([&] { ht::grad(operated, b[0]); }), "[dense_solve] is not differentiable");
  const auto series = [&](const Tensor& x) {
    return ht::sum(ht::bilevel::neumann_series(a, {x}, {.rate = 0.1, .terms = 3}).x[0]);
  };
  CHECK(ht::grad(series, b[0]).defined());
}

TEST_CASE("linear: the Hessian operator is the Hessian") {
  const auto loss = [](const TensorList& w) {
    return ht::sum(ht::exp(w[0])) * ht::sum(ht::square(w[1])) + ht::sum(ht::tanh(w[1]));
  };
  const TensorList w = {ladder::sample({2}, -1.0, 1.0, 1), ladder::sample({3}, -1.0, 1.0, 2)};
  const LinearMap hessian = ht::bilevel::hessian_operator(loss, w);
  for (const std::uint64_t seed : {3u, 5u}) {
    const TensorList v = {ladder::sample({2}, -1.0, 1.0, seed), ladder::sample({3}, -1.0, 1.0, seed + 1)};
    CHECK(ladder::difference(hessian(v), ht::hvp(loss, w, v)) < 1e-13);
  }
}
