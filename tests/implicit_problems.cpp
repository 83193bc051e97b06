#include "implicit_problems.h"

#include <algorithm>
#include <cmath>

#include <hypertape/autodiff/ops.h>
#include <hypertape/optim/step.h>
#include "dense.h"
#include "ladder.h"

namespace implicit_problems {

namespace ht = hypertape;
using dense::Matrix;
using dense::Real;
using dense::Vector;
using ht::NamedTensors;
using ht::Tensor;
using ht::bilevel::StepContext;

namespace {

Vector numbers(const Tensor& x) { return dense::widened(ladder::elements(x)); }
Matrix numbers(const Tensor& x, std::size_t rows, std::size_t columns) {
  return dense::matrix(ladder::elements(x), rows, columns);
}
double narrow(Real x) { return static_cast<double>(x); }

// Full-batch training on the inner loss.
void train_on(Case& problem, std::function<Tensor(const NamedTensors&, const NamedTensors&)> inner,
              double rate, std::int64_t steps) {
  problem.problem.full_loss = inner;
  problem.problem.loss = [inner](const NamedTensors& w, const NamedTensors& h, const StepContext&) {
    return inner(w, h);
  };
  problem.problem.step = ht::optim::sgd({.rate = rate});
  problem.problem.steps = steps;
}

struct Regression {
  std::size_t m, n, v;
  Tensor x, y, x_outer, y_outer;
  Matrix X, X_outer;
  Vector Y, Y_outer;

