// The hypergradient of a reversible run, term by term, against the integers that it executed: training and
// adjoint are written here again, on 64-bit integers and in long double, without the library's step; and
// against differences of executed runs. The same adjoint on floating-point training is the other methods'.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/hypergradient.h>
#include "bilevel_problems.h"
#include "ladder.h"

namespace {

namespace ht = hypertape;
namespace bl = ht::bilevel;
using bilevel_problems::Case;
using ht::NamedTensors;
using ht::Tensor;
using ht::TensorList;
using Vector = std::vector<double>;
using Wide = std::vector<long double>;

constexpr double grid = 0x1p-52;

// f = 1/2 sum k x^2 - shift sum x, F = sum c x + 1/2 sum x^2, for x in two tensors of 2 and 1 elements.
// Gradients are k x - shift, rounded twice, in whatever order they are computed.
//
// `scale` is that of f, but of its part in the second tensor only where it is below 1; rates make up for a
// scale above 1. `large` is that of the first tensor's start.
struct Diagonal {
  int steps = 5;
  double scale = 1.0, large = 1.0;
  bool dampened = false, own_momenta = false, single = false;
  // Of the first tensor, as the run must choose them.
  int weight_bits = 52, velocity_bits = 52;

  double scale_of(std::size_t i) const { return i == 2 ? std::min(scale, 1.0) : scale; }

  std::size_t groups() const { return own_momenta ? 2 : 1; }
  std::int64_t numerator(int t, std::size_t i) const {
    return 50000 + 1500 * t - (own_momenta && i == 2 ? 9001 : 0);
  }
  double rate(int t, std::size_t i) const {
    return number((0.3 + 0.07 * t - (i == 2 ? 0.11 : 0.0)) / std::max(scale_of(i), 1.0));
  }
  double k(std::size_t i) const { return number(scale_of(i) * (0.9 - 0.25 * static_cast<double>(i))); }
  double shift() const { return number(std::min(scale, 1.0) * 0.3); }
  double start(std::size_t i) const {
    return (i == 2 ? 1.0 : large) * (1.0 - 0.625 * static_cast<double>(i));
  }
  double velocity(std::size_t i) const {
    return number(std::min(scale, 1.0) * (0.2 - 0.15 * static_cast<double>(i)));
  }
  static double c(std::size_t i) { return 0.5 + static_cast<double>(i); }
  double number(double x) const { return single ? static_cast<float>(x) : x; }

  Tensor tensor(const Vector& values, const ht::Shape& shape) const {
    const Tensor whole = Tensor::from(values, shape);
    return single ? ht::astype(whole, ht::Dtype::float32) : whole;
  }

