// Which hyperparameters a run reads, where steps are not recorded: no step is overlooked, and no "no path at
// all" where there is one.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/estimators.h>
#include "bilevel_problems.h"
#include "implicit_problems.h"
#include "ladder.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using namespace bilevel_problems;
using namespace ht::bilevel;

using Read = std::function<Tensor(const NamedTensors& w, const NamedTensors& h, const StepContext& context)>;

// Gradient descent on implicit_problems::quadratic with `extra`, which reads the hyperparameter "late", added
// to the training loss.
Case with_late(const Read& extra, std::int64_t steps = 100, const Tensor& late = Tensor::scalar(0.25)) {
  Case problem = implicit_problems::quadratic(1.0, steps).problem;
  problem.h.add("late", late);
  problem.problem.loss = [=, loss = problem.problem.loss](const NamedTensors& w, const NamedTensors& h,
                                                          const StepContext& context) {
    const Tensor value = loss(w, h, context), more = extra(w, h, context);
    return more.defined() ? value + more : value;
  };
  return problem;
}

Tensor pulled(const NamedTensors& w, const NamedTensors& h) {
  return 1e-3 * h["late"] * ht::sum(w.tensors()[0]);
}

std::vector<Estimator> of_the_minimum() {
  return {ImplicitCg{}, ImplicitNormalCg{}, ImplicitDense{}, ImplicitNeumann{.rate = 0.3}, T1T2{}, Darts{}};
}

void expect_late(const Case& problem, Availability cut, Availability at_minimum) {
  const Hypergradient part = problem.by(Truncated{5});
  CHECK(part.availability.back() == cut);
  CHECK(part.gradients["late"].defined() ==
        (cut == Availability::defined || cut == Availability::partly_zero));
  for (const Estimator& method : of_the_minimum()) {
    CAPTURE(method.name());
    const Hypergradient result = problem.by(method);
    CHECK(result.availability.back() == at_minimum);
    CHECK(result.gradients["late"].defined() == (at_minimum == Availability::defined));
  }
}

}  // namespace

TEST_CASE("availability: a hyperparameter that a single step reads is seen at whichever step") {
  for (const std::int64_t step : {0, 1, 37, 93, 94}) {
    CAPTURE(step);
    expect_late(with_late([=](const NamedTensors& w, const NamedTensors& h, const StepContext& context) {
                  return context.step == step ? pulled(w, h) : Tensor();
                }),
                Availability::zero_by_construction, Availability::not_defined);
  }
}

TEST_CASE("availability: nothing reads it, or only the outer loss does") {
  const auto nothing = [](const NamedTensors&, const NamedTensors&, const StepContext&) { return Tensor(); };
  expect_late(with_late(nothing), Availability::unused, Availability::unused);
  Case problem = with_late(nothing);
  problem.outer = [outer = problem.outer](const NamedTensors& w, const NamedTensors& h) {
    return outer(w, h) + ht::square(h["late"]);
  };
  expect_late(problem, Availability::defined, Availability::defined);
}

TEST_CASE("availability: what cut steps contributed is missing where the outer loss reads it too") {
  Case problem = with_late([](const NamedTensors& w, const NamedTensors& h, const StepContext& context) {
    return context.step == 37 ? pulled(w, h) : Tensor();
  });
  problem.outer = [outer = problem.outer](const NamedTensors& w, const NamedTensors& h) {
    return outer(w, h) + ht::square(h["late"]);
  };
  expect_late(problem, Availability::partly_zero, Availability::not_defined);
  CHECK(problem.by(Truncated{5}).gradients["late"].item() == 0.5);
}

