// Counts and extents beyond all memory: an Error in words of the library, whatever the standard library would
// have thrown on the way. Views make such extents without memory.
// The address sanitizer ends the process instead of throwing, so this is not run under it:
// ctest labels: slow
#include <doctest/doctest.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/plan.h>
#include <hypertape/core/error.h>
#include <hypertape/core/random.h>
#include <hypertape/nn/layers.h>
#include "bilevel_problems.h"

namespace {

namespace ht = hypertape;
namespace bl = ht::bilevel;
using ht::NamedTensors;
using ht::Tensor;

// What is thrown, of which type, and in which words; "" if nothing is.
void check_refused(const std::string& what, const std::function<void()>& call,
                   const std::string& start = "[") {
  CAPTURE(what);
  std::string text;
  try {
    call();
  } catch (const ht::Error& error) {
    text = error.what();
    CAPTURE(text);
    CHECK(text.starts_with(start));
    return;
  } catch (const std::exception& error) {
    text = error.what();
  }
  CAPTURE(text);
  FAIL_CHECK("no Error");
}

}  // namespace

TEST_CASE("operations refuse counts beyond all memory in their own words") {
  const Tensor zero = Tensor::scalar(0.0), three = Tensor::from({1.0, 2.0, 3.0}),
               none = Tensor::zeros({0, 3});
  const Tensor labels = Tensor::from(std::vector<std::int64_t>{0, 1}, {2});
  for (const std::int64_t n : {std::int64_t{1} << 62, std::numeric_limits<std::int64_t>::max()}) {
    CAPTURE(n);
    const Tensor wide = ht::expand(zero, {n}), empty_rows = ht::expand(zero, {n, 0});
    const std::string no_room =
        "[allocate] the system has no block for " + std::to_string(n) + " elements of ";
    check_refused(
        "to_vector", [&] { wide.to_vector<double>(); }, no_room);
    check_refused(
        "unstack", [&] { ht::unstack(wide); }, no_room);
    check_refused(
        "unstack of nothing", [&] { ht::unstack(empty_rows); }, no_room);
    check_refused(
        "random_permutation", [&] { ht::random_permutation(n, {1}); }, no_room);
    check_refused(
        "split_evenly", [&] { ht::split_evenly(none, n); }, no_room);
    check_refused(
        "sum", [&] { ht::sum(wide); }, "[allocate] the system has no block for ");
    check_refused("zeros", [&] { Tensor::zeros({n}); });
    check_refused("random", [&] { ht::random({n}, ht::Distribution::normal, {1}); });
    check_refused("contiguous", [&] { ht::contiguous(wide); });
    check_refused("one_hot", [&] { ht::one_hot(labels, n); });
    check_refused("scatter_labels", [&] { ht::scatter_labels(Tensor::ones({2}), labels, n); });
    check_refused("repeat", [&] { ht::repeat(three, n, 0); });
    check_refused("tile", [&] { ht::tile(three, {n}); });
    check_refused("pad", [&] { ht::pad(three, 0, 0, n); });
    check_refused("diag", [&] { ht::diag(three, n); });
    check_refused("stack", [&] { ht::stack({Tensor(), Tensor()}, ht::Shape{n}, ht::Dtype::float64); });
    check_refused("scatter_add", [&] { ht::scatter_add(ht::Shape{n}, 0, labels, Tensor::ones({2})); });
    check_refused("concatenate", [&] { ht::concatenate({wide, wide}); });
    check_refused("flatten", [&] { ht::flatten({wide, wide}); });
    check_refused("unflatten", [&] { ht::unflatten(three, {ht::Shape{n}, ht::Shape{n}}); });
    check_refused("add", [&] { ht::expand(zero, {n, 1}) + ht::expand(zero, {1, n}); });
    check_refused("matmul", [&] { ht::matmul(ht::expand(zero, {n, 1}), ht::expand(zero, {1, n})); });
    check_refused("from", [&] { Tensor::from({1.0}, ht::Shape{n}); });
    check_refused("Mlp", [&] { ht::nn::Mlp({3, n}, ht::nn::Activation::tanh).standard_normal({1}); });
  }
}

TEST_CASE("runs refuse counts beyond all memory in their own words") {
  bilevel_problems::Case problem = bilevel_problems::Quadratic(4, bilevel_problems::Rule::momentum).problem();
  std::vector<bl::Estimator> methods = bilevel_problems::reverse_methods();
  methods.insert(methods.end(), {bl::Checkpointed{}, bl::Checkpointed{5}, bl::Truncated{2}, bl::Forward{}});
  for (const std::int64_t steps :
       {(std::int64_t{1} << 40) + 1, std::int64_t{1} << 62, std::numeric_limits<std::int64_t>::max()}) {
    problem.problem.steps = steps;
    const std::string refusal = "steps is " + std::to_string(steps) + "; more than 2^40";
    for (const bl::Estimator& method : methods)
      check_refused(
          method.name(), [&] { problem.by(method); }, "[hypergradient] " + refusal);
    check_refused(
        "train", [&] { bl::train(problem.problem, problem.h); }, "[train] " + refusal);
    check_refused(
        "plan", [&] { bl::Planner(problem.problem, problem.outer, problem.h).plan({}); },
        "[plan] " + refusal);
  }
  problem.problem.steps = 4;
  problem.h = NamedTensors{{"h", ht::expand(Tensor::scalar(0.0), {std::int64_t{1} << 62})}};
  problem.problem.per_step = {};
  problem.problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::ones({2})}}; };
  problem.problem.loss = [](const NamedTensors& w, const NamedTensors&, const bl::StepContext&) {
    return ht::sum(ht::square(w["w"]));
  };
  problem.problem.prepare = {};
  problem.problem.step = ht::optim::sgd();
  check_refused(
      "forward", [&] { problem.by(bl::Forward{std::numeric_limits<std::int64_t>::max()}); },
      "[allocate] the system has no block for ");
}