  Case problem() const {
    const std::int64_t count = steps;
    Vector rates, momenta;
    for (int t = 0; t < steps; ++t)
      for (const std::size_t first : {0u, 2u}) {
        rates.push_back(rate(t, first));
        if (first == 0 || own_momenta) momenta.push_back(static_cast<double>(numerator(t, first)) / 65536.0);
      }
    Case result;
    result.name = "diagonal";
    result.h = {{"rates", tensor(rates, {count, 2})},
                {"momenta", own_momenta ? tensor(momenta, {count, 2}) : tensor(momenta, {count})},
                {"k", tensor({k(0), k(1), k(2)}, {3})},
                {"shift", tensor({shift()}, {})},
                {"start", tensor({start(0), start(1), start(2)}, {3})},
                {"velocity", tensor({velocity(0), velocity(1), velocity(2)}, {3})}};
    const Tensor weights = tensor({c(0), c(1), c(2)}, {3});
    bl::Problem& problem = result.problem;
    problem.steps = count;
    problem.per_step = {"rates", "momenta"};
    problem.init = [](const NamedTensors& h) {
      return NamedTensors{{"a", ht::slice(h["start"], 0, 0, 2)}, {"b", ht::slice(h["start"], 0, 2, 3)}};
    };
    problem.initial_buffers = [](const NamedTensors&, const NamedTensors& h) {
      return TensorList{ht::slice(h["velocity"], 0, 0, 2), ht::slice(h["velocity"], 0, 2, 3)};
    };
    problem.loss = [](const NamedTensors& w, const NamedTensors& h, const bl::StepContext&) {
      const Tensor x = ht::concatenate({w["a"], w["b"]}, 0);
      return ht::sum(0.5 * h["k"] * ht::square(x)) - h["shift"] * ht::sum(x);
    };
    problem.step = ht::optim::sgd({.rate = "rates", .momentum = "momenta", .dampened = dampened});
    result.outer = [=](const NamedTensors& w, const NamedTensors&) {
      const Tensor x = ht::concatenate({w["a"], w["b"]}, 0);
      return ht::sum(weights * x) + 0.5 * ht::sum(ht::square(x));
    };
    return result;
  }
};

std::int64_t floor_divide(std::int64_t x, std::int64_t n) { return x / n - (x % n < 0 ? 1 : 0); }

// Training by hand, in integers or in long double, and its adjoint.
struct ByHand {
  ByHand(const Diagonal& p, bool in_integers)
      : rates(static_cast<std::size_t>(2 * p.steps)),
        momenta(p.groups() * static_cast<std::size_t>(p.steps)),
        k(3),
        shift(1),
        start(3),
        velocity(3) {
    for (std::size_t i = 0; i < 3; ++i) {
      const Path path = in_integers ? integers(p, i) : numbers(p, i);
      end.push_back(static_cast<double>(path.x.back()));
      pull(p, i, path);
    }
  }

  // Weights, velocities and gradients as a derivative reads them, before each step and after the last one.
  struct Path {
    Wide x, v, g;
  };

  static Path integers(const Diagonal& p, std::size_t i) {
    const int w_bits = i == 2 ? 52 : p.weight_bits, v_bits = i == 2 ? 52 : p.velocity_bits;
    std::int64_t w = static_cast<std::int64_t>(std::ldexp(p.number(p.start(i)), w_bits));
    std::int64_t v = static_cast<std::int64_t>(std::ldexp(p.velocity(i), v_bits)), digits = 0;
    Path path;
    const auto note = [&] {
      path.x.push_back(p.number(std::ldexp(static_cast<double>(w), -w_bits)));
      path.v.push_back(p.number(std::ldexp(static_cast<double>(v), -v_bits)));
    };
    note();
    for (int t = 0; t < p.steps; ++t) {
      const std::int64_t n = p.numerator(t, i), q = floor_divide(v, 65536);
      const double x = static_cast<double>(path.x.back());
      const double g = p.number(p.number(p.k(i) * x) - p.shift());
      path.g.push_back(g);
      const std::int64_t all = digits * 65536 + (v - q * 65536);
      digits = all / n;
      const double share = p.dampened ? 1.0 - static_cast<double>(n) / 65536.0 : 1.0;
      v = q * n + all % n + static_cast<std::int64_t>(std::ldexp(g * share, v_bits));
      const double move = static_cast<double>(v) * p.rate(t, i);
      w -= static_cast<std::int64_t>(std::ldexp(move, w_bits - v_bits));
      note();
    }
    return path;
  }

  static Path numbers(const Diagonal& p, std::size_t i) {
    Path path{{p.start(i)}, {p.velocity(i)}, {}};
    for (int t = 0; t < p.steps; ++t) {
      const long double m = static_cast<long double>(p.numerator(t, i)) / 65536.0L;
      path.g.push_back(p.k(i) * path.x.back() - p.shift());
      path.v.push_back(m * path.v.back() + (p.dampened ? 1.0L - m : 1.0L) * path.g.back());
      path.x.push_back(path.x.back() - p.rate(t, i) * path.v.back());
    }
    return path;
  }

