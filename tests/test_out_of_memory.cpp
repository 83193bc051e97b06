// When memory runs out, at any allocation: an Error, nothing leaked, nothing changed, and the next run works.
#include <doctest/doctest.h>

#include <functional>
#include <string>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/memory.h>
#include "bilevel_problems.h"
#include "core/memory/faults.h"
#include "implicit_problems.h"
#include "ladder.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using ht::Tensor;
using ht::TensorList;
using ht::bilevel::Estimator;
using ht::detail::AllocationFaults;

// Runs `work` with its first allocation failing, then its second, and so on: all of the first `every`, and
// about `samples` of the rest.
void expect_safe(const std::string& name, const std::function<TensorList()>& work, std::int64_t samples = 150,
                 std::int64_t every = 100) {
  CAPTURE(name);
  const ladder::Threads one(1);
  const TensorList expected = work();
  const auto live = [] { return ht::memory_statistics().live_bytes; };
  const auto fails_at = [&](std::int64_t successes) {
    const std::int64_t before = live();
    bool failed = false;
    std::string message;
    {
      const AllocationFaults faults(successes);
      try {
        const TensorList result = work();
        CHECK(ladder::same_bits(result, expected));
      } catch (const ht::Error& error) {
        message = error.what();
      }
      failed = faults.struck();
    }
    CAPTURE(successes);
    CHECK(live() == before);
    // What failed must not have been swallowed on the way.
    CHECK(failed == contains(message, "[allocate] the system has no block"));
    return failed;
  };
  // Bisection for the number of allocations.
  std::int64_t high = 1;
  while (fails_at(high)) high *= 2;
  std::int64_t low = high / 2;
  while (low + 1 < high) (fails_at((low + high) / 2) ? low : high) = (low + high) / 2;
  const std::int64_t total = high;
  CHECK(total > 10);
  for (std::int64_t n = 0; n < std::min(every, total); ++n) CHECK(fails_at(n));
  const std::int64_t stride = std::max<std::int64_t>(1, (total - every) / samples);
  for (std::int64_t n = every; n < total; n += stride) CHECK(fails_at(n));
  CHECK(ladder::same_bits(work(), expected));
}

}  // namespace

TEST_CASE("out of memory: gradients, Hessian products and nested derivatives") {
  const TensorList x = {ladder::sample({5, 4}, -1.0, 1.0, 1), ladder::sample({4, 3}, -1.0, 1.0, 2),
                        ladder::sample({3}, -1.0, 1.0, 3)};
  const Tensor labels = Tensor::from<std::int64_t>({0, 2, 1, 1, 0});
  const auto loss = [&](const TensorList& w) {
    const Tensor hidden = ht::tanh(ht::matmul_add(w[2], w[0], w[1]));
    const TensorList rows = ht::unstack(hidden);
    return ht::softmax_cross_entropy(hidden, labels) + ht::sum(ht::square(ht::stack({rows[1], rows[0]})));
  };
  expect_safe("grad", [&] { return ht::grad(loss, x); });
  expect_safe("hvp", [&] { return ht::hvp(loss, x, x); });
  expect_safe("grad of grad", [&] {
    return ht::grad(
        [&](const TensorList& w) {
          const TensorList g = ht::grad(loss, w);
          return ht::dot(g[0], g[0]) + ht::dot(g[2], w[2]);
        },
        x);
  });
  expect_safe("linearize", [&] {
    auto [y, linear] = ht::linearize([&](const TensorList& w) { return ht::grad(loss, w); }, x);
    return linear(x);
  });
}

TEST_CASE("out of memory: every hypergradient method") {
  const bilevel_problems::Case run =
      bilevel_problems::Quadratic(4, bilevel_problems::Rule::momentum).problem();
  std::vector<Estimator> methods = bilevel_problems::reverse_methods();
  methods.push_back(ht::bilevel::Truncated{2});
  for (const Estimator& method : methods)
    expect_safe(method.name(), [&] { return run.by(method).gradients.tensors(); });
  const implicit_problems::Known convex = implicit_problems::logistic();
  expect_safe("implicit-cg",
              [&] { return convex.problem.by(ht::bilevel::ImplicitCg{}).gradients.tensors(); });
  expect_safe("implicit-cg, second order", [&] {
    return ht::hvp(
        [&](const TensorList& h) {
          const ht::NamedTensors named = convex.problem.h.with(h);
          return convex.problem.outer(
              ht::bilevel::solve(convex.problem.problem, named, ht::bilevel::ImplicitCg{}).parameters, named);
        },
        convex.problem.h.tensors(), convex.problem.h.tensors());
  });
  const implicit_problems::Known minimum = implicit_problems::saddle();
  for (const Estimator& method :
       {Estimator(ht::bilevel::ImplicitNormalCg{}), Estimator(ht::bilevel::ImplicitDense{}),
        Estimator(ht::bilevel::ImplicitNeumann{.terms = 3, .rate = 0.1}), Estimator(ht::bilevel::Darts{})})
    expect_safe(method.name(), [&] { return minimum.problem.by(method).gradients.tensors(); });
}

TEST_CASE("out of memory: assign leaves its target as it was") {
  const Tensor target = Tensor::from({1.0, 2.0, 3.0});
  const Tensor before = ht::contiguous(target) + 0.0;
  const Tensor values = ladder::sample({3}, -1.0, 1.0, 1);
  for (std::int64_t n = 0; n < 3; ++n) {
    const AllocationFaults faults(n);
    try {
      Tensor copy = target;
      copy.assign(values * 2.0);
    } catch (const ht::Error&) {
      CHECK(ladder::elements(target) == std::vector<double>{1.0, 2.0, 3.0});
      continue;
    }
    break;
  }
}

TEST_CASE("out of memory: a step that takes its operands' memory leaves them as they were, or absent") {
  const ladder::Threads one(1);
  const Tensor rate = Tensor::scalar(0.1), momentum = Tensor::scalar(0.9);
  int failures = 0;
  for (std::int64_t successes = 0; successes < 20; ++successes) {
    CAPTURE(successes);
    const auto numbers = [] {
      return TensorList{ladder::sample({64}, -1.0, 1.0, 1), ladder::sample({64}, -1.0, 1.0, 2),
                        ladder::sample({64}, -1.0, 1.0, 3)};
    };
    TensorList operands = numbers();
    const TensorList before = numbers();
    const auto step = [&](const Tensor& r) {
      const AllocationFaults faults(successes);
      const ht::SgdStep next =
          ht::sgd_step(std::move(operands[0]), std::move(operands[1]), std::move(operands[2]), r, momentum);
      return ht::sum(next.weights);
    };
    try {
      ht::grad(step, rate);
      continue;
    } catch (const ht::Error&) {
      ++failures;
    }
    for (std::size_t i = 0; i < operands.size(); ++i)
      CHECK((!operands[i].defined() || ladder::same_bits({operands[i]}, {before[i]})));
  }
  CHECK(failures > 2);
}