  Regression(std::size_t rows, std::size_t columns, std::size_t outer_rows, std::uint64_t seed)
      : m(rows), n(columns), v(outer_rows) {
    const auto size = [](std::size_t k) { return static_cast<std::int64_t>(k); };
    x = ladder::sample({size(m), size(n)}, -1.0, 1.0, seed);
    y = ladder::sample({size(m)}, -1.0, 1.0, seed + 1);
    x_outer = ladder::sample({size(v), size(n)}, -1.0, 1.0, seed + 2);
    y_outer = ladder::sample({size(v)}, -1.0, 1.0, seed + 3);
    X = numbers(x, m, n);
    X_outer = numbers(x_outer, v, n);
    Y = numbers(y);
    Y_outer = numbers(y_outer);
  }
  Tensor data_loss(const Tensor& w) const {
    return 0.5 / static_cast<double>(m) * ht::sum(ht::square(ht::matmul(x, w) - y));
  }
  Tensor outer_loss(const Tensor& w) const {
    return 0.5 / static_cast<double>(v) * ht::sum(ht::square(ht::matmul(x_outer, w) - y_outer));
  }
  // X'X/m + lambda I
  Matrix hessian(Real lambda) const {
    Matrix hessian = dense::gram(X, Vector(m, 1.0L / static_cast<Real>(m)));
    for (std::size_t i = 0; i < n; ++i) hessian(i, i) += lambda;
    return hessian;
  }
  // X'y/m
  Vector right() const {
    Vector r = dense::transposed_times(X, Y);
    for (Real& each : r) each /= static_cast<Real>(m);
    return r;
  }
  Vector outer_residual(const Vector& w) const {
    return dense::sum(dense::times(X_outer, w), Y_outer, -1.0L);
  }
  Real outer_value(const Vector& w) const {
    const Vector r = outer_residual(w);
    return 0.5L * dense::dot(r, r) / static_cast<Real>(v);
  }
  Vector outer_gradient(const Vector& w) const {
    Vector g = dense::transposed_times(X_outer, outer_residual(w));
    for (Real& each : g) each /= static_cast<Real>(v);
    return g;
  }
  // a' F_ww b
  Real outer_curvature(const Vector& a, const Vector& b) const {
    return dense::dot(dense::times(X_outer, a), dense::times(X_outer, b)) / static_cast<Real>(v);
  }
};

}  // namespace

Known quadratic(double scale, std::int64_t steps) {
  const Tensor root = ladder::sample({5, 5}, -1.0, 1.0, 11), b = ladder::sample({5}, -1.0, 1.0, 12),
               by_shift = ladder::sample({5, 3}, -1.0, 1.0, 13), c = ladder::sample({5}, -1.0, 1.0, 14),
               d = ladder::sample({3}, -1.0, 1.0, 15), shift = ladder::sample({3}, -1.0, 1.0, 16),
               log_diagonal = ladder::sample({5}, -1.0, 0.5, 17);
  const Tensor a = ht::matmul(root, root, true, false) * 0.3;
  Known known;
  known.problem.name = "quadratic bilevel";
  known.problem.h = {{"shift", shift}, {"log_diagonal", log_diagonal}};
  known.problem.problem.init = [](const NamedTensors&) {
    return NamedTensors{{"first", Tensor::zeros({3})}, {"second", Tensor::zeros({2})}};
  };
  const auto joined = [](const NamedTensors& w) { return ht::flatten(w.tensors(), w.shapes()); };
  train_on(
      known.problem,
      [=](const NamedTensors& w, const NamedTensors& h) {
        const Tensor x = joined(w);
        const Tensor curved = ht::dot(x, ht::matmul(a, x)) + ht::dot(ht::exp(h["log_diagonal"]), x * x);
        return scale * (0.5 * curved - ht::dot(x, b + ht::matmul(by_shift, h["shift"])));
      },
      0.4 / scale, steps);
  known.problem.outer = [=](const NamedTensors& w, const NamedTensors& h) {
    return 0.5 * ht::sum(ht::square(joined(w) - c)) + ht::dot(d, h["shift"]);
  };
  Matrix hessian = numbers(a, 5, 5);
  const Matrix B = numbers(by_shift, 5, 3);
  Vector diagonal = numbers(log_diagonal);
  for (std::size_t i = 0; i < 5; ++i) hessian(i, i) += diagonal[i] = std::exp(diagonal[i]);
  const Vector w = dense::solve(hessian, dense::sum(numbers(b), dense::times(B, numbers(shift))));
  const Vector off = dense::sum(w, numbers(c), -1.0L);
  const Vector adjoint = dense::solve(hessian, off);
  known.value = narrow(0.5L * dense::dot(off, off) + dense::dot(numbers(d), numbers(shift)));
  known.gradients = {dense::narrowed(dense::sum(dense::transposed_times(B, adjoint), numbers(d))), {}};
  for (std::size_t i = 0; i < 5; ++i) known.gradients[1].push_back(narrow(-diagonal[i] * w[i] * adjoint[i]));
  return known;
}

Known ridge(double lambda) {
  const Regression data(12, 4, 9, 21);
  Known known;
  known.problem.name = "ridge";
  known.problem.h = {{"lambda", Tensor::scalar(lambda)}};
  known.problem.problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::zeros({4})}}; };
  train_on(
      known.problem,
      [=](const NamedTensors& w, const NamedTensors& h) {
        return data.data_loss(w["w"]) + 0.5 * h["lambda"] * ht::sum(ht::square(w["w"]));
      },
      0.8, 400);
  known.problem.outer = [=](const NamedTensors& w, const NamedTensors&) { return data.outer_loss(w["w"]); };
  // w' = -M w, w'' = 2 M^2 w, w''' = -6 M^3 w with M = (X'X/m + lambda I)^-1; F is quadratic in w.
  const Matrix hessian = data.hessian(lambda);
  const Vector w = dense::solve(hessian, data.right());
  Vector first = dense::solve(hessian, w), second = dense::solve(hessian, first),
         third = dense::solve(hessian, second);
  for (Real& each : first) each *= -1.0L;
  for (Real& each : second) each *= 2.0L;
  for (Real& each : third) each *= -6.0L;
  const Vector g = data.outer_gradient(w);
  known.value = narrow(data.outer_value(w));
  known.gradients = {{narrow(dense::dot(g, first))}};
  known.second = narrow(dense::dot(g, second) + data.outer_curvature(first, first));
  known.third = narrow(dense::dot(g, third) + 3.0L * data.outer_curvature(first, second));
  return known;
}

