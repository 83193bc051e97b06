#include "optimizer_runs.h"

#include <doctest/doctest.h>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "ladder.h"

namespace optimizer_runs {

namespace ht = hypertape;
using ht::Tensor;
using ht::TensorList;

std::vector<double> twenty_steps(const ht::optim::Step& step, const ht::NamedTensors& h, ht::Dtype dtype) {
  const auto tensor = [&](const Tensor& x) { return ladder::converted(x, dtype); };
  const Tensor a = tensor(Tensor::from({1.5, 0.25, -0.5, 0.25, 1.0, 0.125, -0.5, 0.125, 2.0}, {3, 3})),
               b = tensor(Tensor::from({0.5, -1.0, 0.75}));
  const TensorList start = {tensor(Tensor::from({1.0, -2.0, 0.5}))};
  ht::optim::State state{start, step.initial_buffers(start)};
  for (int t = 0; t < 20; ++t) {
    const auto loss = [&](const TensorList& w) {
      return 0.5 * ht::dot(ht::matmul(a, w[0]), w[0]) - ht::dot(b, w[0]) +
             0.05 * (t + 1) / 20.0 * ht::sum(ht::tanh(w[0]));
    };
    state = step.update(state, ht::grad(loss, state.parameters), h);
  }
  return ladder::elements(state.parameters[0]);
}

void expect_torch(const ht::optim::Step& step, const std::vector<double>& weights) {
  CAPTURE(step.name);
  const std::vector<double> result = twenty_steps(step);
  REQUIRE(result.size() == weights.size());
  for (std::size_t i = 0; i < weights.size(); ++i)
    CHECK(result[i] == doctest::Approx(weights[i]).epsilon(1e-13));
}

}  // namespace optimizer_runs
