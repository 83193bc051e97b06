// ctest labels: slow
//
// 10,000 steps of reversible training on the digits.
#include <doctest/doctest.h>

#include "bilevel_problems.h"
#include "integer_run.h"
#include "ladder.h"

namespace {

using namespace bilevel_problems;
using hypertape::bilevel::Hypergradient;
using hypertape::bilevel::Reversible;

}  // namespace

TEST_CASE(
    "reversible: 10,000 steps return bit for bit on 1 and 2 threads, digits within 10 % of the entropy") {
  const Case problem = digits({.sizes = {64, 257, 10}, .steps = 10000, .batch = 10, .rate = 0.05});
  std::vector<std::int64_t> end;
  for (const int threads : {1, 2}) {
    const ladder::Threads scope(threads);
    integer_run::Stepwise run(problem);
    const std::vector<std::int64_t> w = run.w, v = run.v;
    double worst = 0.0;
    for (int t = 0; t < 10000; ++t) {
      run.forward();
      if (run.digits.entropy_bits() > 500.0)
        worst = std::max(worst, run.digits.packed_bits_per_element() / run.digits.entropy_bits());
    }
    CHECK(run.digits.entropy_bits() > 3000.0);
    CHECK(worst < 1.1);
    CHECK(worst > 0.9);
    if (end.empty()) end = run.w;
    CHECK(run.w == end);
    for (int t = 0; t < 10000; ++t) run.backward();
    CHECK(run.w == w);
    CHECK(run.v == v);
    CHECK(run.digits.empty());
  }
}

TEST_CASE("reversible: the method over 10,000 steps has the same bits on 1 and 2 threads") {
  const Case problem = digits({.sizes = {64, 8, 10}, .steps = 10000, .rate = 0.05});
  const auto on = [&](int threads) {
    const ladder::Threads scope(threads);
    return problem.by(Reversible{});
  };
  const Hypergradient one = on(1), two = on(2);
  CHECK(ladder::same_bits(one.gradients.tensors(), two.gradients.tensors()));
  CHECK(ladder::same_bits(one.parameters.tensors(), two.parameters.tensors()));
  CHECK(one.status == hypertape::bilevel::ResultStatus::exact);
  CHECK(ladder::norm(one.gradients.tensors()) > 0.0);
}