Known press(double lambda) {
  const Regression data(7, 3, 1, 31);
  Known known;
  known.problem.name = "leave-one-out ridge";
  known.problem.h = {{"lambda", Tensor::scalar(lambda)}};
  known.problem.problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::zeros({7, 3})}}; };
  // keep[i, j] = 0 for i = j: row i of w never sees sample i.
  std::vector<double> keep(49, 1.0);
  for (std::size_t i = 0; i < 7; ++i) keep[8 * i] = 0.0;
  const Tensor mask = Tensor::from(keep, {7, 7});
  train_on(
      known.problem,
      [=](const NamedTensors& w, const NamedTensors& h) {
        const Tensor residual = ht::matmul(w["w"], data.x, false, true) - data.y;
        return 0.5 * ht::sum(mask * ht::square(residual)) + 0.5 * h["lambda"] * ht::sum(ht::square(w["w"]));
      },
      0.2, 900);
  known.problem.outer = [=](const NamedTensors& w, const NamedTensors&) {
    return ht::sum(ht::square(ht::sum(w["w"] * data.x, {1}) - data.y));
  };
  // With S = X (X'X + lambda I)^-1 X': the residual left out is r_i / (1 - S_ii) (Allen 1974).
  Matrix hessian = dense::gram(data.X, Vector(7, 1.0L));
  for (std::size_t i = 0; i < 3; ++i) hessian(i, i) += lambda;
  const Vector w = dense::solve(hessian, dense::transposed_times(data.X, data.Y)),
               w_dot = dense::solve(hessian, w);
  Real value = 0.0L, slope = 0.0L;
  for (std::size_t i = 0; i < 7; ++i) {
    const Vector x(data.X.elements.begin() + static_cast<std::ptrdiff_t>(3 * i),
                   data.X.elements.begin() + static_cast<std::ptrdiff_t>(3 * i + 3));
    const Vector mx = dense::solve(hessian, x);
    const Real leverage = dense::dot(x, mx), leverage_dot = -dense::dot(mx, mx);
    const Real residual = data.Y[i] - dense::dot(x, w), residual_dot = dense::dot(x, w_dot);
    const Real left_out = residual / (1.0L - leverage);
    value += left_out * left_out;
    slope += 2.0L * left_out * (residual_dot + left_out * leverage_dot) / (1.0L - leverage);
  }
  known.value = narrow(value);
  known.gradients = {{narrow(slope)}};
  return known;
}

Known meta_regression(double lambda) {
  const Regression data(10, 4, 8, 41);
  const Tensor theta = ladder::sample({4}, -1.0, 1.0, 45);
  Known known;
  known.problem.name = "iMAML on linear regression";
  known.problem.h = {{"theta", theta}, {"lambda", Tensor::scalar(lambda)}};
  known.problem.problem.init = [](const NamedTensors& h) { return NamedTensors{{"w", h["theta"]}}; };
  train_on(
      known.problem,
      [=](const NamedTensors& w, const NamedTensors& h) {
        return data.data_loss(w["w"]) + 0.5 * h["lambda"] * ht::sum(ht::square(w["w"] - h["theta"]));
      },
      0.4, 200);
  known.problem.outer = [=](const NamedTensors& w, const NamedTensors&) { return data.outer_loss(w["w"]); };
  const Matrix hessian = data.hessian(lambda);
  const Vector t = numbers(theta), w = dense::solve(hessian, dense::sum(data.right(), t, lambda));
  const Vector adjoint = dense::solve(hessian, data.outer_gradient(w));
  known.value = narrow(data.outer_value(w));
  known.gradients = {{}, {narrow(dense::dot(adjoint, dense::sum(t, w, -1.0L)))}};
  for (const Real each : adjoint) known.gradients[0].push_back(narrow(lambda * each));
  return known;
}

