// Adam over the hyperparameters.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace hypertape {

struct OuterAdamOptions {
  double rate = 0.04;
  double beta1 = 0.9;
  double beta2 = 0.999;
};

/// m <- beta1 m + (1 - beta1) g;  s <- beta2 s + (1 - beta2) g^2, and the move of the k-th step is
///
///     -rate (m / (1 - beta1^k)) / (sqrt(s / (1 - beta2^k)) + 1e-8)
///
/// (Kingma and Ba 2015, algorithm 1.) The moments are open: they are what a resumed run goes on from.
struct OuterAdam {
  explicit OuterAdam(std::size_t size) : first(size), second(size) {}

  /// The move for a gradient of the moments' size; the gradient's squares must be finite.
  std::vector<double> step(std::span<const double> gradient, const OuterAdamOptions& options);

  std::vector<double> first, second;
  std::int64_t steps = 0;
};

}  // namespace hypertape
