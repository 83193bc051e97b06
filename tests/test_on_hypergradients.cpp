// The numbers of docs/on-hypergradients.md: each is computed by the library (or, where it is arithmetic,
// here) and must stand in the chapter.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/hypergradient.h>
#include <hypertape/bilevel/joint.h>
#include <hypertape/bilevel/linear.h>
#include "core/backend/digit_buffer.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using namespace ht::bilevel;
using ht::NamedTensors;
using ht::Tensor;
using ht::TensorList;

const std::string& chapter() {
  static const std::string text = [] {
    std::ifstream file(HYPERTAPE_SOURCE_DIR "/docs/on-hypergradients.md");
    return std::string(std::istreambuf_iterator<char>(file), {});
  }();
  return text;
}

// The chapter says `printed`, and that is `number` to half a unit of the last digit given.
void says(double number, const std::string& printed) {
  CAPTURE(printed);
  CAPTURE(number);
  CHECK(contains(chapter(), printed));
  std::string digits = printed;
  digits.erase(std::remove(digits.begin(), digits.end(), ','), digits.end());
  const std::size_t point = digits.find('.');
  const double places = point == std::string::npos ? 0.0 : static_cast<double>(digits.size() - point - 1);
  CHECK(std::abs(number - std::stod(digits)) <= 0.5000001 * std::pow(10.0, -places));
}
// The same, where the printed number is exact.
void says_exactly(double number, const std::string& printed) {
  says(number, printed);
  CHECK(std::abs(number - std::stod(printed)) <= 1e-14 * std::max(1.0, std::abs(number)));
}

// f = (w - h)^2, F = w^2 / 2, from w = 0 at rate r.
struct Running {
  explicit Running(std::int64_t steps) {
    problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::scalar(0.0)}}; };
    problem.loss = [](const NamedTensors& w, const NamedTensors& now, const StepContext&) {
      return ht::square(w["w"] - now["h"]);
    };
    problem.full_loss = [](const NamedTensors& w, const NamedTensors& now) {
      return ht::square(w["w"] - now["h"]);
    };
    problem.step = ht::optim::sgd({.rate = "r"});
    problem.steps = steps;
  }
  Problem problem;
  NamedTensors h = {{"h", Tensor::scalar(1.0)}, {"r", Tensor::scalar(0.1)}};
  OuterLoss outer = [](const NamedTensors& w, const NamedTensors&) { return 0.5 * ht::square(w["w"]); };

  Hypergradient by(const Estimator& estimator) const { return hypergradient(problem, outer, h, estimator); }
  double by_h(const Estimator& estimator) const { return by(estimator).gradients["h"].item(); }
};

// A problem whose solver knows the minimum, in one dimension.
Hypergradient at_minimum(const std::function<Tensor(const Tensor& w, const Tensor& h)>& f, double minimum,
                         double h, const Estimator& estimator) {
  Problem problem;
  problem.init = [=](const NamedTensors&) { return NamedTensors{{"w", Tensor::scalar(minimum)}}; };
  problem.full_loss = [=](const NamedTensors& w, const NamedTensors& now) { return f(w["w"], now["h"]); };
  problem.solver = [](const NamedTensors& w, const NamedTensors&) { return w; };
  return hypergradient(
      problem, [](const NamedTensors& w, const NamedTensors&) { return 0.5 * ht::square(w["w"]); },
      {{"h", Tensor::scalar(h)}}, estimator);
}

}  // namespace