Known logistic() {
  const std::size_t m = 20, n = 4, v = 15;
  const Regression data(m, n, v, 51);
  const Tensor l = ladder::sample({4}, -3.0, -1.0, 55);
  const auto mean_loss = [](const Tensor& x, const Tensor& y, const Tensor& w) {
    return ht::mean(ht::log(1.0 + ht::exp(ht::negate(y * ht::matmul(x, w)))));
  };
  const auto signs = [](const Tensor& y) { return ht::tanh(1e3 * y); };  // -1 and 1: y is nowhere near 0
  const Tensor y = signs(data.y), y_outer = signs(data.y_outer);
  const Vector Y = numbers(y), Y_outer = numbers(y_outer);
  Known known;
  known.problem.name = "logistic regression";
  known.problem.h = {{"l", l}};
  known.problem.problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::zeros({4})}}; };
  known.problem.problem.full_loss = [=](const NamedTensors& w, const NamedTensors& h) {
    return mean_loss(data.x, y, w["w"]) + 0.5 * ht::dot(ht::exp(h["l"]), ht::square(w["w"]));
  };
  known.problem.outer = [=](const NamedTensors& w, const NamedTensors&) {
    return mean_loss(data.x_outer, y_outer, w["w"]);
  };
  // Newton's method: gradient and Hessian of the penalised mean loss.
  const auto slopes = [](const Matrix& x, const Vector& labels,
                         const Vector& w) {  // d loss / d (x'w), m times
    Vector s = dense::times(x, w);
    for (std::size_t i = 0; i < s.size(); ++i) s[i] = -labels[i] / (1.0L + std::exp(labels[i] * s[i]));
    return s;
  };
  const auto hessian_at = [=](const Vector& w, const Vector& penalty) {
    Vector curvature = slopes(data.X, Y, w);
    for (std::size_t i = 0; i < m; ++i)
      curvature[i] = std::abs(curvature[i]) * (1.0L - std::abs(curvature[i])) / static_cast<Real>(m);
    Matrix hessian = dense::gram(data.X, curvature);
    for (std::size_t j = 0; j < n; ++j) hessian(j, j) += penalty[j];
    return hessian;
  };
  const auto newton = [=](const Vector& penalty) {
    Vector w(n, 0.0L);
    for (int i = 0; i < 50; ++i) {
      Vector g = dense::transposed_times(data.X, slopes(data.X, Y, w));
      for (std::size_t j = 0; j < n; ++j) g[j] = g[j] / static_cast<Real>(m) + penalty[j] * w[j];
      w = dense::sum(w, dense::solve(hessian_at(w, penalty), g), -1.0L);
    }
    return w;
  };
  const auto penalty_of = [](const Tensor& logs) {
    Vector penalty = numbers(logs);
    for (Real& each : penalty) each = std::exp(each);
    return penalty;
  };
  known.problem.problem.solver = [=](const NamedTensors&, const NamedTensors& h) {
    return NamedTensors{{"w", Tensor::from(dense::narrowed(newton(penalty_of(h["l"]))), {4})}};
  };
  const Vector penalty = penalty_of(l), w = newton(penalty);
  Vector g = dense::transposed_times(data.X_outer, slopes(data.X_outer, Y_outer, w));
  for (Real& each : g) each /= static_cast<Real>(v);
  const Vector adjoint = dense::solve(hessian_at(w, penalty), g);
  known.gradients = {{}};
  for (std::size_t j = 0; j < n; ++j) known.gradients[0].push_back(narrow(-penalty[j] * w[j] * adjoint[j]));
  const Vector scores = dense::times(data.X_outer, w);
  Real value = 0.0L;
  for (std::size_t i = 0; i < v; ++i) value += std::log1p(std::exp(-Y_outer[i] * scores[i]));
  known.value = narrow(value / static_cast<Real>(v));
  return known;
}

Known saddle() {
  const Tensor diagonal = Tensor::from({2.0, -1.0, 0.5}), shift = Tensor::from({0.3, 0.7, -0.2});
  Known known;
  known.problem.name = "saddle point";
  known.problem.h = {{"shift", shift}};
  known.problem.problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::zeros({3})}}; };
  known.problem.problem.full_loss = [=](const NamedTensors& w, const NamedTensors& h) {
    return 0.5 * ht::dot(diagonal, ht::square(w["w"])) - ht::dot(w["w"], h["shift"]);
  };
  known.problem.problem.solver = [=](const NamedTensors&, const NamedTensors& h) {
    return NamedTensors{{"w", h["shift"] / diagonal}};
  };
  known.problem.outer = [](const NamedTensors& w, const NamedTensors&) {
    return 0.5 * ht::sum(ht::square(w["w"] - 1.0));
  };
  known.gradients = {{}};
  const std::vector<double> a = ladder::elements(diagonal), s = ladder::elements(shift);
  for (std::size_t i = 0; i < 3; ++i) {
    const double off = s[i] / a[i] - 1.0;
    known.value += 0.5 * off * off;
    known.gradients[0].push_back(off / a[i]);
  }
  return known;
}

std::vector<Solver> solvers(std::int64_t unknowns) {
  const std::int64_t half = std::max<std::int64_t>(1, unknowns / 2);
  return {{ht::bilevel::ImplicitCg{}, ht::bilevel::ImplicitCg{.iterations = half}},
          {ht::bilevel::ImplicitNormalCg{}, ht::bilevel::ImplicitNormalCg{.iterations = half}},
          {ht::bilevel::ImplicitDense{}, ht::bilevel::ImplicitCg{.iterations = half}}};
}

Tensor outer_of(const Case& problem, const ht::bilevel::Estimator& method, const ht::TensorList& h) {
  const NamedTensors named = problem.h.with(h);
  return problem.outer(ht::bilevel::solve(problem.problem, named, method).parameters, named);
}

}  // namespace implicit_problems