  void pull(const Diagonal& p, std::size_t i, const Path& path) {
    long double l_w = p.number(p.c(i)) + path.x.back(), l_v = 0.0L;
    const std::size_t group = i / 2;
    for (int t = p.steps - 1; t >= 0; --t) {
      const auto at = static_cast<std::size_t>(t);
      const long double m = static_cast<long double>(p.numerator(t, i)) / 65536.0L, r = p.rate(t, i);
      const long double share = p.dampened ? 1.0L - m : 1.0L;
      const long double push = l_v - r * l_w;
      rates[2 * at + group] -= l_w * path.v[at + 1];
      momenta[p.groups() * at + (p.own_momenta ? group : 0)] +=
          push * path.v[at] - (p.dampened ? push * path.g[at] : 0.0L);
      k[i] += share * push * path.x[at];
      shift[0] -= share * push;
      l_v = m * push;
      l_w += p.k(i) * share * push;
    }
    start[i] = l_w;
    velocity[i] = l_v;
  }

  Vector end;
  Wide rates, momenta, k, shift, start, velocity;
};

double error_of(const Tensor& found, const Wide& expected) {
  const Vector values = ladder::elements(ht::astype(found, ht::Dtype::float64));
  REQUIRE(values.size() == expected.size());
  long double largest = 0.0L, difference = 0.0L;
  for (std::size_t i = 0; i < values.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    difference = std::max(difference, std::abs(values[i] - expected[i]));
  }
  REQUIRE(largest > 0.0L);
  return static_cast<double>(difference / largest);
}

void expect_gradients(const bl::Hypergradient& found, const ByHand& expected, double tolerance) {
  CHECK(found.status == bl::ResultStatus::exact);
  CHECK(error_of(found.gradients["rates"], expected.rates) < tolerance);
  CHECK(error_of(found.gradients["momenta"], expected.momenta) < tolerance);
  CHECK(error_of(found.gradients["k"], expected.k) < tolerance);
  CHECK(error_of(found.gradients["shift"], expected.shift) < tolerance);
  CHECK(error_of(found.gradients["start"], expected.start) < tolerance);
  CHECK(error_of(found.gradients["velocity"], expected.velocity) < tolerance);
}

void expect_integers(const Diagonal& problem, double tolerance) {
  CAPTURE(problem.scale);
  CAPTURE(problem.large);
  CAPTURE(problem.dampened);
  CAPTURE(problem.own_momenta);
  const ByHand expected(problem, true);
  const bl::Hypergradient found = problem.problem().by(bl::Reversible{});
  Vector end;
  for (const Tensor& w : found.parameters.tensors())
    for (const double x : ladder::elements(ht::astype(w, ht::Dtype::float64))) end.push_back(x);
  CHECK(end == expected.end);
  expect_gradients(found, expected, tolerance);
}

}  // namespace

TEST_CASE("reversible: every term of the adjoint is that of the integers, however small the velocities") {
  for (const double scale : {1.0, 1e-3, 1e-6, 1e-8, 1e-10, 1e-12})
    for (const bool dampened : {false, true})
      for (const bool own_momenta : {false, true})
        expect_integers({.scale = scale, .dampened = dampened, .own_momenta = own_momenta}, 1e-13);
}

TEST_CASE("reversible: float32 runs execute rates in float32, and differentiate them so") {
  for (const double scale : {1.0, 1e-4, 1e-8})
    for (const bool dampened : {false, true})
      expect_integers({.scale = scale, .dampened = dampened, .single = true}, 3e-6);
  // A constant rate is the same number as one that is learned.
  const Diagonal problem{.steps = 4, .single = true};
  Case learned = problem.problem(), constant = learned;
  learned.h = learned.h.with("rates", ht::astype(Tensor::full({4, 2}, 0.1), ht::Dtype::float32));
  constant.problem.step = ht::optim::sgd({.rate = 0.1, .momentum = "momenta"});
  const bl::Hypergradient a = learned.by(bl::Reversible{}), b = constant.by(bl::Reversible{});
  CHECK(ladder::same_bits(a.parameters.tensors(), b.parameters.tensors()));
  CHECK(ladder::same_bits(a.gradients["start"], b.gradients["start"]));
}