TEST_CASE("chapter: the running example, by every method that differentiates the executed map") {
  const Running example(3);
  for (const Estimator& method :
       std::vector<Estimator>{Unrolled{}, Checkpointed{}, Trajectory{}, Forward{}}) {
    const Hypergradient result = example.by(method);
    CAPTURE(result.method);
    says_exactly(result.parameters["w"].item(), "0.488");
    says_exactly(result.value, "0.119072");
    says_exactly(result.gradients["h"].item(), "0.238144");
    says_exactly(result.gradients["r"].item(), "1.87392");
    CHECK(result.status == ResultStatus::exact);
  }
  says_exactly(example.by(Trajectory{}).adjoint_growth, "0.512");
  for (const auto& [steps, w] : {std::pair(1, "0.2"), std::pair(2, "0.36")})
    says_exactly(train(Running(steps).problem, example.h).parameters["w"].item(), w);

  // The adjoint of step t: the derivative with respect to the state that the remaining steps start from.
  says_exactly(train(example.problem, example.h).parameters["w"].item(), "0.488");  // l_3 = F_w = w_3
  const char* adjoints[] = {"0.249856", "0.31232", "0.3904"};
  for (std::int64_t t = 0; t < 3; ++t) {
    const double start = t == 0 ? 0.0 : train(Running(t).problem, example.h).parameters["w"].item();
    Running rest(3 - t);
    rest.problem.init = [](const NamedTensors& h) { return NamedTensors{{"w", h["start"]}}; };
    rest.h.add("start", Tensor::scalar(start));
    says_exactly(rest.by(Unrolled{}).gradients["start"].item(), adjoints[t]);
  }

  // Per-step rates: three equal summands.
  Running each(3);
  each.problem.per_step = {"r"};
  each.h = each.h.with("r", Tensor::full({3}, 0.1));
  for (const double part : each.by(Trajectory{}).gradients["r"].to_vector<double>())
    says_exactly(part, "0.62464");
}

TEST_CASE("chapter: truncation, and its identity with the Neumann series at the minimum") {
  const Running example(3);
  says_exactly(example.by_h(Truncated{1}), "0.0976");
  says_exactly(example.by_h(Truncated{2}), "0.17568");
  const Running long_run(400);
  const char* partial[] = {"0.2", "0.36", "0.488"};
  for (std::int64_t k = 0; k < 3; ++k) {
    const double neumann = long_run.by_h(ImplicitNeumann{.terms = k, .rate = 0.1});
    says(neumann, partial[k]);
    CHECK(std::abs(neumann - long_run.by_h(Truncated{k + 1})) <= 1e-13);
  }
  CHECK(long_run.by(ImplicitNeumann{.terms = 20, .rate = 1.5}).status == ResultStatus::unstable_series);
}

TEST_CASE("chapter: the minimum, by the implicit function theorem") {
  const Running long_run(400);
  for (const Estimator& method : std::vector<Estimator>{ImplicitCg{}, ImplicitNormalCg{}, ImplicitDense{}}) {
    const Hypergradient result = long_run.by(method);
    CAPTURE(result.method);
    CHECK(std::abs(result.gradients["h"].item() - 1.0) <= 1e-12);
    CHECK(result.status == ResultStatus::converged);
    CHECK_FALSE(result.gradients["r"].defined());
    CHECK(result.availability[1] == Availability::not_defined);
  }
  const Hypergradient early = Running(3).by(ImplicitDense{});
  CHECK(early.status == ResultStatus::not_converged);
  says(early.inner_residual, "1.049");
  CHECK(std::abs(early.gradients["h"].item() - 0.488) <= 1e-14);

  says_exactly(long_run.by_h(T1T2{.rate = 0.1}), "0.2");
  // Away from 1 by rounding of w* only.
  const auto ridge = [](const Tensor& w, const Tensor& h) {
    return 0.5 * ht::square(w - 2.0) + 0.5 * (h * ht::square(w));
  };
  says_exactly(at_minimum(ridge, 1.0, 1.0, ImplicitCg{}).gradients["h"].item(), "-0.5");

  const auto quartic = [](const Tensor& w, const Tensor& h) {
    return 0.5 * ht::square(w - 1.0) + 0.25 * (h * ht::square(ht::square(w)));
  };
  const double exact = -at_minimum(quartic, 1.0, 0.0, T1T2{.rate = 1.0}).gradients["h"].item();
  const double difference = -at_minimum(quartic, 1.0, 0.0, Darts{.rate = 1.0}).gradients["h"].item();
  CHECK(exact == doctest::Approx(1.0).epsilon(1e-14));
  says(difference, "1.0001");
  CHECK(std::abs(difference - 1.0001) <= 1e-12);
}

