// ctest labels: threads
//
// One program, several threads of its own, each with problems of its own: nobody notices the others.
#include <doctest/doctest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include <hypertape/core/warning.h>
#include "bilevel_problems.h"
#include "implicit_problems.h"
#include "ladder.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using namespace bilevel_problems;
using ht::bilevel::Estimator;
using ht::bilevel::Hypergradient;
using ht::bilevel::ResultStatus;
using ladder::same_bits;

void run_all(const std::vector<std::function<void()>>& bodies) {
  std::vector<std::thread> threads;
  for (const auto& body : bodies) threads.emplace_back(body);
  for (std::thread& thread : threads) thread.join();
}

std::vector<Estimator> every_method() {
  std::vector<Estimator> methods = reverse_methods();
  methods.push_back(ht::bilevel::Forward{});
  return methods;
}

bool same(const Hypergradient& a, const Hypergradient& b) {
  return a.value == b.value && a.status == b.status && a.message == b.message &&
         a.cost.gradients == b.cost.gradients &&
         a.cost.hessian_vector_products == b.cost.hessian_vector_products &&
         same_bits(a.gradients.tensors(), b.gradients.tensors()) &&
         same_bits(a.parameters.tensors(), b.parameters.tensors());
}

}  // namespace

TEST_CASE(
    "hypergradients on several user threads, a method and a problem each, have the bits they have alone") {
  const std::vector<Estimator> methods = every_method();
  // Wide enough that products and elementwise loops are shared out to the library's own threads too.
  const auto problem_of = [](std::size_t k) {
    const auto size = static_cast<std::int64_t>(k);
    return k % 2 == 0 ? Quadratic(20 + size, Rule::momentum).problem()
                      : digits({.sizes = {64, 12, 10}, .steps = 3 + size, .batch = 40});
  };
  // Forward goes through a hyperparameter at a time: it gets the small problem.
  std::vector<Case> problems;
  std::vector<Hypergradient> alone;
  for (std::size_t k = 0; k < methods.size(); ++k) {
    problems.push_back(problem_of(methods[k].name() == "forward" ? 2 * k : k));
    alone.push_back(problems[k].by(methods[k]));
    CHECK(alone[k].status == ResultStatus::exact);
  }
  std::vector<int> failures(methods.size());
  std::vector<std::function<void()>> bodies;
  for (std::size_t k = 0; k < methods.size(); ++k)
    bodies.push_back([&, k] {
      for (int repeat = 0; repeat < 3; ++repeat)
        if (!same(problems[k].by(methods[k]), alone[k])) ++failures[k];
    });
  run_all(bodies);
  for (std::size_t k = 0; k < methods.size(); ++k) {
    CAPTURE(methods[k].name());
    CHECK(failures[k] == 0);
  }
}

TEST_CASE("implicit methods on several user threads, sharing one problem, have the bits they have alone") {
  const Case shared = implicit_problems::quadratic().problem;
  const std::vector<Estimator> methods = {ht::bilevel::ImplicitCg{}, ht::bilevel::ImplicitDense{},
                                          ht::bilevel::ImplicitNeumann{.terms = 10, .rate = 0.1},
                                          ht::bilevel::Truncated{.steps = 5}};
  std::vector<Hypergradient> alone;
  for (const Estimator& method : methods) alone.push_back(shared.by(method));
  std::vector<int> failures(methods.size());
  std::vector<std::function<void()>> bodies;
  for (std::size_t k = 0; k < methods.size(); ++k)
    bodies.push_back([&, k] {
      const Case own = shared;
      for (int repeat = 0; repeat < 2; ++repeat)
        if (!same(own.by(methods[k]), alone[k])) ++failures[k];
    });
  run_all(bodies);
  for (std::size_t k = 0; k < methods.size(); ++k) {
    CAPTURE(methods[k].name());
    CHECK(failures[k] == 0);
  }
}

TEST_CASE("threads share data, hyperparameters and the very problem without copies") {
  const Case shared = digits({.sizes = {64, 6, 10}, .steps = 4, .batch = 20});
  const std::vector<Estimator> methods = reverse_methods();
  std::vector<Hypergradient> alone;
  for (const Estimator& method : methods) alone.push_back(shared.by(method));
  std::vector<int> failures(methods.size());
  std::vector<std::function<void()>> bodies;
  for (std::size_t k = 0; k < methods.size(); ++k)
    bodies.push_back([&, k] {
      const Case own = shared;  // handles of its own to the same tensors
      for (int repeat = 0; repeat < 3; ++repeat)
        if (!same(own.by(methods[k]), alone[k])) ++failures[k];
    });
  run_all(bodies);
  for (const int count : failures) CHECK(count == 0);
}

TEST_CASE("one wrapped tensor serves all threads, and its owner goes with the last of them") {
  auto owner = std::make_shared<std::vector<double>>(6000);
  for (std::size_t i = 0; i < owner->size(); ++i) (*owner)[i] = 1e-3 * static_cast<double>(i) - 3.0;
  const std::weak_ptr<std::vector<double>> watch = owner;
  auto x = std::make_unique<ht::Tensor>(ht::Tensor::wrap(std::span<const double>(*owner), {60, 100}, owner));
  owner.reset();
  const auto f = [](const ht::Tensor& y) { return ht::sum(ht::tanh(ht::matmul(y, y, true))); };
  const ht::Tensor expected = ht::grad(f, *x);
  std::vector<int> failures(4);
  std::vector<std::function<void()>> bodies;
  for (std::size_t k = 0; k < failures.size(); ++k)
    bodies.push_back([&, k, own = *x] {
      for (int repeat = 0; repeat < 5; ++repeat)
        if (!same_bits(ht::grad(f, own), expected)) ++failures[k];
    });
  x.reset();
  CHECK_FALSE(watch.expired());
  run_all(bodies);
  bodies.clear();
  CHECK(watch.expired());
  for (const int count : failures) CHECK(count == 0);
}

TEST_CASE("what one thread does wrong stays with it") {
  const Case good = Quadratic(15, Rule::momentum).problem();
  const Estimator method = ht::bilevel::Trajectory{};
  const Hypergradient alone = good.by(method);
  Case diverging = good;
  diverging.problem.loss = [loss = good.problem.loss](const NamedTensors& w, const NamedTensors& h,
                                                      const ht::bilevel::StepContext& context) {
    return context.step < 7 ? loss(w, h, context) : loss(w, h, context) * 1e300 * 1e300;
  };
  int wrong = 0, unlike = 0, unsaid = 0;
  run_all({[&] {
             for (int repeat = 0; repeat < 10; ++repeat)
               if (!same(good.by(method), alone)) ++wrong;
           },
           [&] {
             for (int repeat = 0; repeat < 10; ++repeat) {
               const Hypergradient result = diverging.by(method);
               if (result.status != ResultStatus::diverged || result.failed_step != 7) ++unlike;
             }
           },
           [&] {
             for (int repeat = 0; repeat < 100; ++repeat)
               if (!contains(thrown([] {
                               ht::matmul(ht::Tensor::ones({2, 3}), ht::Tensor::ones({2, 3}));
                             }),
                             "[matmul]"))
                 ++unsaid;
           },
           [] {
             for (int repeat = 0; repeat < 100; ++repeat) ht::set_warning_sink([](std::string_view) {});
           }});
  ht::set_warning_sink({});
  CHECK(wrong == 0);
  CHECK(unlike == 0);
  CHECK(unsaid == 0);
}
