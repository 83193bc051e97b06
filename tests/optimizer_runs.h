// Twenty steps on a small problem that PyTorch ran too.
#pragma once

#include <vector>

#include <hypertape/optim/step.h>

namespace optimizer_runs {

/// w after 20 steps on 1/2 w'Aw - b'w + 0.05 (t + 1) / 20 sum(tanh(w)) from (1, -2, 0.5), where
/// A = (1.5 0.25 -0.5; 0.25 1 0.125; -0.5 0.125 2) and b = (0.5, -1, 0.75), as one tensor of 3 elements.
std::vector<double> twenty_steps(const hypertape::optim::Step& step, const hypertape::NamedTensors& h = {},
                                 hypertape::Dtype dtype = hypertape::Dtype::float64);

/// Asserts that these are PyTorch's numbers: torch.optim of 2.15.0 in float64, same problem, same settings.
void expect_torch(const hypertape::optim::Step& step, const std::vector<double>& weights);

}  // namespace optimizer_runs