TEST_CASE("chapter: conjugate gradients by hand, and at a saddle") {
  const auto apply = [](std::array<double, 4> a) {
    return [a](const TensorList& x) {
      return TensorList{ht::matmul(Tensor::from({a[0], a[1], a[2], a[3]}, {2, 2}), x[0])};
    };
  };
  const TensorList b = {Tensor::from({1.0, 0.0})};
  const LinearSolution one = conjugate_gradient(apply({2, 1, 1, 2}), b, {.iterations = 1});
  CHECK(one.x[0].to_vector<double>() == std::vector<double>{0.5, 0.0});
  CHECK(one.residuals.back() == doctest::Approx(0.5).epsilon(1e-14));
  const LinearSolution two = conjugate_gradient(apply({2, 1, 1, 2}), b);
  CHECK(two.status == LinearStatus::converged);
  CHECK(two.iterations == 2);
  CHECK(std::abs(two.x[0].to_vector<double>()[0] - 2.0 / 3.0) <= 1e-15);
  CHECK(std::abs(two.x[0].to_vector<double>()[1] + 1.0 / 3.0) <= 1e-15);
  CHECK(two.smallest_eigenvalue == doctest::Approx(1.0).epsilon(0.02));
  CHECK(two.largest_eigenvalue == doctest::Approx(3.0).epsilon(0.02));
  for (const char* text : {"x = (0.5, 0)", "relative residual 0.5", "(2/3, -1/3)", "= -72", "`(0.5, -1)`",
                           "`(2 1; 1 2)`, with eigenvalues 1 and 3"})
    CHECK(contains(chapter(), text));

  const TensorList c = {Tensor::from({1.0, 1.0})};
  CHECK(conjugate_gradient(apply({2, 0, 0, -1}), c).status == LinearStatus::negative_curvature);
  const LinearSolution saddle = normal_conjugate_gradient(apply({2, 0, 0, -1}), c);
  CHECK(saddle.status == LinearStatus::converged);
  CHECK(std::abs(saddle.x[0].to_vector<double>()[0] - 0.5) <= 1e-11);
  CHECK(std::abs(saddle.x[0].to_vector<double>()[1] + 1.0) <= 1e-11);
}

TEST_CASE("chapter: two steps of SOBA, and where it goes") {
  JointProblem problem;
  problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::scalar(0.0)}}; };
  problem.inner = [](const NamedTensors& w, const NamedTensors& h, const StepContext&) {
    return ht::square(w["w"] - h["h"]);
  };
  problem.outer = [](const NamedTensors& w, const NamedTensors&, const StepContext&) {
    return 0.5 * ht::square(w["w"] - 3.0);
  };
  const JointAlgorithm algorithm = soba({.inner_rate = 0.1, .linear_rate = 0.1, .outer_rate = 0.05});
  JointState state = algorithm.init(problem, {{"h", Tensor::scalar(1.0)}});
  const auto expect = [&](double w, double v, double h, double tolerance) {
    CHECK(std::abs(state.parameters["w"].item() - w) <= tolerance);
    CHECK(std::abs(state.adjoint["w"].item() - v) <= tolerance);
    CHECK(std::abs(state.hyperparameters["h"].item() - h) <= tolerance);
  };
  state = algorithm.step(problem, state);
  expect(0.2, 0.3, 1.0, 1e-15);
  state = algorithm.step(problem, state);
  expect(0.36, 0.52, 1.03, 1e-15);
  for (int t = 0; t < 2000; ++t) state = algorithm.step(problem, state);
  expect(3.0, 0.0, 3.0, 1e-12);
  for (const char* text : {"(0.2, 0.3, 1)", "(0.36, 0.52, 1.03)", "(3, 0, 3)"})
    CHECK(contains(chapter(), text));
}

