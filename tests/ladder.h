// The ladder: what every operation and every composite must pass, in one call.
//
//     expect_derivatives("tanh", [](const TensorList& x) { return TensorList{tanh(x[0])}; }, {x});
//
// Rungs, for f from a list of tensors to a list of tensors, with random u, v, w:
//   1. <u, J v> = <J' u, v>                                        no finite differences, 1e-12
//   2. J v against Ridders extrapolation of f                      1e-8
//   3. H v against extrapolation of the analytic gradient, and the third derivative against extrapolation of
//      the analytic H v                                            1e-7
//   4. five routes to H v and four to the third derivative agree   1e-11
//   5. <u, H v> = <v, H u>                                         1e-12
//   6. values and gradients have the same bits in every mode: plain, recorded, with tangents, inside nested
//      scopes, linearized, re-run inside a pullback, with operands given away, on 1 and 2 threads, twice, of
//      inputs laid out otherwise; and tangents those of jvp, linearized, in a block, and as hvp
//   7. float32 follows float64 to sqrt(n) roundings
// Errors are in units of the condition: |u| |J v| for pairings.
//
// H is that of phi(x) = sum_k <c_k, f_k + 0.3 f_k^2 + 0.05 f_k^3>, so that linear functions have one too.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <hypertape/core/parallel.h>
#include <hypertape/core/tensor.h>

namespace ladder {

using hypertape::Shape;
using hypertape::Tensor;
using hypertape::TensorList;

using Function = std::function<TensorList(const TensorList&)>;

struct Options {
  /// First step of the extrapolation; kinks and the domain's border must be further away.
  double step = 0.05;
  /// Highest order of derivative, 1 to 3.
  int max_order = 3;
  /// Repeat in float32. To be switched off where f closes over float64 tensors.
  bool float32 = true;
  /// f for operands that it may use up: compared bit for bit with f.
  std::function<TensorList(TensorList&&)> given{};
  std::uint64_t seed = 1;
};

/// Inputs of dtype int64 are passed along. Failures are reported under `name`.
void expect_derivatives(const std::string& name, const Function& f, const TensorList& inputs,
                        const Options& options = {});

/// Only the rungs without extrapolation: 1, 4, 5 and 6.
void expect_consistent(const std::string& name, const Function& f, const TensorList& inputs,
                       const Options& options = {});

/// Uniform in [low, high]; elements nearer than `distance` to `kink` are pushed that far away from it.
Tensor sample(const Shape& shape, double low, double high, std::uint64_t seed, double kink = 1e300,
              double distance = 0.2);

/// Same shape, dtype and bits, or both absent.
bool same_bits(const Tensor& a, const Tensor& b);
bool same_bits(const TensorList& a, const TensorList& b);

/// Elements as double, row-major, of a float32 or float64 tensor.
std::vector<double> elements(const Tensor& x);
/// The same elements in another dtype.
Tensor converted(const Tensor& x, hypertape::Dtype dtype);
/// Euclidean norm over all elements, an absent tensor counting as zeros.
double norm(const TensorList& list);
/// sum <a_i, b_i>, an absent tensor counting as zeros.
double pairing(const TensorList& a, const TensorList& b);
/// Largest absolute element of a - b, an absent tensor counting as zeros.
double difference(const TensorList& a, const TensorList& b);

/// d f / dt at 0 by central differences extrapolated to step 0 (Ridders 1982).
double ridders(const std::function<double(double)>& f, double step);

/// Sets the number of threads, at most what the machine has, and restores it.
class Threads {
 public:
  explicit Threads(int count);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

}  // namespace ladder
