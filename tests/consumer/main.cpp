// Uses the installed library as a stranger would: its headers, its functions, and an error across its border.
#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/hypergradient.h>
#include <hypertape/core/error.h>
#include <hypertape/core/parallel.h>
#include <hypertape/core/version.h>

#include <atomic>
#include <iostream>
#include <string>

#include "other.h"

#ifdef CONSUMER_STANDARD
#define CONSUMER_TEXT_OF(standard) #standard
#define CONSUMER_TEXT(standard) CONSUMER_TEXT_OF(standard)
// 20, or what compilers call later standards before they are done: 2b.
static_assert((__cplusplus > 202002L) == (CONSUMER_TEXT(CONSUMER_STANDARD)[1] != '0'));
#endif
static_assert(HYPERTAPE_VERSION_MAJOR == 0 && HYPERTAPE_VERSION_MINOR >= 1 && HYPERTAPE_VERSION_PATCH >= 0);

namespace {

bool derivatives() {
  using namespace hypertape;
  const Tensor x = Tensor::from({1.0, 2.0, 3.0});
  const auto cubes = [](const Tensor& y) { return sum(y * y * y); };
  const auto [value, gradient] = value_and_grad(cubes, x);
  const auto [y, pullback] = vjp(cubes, x);
  const auto [tangent_value, tangent] = jvp(cubes, x, Tensor::ones({3}));
  const TensorList lists = grad([](const TensorList& z) { return sum(z[0] * z[1]); }, TensorList{x, x});
  return value.item() == 36.0 && gradient.to_vector<double>() == std::vector<double>{3, 12, 27} &&
         pullback(Tensor::scalar(2.0)).to_vector<double>() == std::vector<double>{6, 24, 54} &&
         tangent.item() == 42.0 && y.item() == tangent_value.item() && lists.size() == 2 &&
         hvp(cubes, x, Tensor::ones({3})).to_vector<double>() == std::vector<double>{6, 12, 18};
}

// One step from w = 1 at rate r on w^2 / 2: F = (1 - r)^2 / 2, dF/dr = r - 1.
bool hypergradient() {
  using namespace hypertape;
  const bilevel::Problem problem{
      .init =
          [](const NamedTensors&) {
            return NamedTensors{{"w", Tensor::scalar(1.0)}};
          },
      .loss = [](const NamedTensors& w, const NamedTensors&,
                 const bilevel::StepContext&) { return 0.5 * square(w["w"]); },
      .step = optim::sgd({.rate = "rate"}),
      .steps = 1,
  };
  const auto outer = [](const NamedTensors& w, const NamedTensors&) { return 0.5 * square(w["w"]); };
  const NamedTensors h = {{"rate", Tensor::scalar(0.25)}};
  return bilevel::hypergradient(problem, outer, h, bilevel::Unrolled{}).gradients["rate"].item() == -0.75 &&
         bilevel::hypergradient(problem, outer, h, bilevel::Trajectory{}).gradients["rate"].item() == -0.75;
}

}  // namespace

int main() {
  std::atomic<int> sum = 0;
  hypertape::parallel_chunks(100, [&](std::int64_t chunk) { sum += static_cast<int>(chunk); });
  if (sum != 4950 || !derivatives() || !hypergradient() || !other_source()) return 1;
  try {
    hypertape::set_thread_count(0);
  } catch (const hypertape::Error& error) {
    std::cout << "hypertape " << hypertape::version() << ": " << error.what() << '\n';
  }
  // Every class of error keeps its identity across the border of a shared library.
  try {
    throw hypertape::bilevel::TrainingDiverged("train", 3, "the loss is infinite");
  } catch (const hypertape::Error& error) {
    return std::string(error.what()).find("at step 3") != std::string::npos ? 0 : 1;
  }
}
