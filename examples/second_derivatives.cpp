// Derivatives of derivatives: Hessian-vector products in a few lines, and a hypergradient's own derivative.
//
// The second half tunes one learning rate by Newton's method: F(r), the loss after 3 steps at rate r, is
// differentiated twice through the whole run. On a quadratic everything is known in closed form: each step
// shrinks coordinate i by (1 - r a_i), so that F(r) = 1/2 sum a_i (1 - r a_i)^6.
#include <hypertape/hypertape.h>

#include <cmath>
#include <cstdlib>
#include <iostream>

namespace ht = hypertape;
namespace bl = hypertape::bilevel;

namespace {

bool close(double a, double b, double scale) { return std::abs(a - b) <= 1e-12 * scale; }

// Largest eigenvalue of the Hessian by power iteration: two gradients or so for each product, and no matrix.
bool sharpness() {
  const ht::Tensor a = ht::random({30, 6}, ht::Distribution::normal, {.seed = 1});
  const auto loss = [&](const ht::Tensor& w) { return ht::sum(ht::exp(ht::matmul(a, w) * 0.5)); };
  const ht::Tensor w = ht::Tensor::full({6}, 0.1);
  ht::Tensor v = ht::Tensor::ones({6});
  auto [gradient, curvature] = ht::linearize([&](const ht::Tensor& x) { return ht::grad(loss, x); }, w);
  double largest = 0.0;
  for (int i = 0; i < 200; ++i) {
    v = curvature(v);  // H v; the gradient was paid once
    largest = std::sqrt(ht::dot(v, v).item());
    v = v / largest;
  }
  // H = A' diag(e^(Aw/2) / 4) A, so that H v has a closed form too.
  const ht::Tensor weights = 0.25 * ht::exp(ht::matmul(a, w) * 0.5);
  const ht::Tensor by_hand = ht::matmul(a, weights * ht::matmul(a, v), true);
  const double quotient = ht::dot(v, by_hand).item();
  std::cout << "largest curvature " << largest << ", v'Hv by hand " << quotient << '\n';
  return close(largest, quotient, 1e3 * largest);  // power iteration stops at about 1e-9
}

}  // namespace

int main() {
  ht::initialize();
  const ht::Tensor a = ht::Tensor::from({1.0, 0.5, 0.25});
  const std::int64_t steps = 3;
  bl::Problem problem{
      .init =
          [](const ht::NamedTensors&) {
            return ht::NamedTensors{{"w", ht::Tensor::ones({3})}};
          },
      .loss = [=](const ht::NamedTensors& w, const ht::NamedTensors&,
                  const bl::StepContext&) { return 0.5 * ht::dot(a, ht::square(w["w"])); },
      .step = ht::optim::sgd({.rate = "rate"}),
      .steps = steps,
  };
  // Unrolled is differentiable to any order: this is an ordinary function of the rate.
  const auto final_loss = [&](const ht::Tensor& rate) {
    const ht::NamedTensors w = bl::solve(problem, {{"rate", rate}}, bl::Unrolled{}).parameters;
    return 0.5 * ht::dot(a, ht::square(w["w"]));
  };
  const auto slope = [&](const ht::Tensor& rate) { return ht::grad(final_loss, rate); };

  double rate = 0.5, slope_at_end = 1.0;
  for (int iteration = 0; iteration < 8; ++iteration) {
    const ht::Tensor at = ht::Tensor::scalar(rate);
    const auto [first, second] = ht::value_and_grad(slope, at);  // dF/dr and d2F/dr2
    double f1 = 0.0, f2 = 0.0, size = 0.0;
    for (const double each : a.to_vector<double>()) {
      const double term = 3.0 * each * each * std::pow(1.0 - rate * each, 5);
      f1 -= term;
      size += std::abs(term);
      f2 += 15.0 * each * each * each * std::pow(1.0 - rate * each, 4);
    }
    if (!close(first.item(), f1, size) || !close(second.item(), f2, f2)) return EXIT_FAILURE;
    std::cout << "rate " << rate << ": F " << final_loss(at).item() << ", F' " << f1 << ", F'' " << f2
              << '\n';
    rate -= first.item() / second.item();
    slope_at_end = std::abs(first.item()) / size;
  }
  // Newton's method has converged: rounding aside, no rate near this one does better.
  return slope_at_end < 1e-12 && sharpness() ? EXIT_SUCCESS : EXIT_FAILURE;
}
