// ctest labels: threads
//
// Derivatives on several threads: graphs that join, and computations that must not notice each other.
#include <doctest/doctest.h>

#include <functional>
#include <optional>
#include <thread>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/memory.h>
#include "ladder.h"

namespace ht = hypertape;
using ht::grad;
using ht::Tensor;
using ht::TensorList;
using ladder::same_bits;
using ladder::sample;

namespace {

void run_all(const std::vector<std::function<void()>>& bodies) {
  std::vector<std::thread> threads;
  for (const auto& body : bodies) threads.emplace_back(body);
  for (std::thread& thread : threads) thread.join();
}

Tensor branch(const Tensor& x, double factor) {
  Tensor y = x * factor;
  for (int i = 0; i < 20; ++i) y = ht::tanh(y) * 1.1;
  return y;
}

// Branches computed on threads of their own, joined on this one.
Tensor joined(const Tensor& x) {
  Tensor a, b;
  run_all({[&, x] { a = branch(x, 0.5); }, [&, x] { b = branch(x, -0.7); }});
  return ht::sum(a * b);
}
Tensor joined_here(const Tensor& x) { return ht::sum(branch(x, 0.5) * branch(x, -0.7)); }

}  // namespace

TEST_CASE("graphs of several threads join: order of numbers stays topological") {
  const Tensor x = sample({50}, -1, 1, 1), v = sample({50}, -1, 1, 2);
  const Tensor value = joined_here(x), g = grad(joined_here, x), hv = ht::hvp(joined_here, x, v);
  for (int repeat = 0; repeat < 20; ++repeat) {
    CHECK(same_bits(joined(x), value));
    // Two paths meet in each place, and a sum of two has one value.
    CHECK(same_bits(grad(joined, x), g));
    CHECK(ladder::difference({ht::hvp(joined, x, v)}, {hv}) <= 1e-13);
    const Tensor twice = grad([&](const Tensor& z) { return ht::dot(grad(joined, z), v); }, x);
    CHECK(ladder::difference({twice}, {hv}) <= 1e-13);
  }
}

TEST_CASE("a graph made on a thread that has ended is differentiated and dropped on another") {
  const Tensor x = sample({50}, -1, 1, 1);
  using Pullback = ht::PullbackOf<Tensor, Tensor>;
  for (int repeat = 0; repeat < 10; ++repeat) {
    std::optional<Pullback> pullback;
    run_all({[&] { pullback.emplace(ht::vjp(joined_here, x).second); }});
    CHECK(same_bits((*pullback)(Tensor::scalar(1.0)), grad(joined_here, x)));
    run_all({[&] { pullback.reset(); }});
  }
}

TEST_CASE("independent derivatives on several threads give the same bits as one after another") {
  const Tensor x = sample({40, 30}, -1, 1, 1),
               labels = ht::Tensor::from(std::vector<std::int64_t>(40, 3), {40});
  const TensorList w{sample({30, 20}, -1, 1, 2), sample({20, 10}, -1, 1, 3)};
  const TensorList v{sample({30, 20}, -1, 1, 4), sample({20, 10}, -1, 1, 5)};
  const auto loss = [&](const TensorList& z) {
    return ht::softmax_cross_entropy(ht::matmul(ht::tanh(ht::matmul(x, z[0])), z[1]), labels);
  };
  const auto everything = [&] {
    TensorList all = grad(loss, w);
    for (Tensor& t : ht::hvp(loss, w, v)) all.push_back(std::move(t));
    const auto curved = [&](const TensorList& z) {
      const TensorList g = grad(loss, z);
      return ht::dot(g[0], v[0]) + ht::dot(g[1], v[1]);
    };
    for (Tensor& t : grad(curved, w)) all.push_back(std::move(t));
    all.push_back(loss(w));
    return all;
  };
  const TensorList expected = everything();
  constexpr int workers = 4;
  std::vector<std::function<void()>> bodies;
  std::vector<int> failures(workers);
  for (std::size_t k = 0; k < workers; ++k)
    bodies.push_back([&, k] {
      for (int repeat = 0; repeat < 10; ++repeat)
        if (!same_bits(everything(), expected)) ++failures[k];
    });
  run_all(bodies);
  for (const int count : failures) CHECK(count == 0);
}

TEST_CASE("an outer derivative whose function computes inner derivatives on threads") {
  // d/dx sum_k [d/dy (y^3 x) at y = k] = sum_k 3 k^2, each inner derivative on its own thread.
  const auto f = [](const Tensor& x) {
    TensorList parts(4);
    std::vector<std::function<void()>> bodies;
    for (std::size_t k = 0; k < parts.size(); ++k)
      bodies.push_back([&parts, k, x] {
        parts[k] =
            grad([&](const Tensor& y) { return y * y * y * x; }, Tensor::scalar(static_cast<double>(k)));
      });
    run_all(bodies);
    return parts[0] + parts[1] + parts[2] + parts[3];
  };
  for (int repeat = 0; repeat < 20; ++repeat) {
    CHECK(grad(f, Tensor::scalar(2.0)).item() == 3 * (0 + 1 + 4 + 9));
    CHECK(ht::jvp(f, Tensor::scalar(2.0), Tensor::scalar(1.0)).second.item() == 3 * (0 + 1 + 4 + 9));
  }
}

TEST_CASE("memory comes back whichever threads made and dropped it") {
  const Tensor x = sample({50}, -1, 1, 1);
  const auto work = [&] {
    grad(joined, x);
    std::optional<Tensor> result;
    run_all({[&] { result = grad(joined_here, x); }});
  };
  for (int warm = 0; warm < 3; ++warm) work();
  const ht::MemoryStatistics before = ht::memory_statistics();
  for (int i = 0; i < 30; ++i) work();
  const ht::MemoryStatistics after = ht::memory_statistics();
  CHECK(after.live_bytes == before.live_bytes);
  CHECK(after.live_blocks == before.live_blocks);
}