// x after the last step is linear in that step's rate, but for the truncation of one move.
TEST_CASE("reversible: the last rate's gradient is the difference of two executed runs") {
  for (const double k : {1.0, 1e-3, 1e-6, 1e-8, 1e-10, 1e-12}) {
    CAPTURE(k);
    Case problem;
    problem.problem.steps = 2;
    problem.problem.per_step = {"rate"};
    problem.problem.init = [](const NamedTensors&) { return NamedTensors{{"x", Tensor::scalar(1.0)}}; };
    problem.problem.loss = [k](const NamedTensors& w, const NamedTensors&, const bl::StepContext&) {
      return 0.5 * k * ht::square(w["x"]);
    };
    problem.problem.step = ht::optim::sgd({.rate = "rate", .momentum = 0.75});
    problem.outer = [](const NamedTensors& w, const NamedTensors&) { return w["x"]; };
    const auto with_last = [](double last) { return NamedTensors{{"rate", Tensor::from({0.75, last})}}; };
    const auto end = [&](double last) {
      return bl::solve(problem.problem, with_last(last), bl::Reversible{}).parameters["x"].item();
    };
    problem.h = with_last(0.75);
    const double found = ladder::elements(problem.by(bl::Reversible{}).gradients["rate"])[1];
    const double velocity = bl::solve(problem.problem, problem.h, bl::Reversible{}).buffers[0].item();
    CHECK(found == -velocity);
    // Rates 2^20 and 0: one move of up to 2^10, truncated to the grid.
    const double far = k < 1e-4 ? 0x1p20 : 1.0;
    CHECK(std::abs((end(far) - end(0.0)) / far - found) <= 2.0 * grid / far);
    CHECK(velocity > 0.0);
  }
}

TEST_CASE("reversible: numbers of 1,024 and more get fewer fraction bits, each parameter's its own") {
  // Gradients of 9,000 times a rate of 3e-5: found at the first step, in the first tensor only.
  for (const bool dampened : {false, true})
    expect_integers({.scale = 1e4, .dampened = dampened, .own_momenta = true, .velocity_bits = 42}, 1e-13);
  // A weight of 5,000, told from the start; its velocities stay below 1,024, or leave at the fourth step.
  expect_integers({.scale = 0.05, .large = 5000.0, .weight_bits = 42}, 1e-13);
  expect_integers({.scale = 0.1, .large = 5000.0, .weight_bits = 42, .velocity_bits = 42}, 1e-13);
  expect_integers({.scale = 1e9, .large = 10.0, .velocity_bits = 22}, 1e-13);
}

TEST_CASE("reversible: a run that starts again reports each step once, and goes back more than once") {
  Case problem = Diagonal{.scale = 0.1, .large = 5000.0}.problem();
  std::vector<std::int64_t> steps;
  problem.problem.on_step = [&](std::int64_t step, double) { steps.push_back(step); };
  const bl::Hypergradient found = problem.by(bl::Reversible{});
  CHECK(steps == std::vector<std::int64_t>{0, 1, 2, 3, 4});
  CHECK(found.cost.gradients == 13);  // 5 there and 5 back, and those before the second start
  auto [end, pullback] = ht::vjp(
      [&](const TensorList& h) {
        return bl::solve(problem.problem, problem.h.with(h), bl::Reversible{}).parameters.tensors();
      },
      problem.h.tensors());
  CHECK(ladder::same_bits(pullback(end), pullback(end)));
}

TEST_CASE("bilevel: momenta by group and an initial velocity that is learned, by every method of the run") {
  for (const bool dampened : {false, true})
    for (const bool own_momenta : {false, true}) {
      const Diagonal problem{.dampened = dampened, .own_momenta = own_momenta};
      const ByHand expected(problem, false);
      const Case whole = problem.problem();
      for (const bl::Estimator& method : {bl::Estimator(bl::Unrolled{}), bl::Estimator(bl::Checkpointed{2}),
                                          bl::Estimator(bl::Trajectory{}), bl::Estimator(bl::Forward{})}) {
        CAPTURE(method.name());
        expect_gradients(whole.by(method), expected, 1e-13);
      }
    }
}