TEST_CASE("availability: an update's hyperparameter that only one step reads") {
  Case problem =
      with_late([](const NamedTensors&, const NamedTensors&, const StepContext&) { return Tensor(); });
  // Buffers count the steps.
  const ht::optim::Step plain = problem.problem.step;
  ht::optim::Step& step = problem.problem.step;
  step.reversible.reset();
  step.gradient_cotangent = {};
  step.initial_buffers = [plain](const TensorList& w) {
    TensorList buffers = plain.initial_buffers(w);
    buffers.push_back(Tensor::scalar(0.0));
    return buffers;
  };
  step.update = [plain](ht::optim::State state, const TensorList& g, const NamedTensors& h) {
    const Tensor count = state.buffers.back();
    state.buffers.pop_back();
    ht::optim::State next = plain.update(state, g, h);
    if (count.item() == 37.0) next.parameters[0] = next.parameters[0] + 1e-6 * h["late"];
    next.buffers.push_back(count + 1.0);
    return next;
  };
  // From the start, where the counter is 0, no path is found: it is not known.
  expect_late(problem, Availability::unknown, Availability::unknown);
}

TEST_CASE("availability: a hyperparameter that steps read without a path from it is not called unused") {
  expect_late(with_late([](const NamedTensors&, const NamedTensors& h, const StepContext& context) {
                return context.step == 11 ? 1e-3 * ht::square(h["late"]) : Tensor();
              }),
              Availability::unknown, Availability::unknown);
  // First read by a step in which nothing depends on it, then by one of those spread over the run.
  expect_late(with_late(
                  [](const NamedTensors& w, const NamedTensors& h, const StepContext& context) {
                    const Tensor late = ht::square(h["late"]);
                    return context.step == 50 || context.step == 49 ? 1e-3 * late * ht::sum(w.tensors()[0])
                                                                    : 1e-3 * late;
                  },
                  99),
              Availability::zero_by_construction, Availability::not_defined);
}

TEST_CASE("availability: per-step and prepared hyperparameters, and a state that is one") {
  Case problem =
      with_late([](const NamedTensors& w, const NamedTensors& h,
                   const StepContext& context) { return context.step == 37 ? pulled(w, h) : Tensor(); },
                100, Tensor::full({100}, 0.25));
  problem.problem.per_step.push_back("late");
  problem.problem.prepare = [](const NamedTensors& h) { return h.with("late", ht::exp(h["late"])); };
  expect_late(problem, Availability::zero_by_construction, Availability::not_defined);
}

TEST_CASE("availability: what a solver reads is not unused") {
  Case problem = implicit_problems::logistic().problem;
  problem.h.add("late", Tensor::scalar(0.0));
  problem.problem.solver = [solver = problem.problem.solver](const NamedTensors& w, const NamedTensors& h) {
    const NamedTensors found = solver(w, h);
    return found.with("w", found["w"] + h["late"]);
  };
  CHECK(problem.by(ImplicitCg{}).availability ==
        std::vector<Availability>{Availability::defined, Availability::not_defined});
}

TEST_CASE("availability: an integer has no derivative, which is not the same as being unused") {
  Case problem = with_late(
      [](const NamedTensors& w, const NamedTensors& h, const StepContext&) {
        return 1e-3 * ht::astype(h["late"], ht::Dtype::float64) * ht::sum(w.tensors()[0]);
      },
      20, Tensor::scalar(3.0, ht::Dtype::int64));
  std::vector<Estimator> methods = of_the_minimum();
  for (const Estimator& each :
       {Estimator(Unrolled{}), Estimator(Checkpointed{}), Estimator(Trajectory{}), Estimator(Truncated{5})})
    methods.push_back(each);
  for (const Estimator& method : methods) {
    CAPTURE(method.name());
    const Hypergradient result = problem.by(method);
    CHECK(result.availability.back() == Availability::not_defined);
    CHECK_FALSE(result.gradients["late"].defined());
    CHECK(result.unused().empty());
  }
}

TEST_CASE("availability: looking costs no value its bits, and no gradient more in the run") {
  const auto late = [](const NamedTensors& w, const NamedTensors& h, const StepContext& context) {
    return context.step == 37 ? pulled(w, h) : Tensor();
  };
  const Case problem = with_late(late);
  const Hypergradient part = problem.by(Truncated{5}), whole = problem.by(Unrolled{});
  CHECK(ladder::same_bits(part.parameters.tensors(), whole.parameters.tensors()));
  CHECK(part.cost.gradients == 100);
}