TEST_CASE("chapter: second derivatives of the run and of the minimum") {
  const Running example(3);
  const auto final_loss = [&](const Tensor& r) {
    const NamedTensors h = example.h.with("r", r);
    return example.outer(solve(example.problem, h, Unrolled{}).parameters, h);
  };
  const Tensor second =
      ht::grad([&](const Tensor& r) { return ht::grad(final_loss, r); }, Tensor::scalar(0.1));
  says(second.item(), "5.376");
  CHECK(std::abs(second.item() - 5.376) <= 1e-13);

  Problem ridge;
  ridge.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::scalar(1.0)}}; };
  ridge.solver = [](const NamedTensors& w, const NamedTensors&) { return w; };
  ridge.full_loss = [](const NamedTensors& w, const NamedTensors& h) {
    return 0.5 * ht::square(w["w"] - 2.0) + 0.5 * (h["h"] * ht::square(w["w"]));
  };
  const auto at_w = [&](const Tensor& h) {
    return 0.5 * ht::square(solve(ridge, {{"h", h}}, ImplicitDense{}).parameters["w"]);
  };
  const Tensor curvature = ht::grad([&](const Tensor& h) { return ht::grad(at_w, h); }, Tensor::scalar(1.0));
  says(curvature.item(), "0.75");
  CHECK(std::abs(curvature.item() - 0.75) <= 1e-14);
  for (const Estimator& once : std::vector<Estimator>{Trajectory{}, Checkpointed{}}) {
    const auto loss = [&](const Tensor& r) {
      const NamedTensors h = example.h.with("r", r);
      return example.outer(solve(example.problem, h, once).parameters, h);
    };
    CHECK(thrown([&] {
            ht::grad([&](const Tensor& r) { return ht::grad(loss, r); }, Tensor::scalar(0.1));
          }) != "nothing thrown");
  }
}

TEST_CASE("chapter: costs, digits and chaos") {
  const auto costs = [](double first, double rest) {
    const double gradient = 2 * first + 3 * rest;
    return std::pair(1 + (2 * first + 6 * rest) / gradient, 1 + (4 * first + 9 * rest) / gradient);
  };
  const auto [wide, wide_dual] = costs(784 * 50, 2 * 50 * 50 + 50 * 10);
  const auto [narrow, narrow_dual] = costs(64 * 100, 2 * 100 * 100 + 100 * 10);
  says(wide, "2.17");
  says(narrow, "2.83");
  says(wide_dual, "3.17");
  says(narrow_dual, "3.83");
  const Running hundred(100);
  CHECK(hundred.by(Unrolled{}).cost.gradients == 100);
  says(static_cast<double>(hundred.by(Checkpointed{10}).cost.gradients), "200");

  says(std::pow(0.9, -100.0), "37,649");
  CHECK(400 * std::log2(1 / 0.9) > 53);
  const std::int64_t v = 1234, buffer = 7, d = 10, n = 9;
  const std::int64_t joined = buffer * d + v % d, next = v / d * n + joined % n;
  says(static_cast<double>(joined), "74");
  says(static_cast<double>(next), "1109");
  CHECK(joined / n == 8);
  CHECK(next / n * d + (joined / n * n + next % n) % d == v);
  says(std::log2(1 / 0.9), "0.152");
  says(std::log2(1 / 0.98), "0.029");
  says(10000 * std::log2(1 / 0.9) / 8, "190");
  const std::uint32_t numerator = ht::detail::momentum_numerator(0.9);
  says(numerator, "58982");
  CHECK(ht::detail::effective_momentum(numerator) == 0.899993896484375);
  CHECK(contains(chapter(), "0.899993896484375"));

  Running chaos(40);
  chaos.problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::scalar(0.5)}}; };
  chaos.problem.loss = [](const NamedTensors& w, const NamedTensors&, const StepContext&) {
    const Tensor square = ht::square(w["w"]);
    return 0.25 * ht::square(square) - 0.5 * square;
  };
  chaos.h = {{"r", Tensor::scalar(1.9)}};
  const Hypergradient result = chaos.by(Trajectory{});
  CHECK(result.adjoint_growth > 100.0);
  CHECK(result.status == ResultStatus::chaotic);
  // Unrolled agrees: it is a derivative, however little it says.
  CHECK(std::abs(chaos.by(Unrolled{}).gradients["r"].item() / result.gradients["r"].item() - 1.0) < 1e-6);
}
