// What the bilevel interface refuses, what it reports as diverged, and that neither leaves anything behind.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/plan.h>
#include <hypertape/core/error.h>
#include <hypertape/core/memory.h>
#include "bilevel_problems.h"
#include "ladder.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using namespace bilevel_problems;
using namespace ht::bilevel;

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

// Fails if blocks are live at its end that were not at its start.
class NothingLeft {
 public:
  NothingLeft() : before_(ht::memory_statistics()) {}
  ~NothingLeft() {
    const ht::MemoryStatistics after = ht::memory_statistics();
    CHECK(after.live_blocks == before_.live_blocks);
    CHECK(after.live_bytes == before_.live_bytes);
  }
  NothingLeft(const NothingLeft&) = delete;
  NothingLeft& operator=(const NothingLeft&) = delete;

 private:
  ht::MemoryStatistics before_;
};

std::vector<Estimator> all_methods() {
  std::vector<Estimator> methods = reverse_methods();
  methods.push_back(Forward{});
  return methods;
}

// What the call says when it fails, leaving no memory behind.
std::string refusal(const std::function<void()>& f) {
  const NothingLeft check;
  return thrown(f);
}

// Every method refuses the problem after `change`, with an error that contains all of `parts`.
void expect_refused(const std::function<void(Case&)>& change, const std::vector<std::string>& parts) {
  Case problem = Quadratic(5, Rule::momentum).problem();
  change(problem);
  for (const Estimator& method : all_methods()) {
    const std::string text = refusal([&] { problem.by(method); });
    CAPTURE(method.name());
    CAPTURE(text);
    CHECK(text.starts_with("["));
    for (const std::string& part : parts) CHECK(contains(text, part));
  }
}

// A problem whose training loss is `value` from step `step` on.
Case with_loss_at(std::int64_t step, double value) {
  Case problem = Quadratic(8, Rule::momentum).problem();
  problem.problem.loss = [=, loss = problem.problem.loss](const NamedTensors& w, const NamedTensors& h,
                                                          const StepContext& context) {
    const Tensor plain = loss(w, h, context);
    return context.step < step ? plain : plain + Tensor::scalar(value);
  };
  return problem;
}

struct UserError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace

TEST_CASE("bilevel: an incomplete problem is refused, naming what is missing") {
  expect_refused([](Case& c) { c.problem.init = {}; }, {"[hypergradient]", "init"});
  expect_refused([](Case& c) { c.problem.loss = {}; }, {"[hypergradient]", "loss"});
  expect_refused([](Case& c) { c.problem.steps = 0; }, {"[hypergradient]", "steps is 0"});
  expect_refused([](Case& c) { c.problem.steps = -3; }, {"steps is -3"});
  expect_refused([](Case& c) { c.problem.step.update = {}; }, {"[hypergradient]", "step"});
  expect_refused([](Case& c) { c.problem.step.initial_buffers = {}; }, {"[hypergradient]", "step"});
  expect_refused([](Case& c) { c.outer = {}; }, {"[hypergradient]", "outer loss"});
  expect_refused([](Case& c) { c.problem.init = [](const NamedTensors&) { return NamedTensors{}; }; },
                 {"[hypergradient]", "no parameters"});
}

TEST_CASE("bilevel: an error names the function that was called") {
  Case c = Quadratic(5, Rule::momentum).problem();
  c.problem.steps = 0;
  const ht::bilevel::Problem& problem = c.problem;
  const NamedTensors& h = c.h;
  const auto starts = [](const std::string& text, const char* start) {
    CAPTURE(text);
    CHECK(text.starts_with(start));
  };
  starts(refusal([&] { ht::bilevel::train(problem, h); }), "[train] steps is 0");
  starts(refusal([&] { ht::bilevel::solve(problem, h, Forward{}); }), "[solve] steps is 0");
  starts(refusal([&] { ht::bilevel::hypergradient(problem, c.outer, h, Forward{}); }),
         "[hypergradient] steps is 0");
  starts(refusal([&] { ht::bilevel::directional_derivative(problem, c.outer, h, h); }),
         "[directional_derivative] steps is 0");
  starts(refusal([&] { ht::bilevel::plan(problem, c.outer, h); }), "[plan] steps is 0");
}

TEST_CASE("bilevel: train asks the problem's solver") {
  // No loss, no step: designated initialisers, which -Wextra would warn of if a field had none.
  const ht::bilevel::Problem problem{
      .init =
          [](const NamedTensors&) {
            return NamedTensors{{"w", Tensor::zeros({2})}};
          },
      .full_loss = [](const NamedTensors& w,
                      const NamedTensors& h) { return ht::sum(ht::square(w["w"] - h["h"])); },
      .solver = [](const NamedTensors& w, const NamedTensors& h) { return w.with({h["h"] + 0.0}); }};
  const NamedTensors h{{"h", Tensor::from({1.0, 2.0})}};
  const ht::bilevel::Solution found = ht::bilevel::train(problem, h);
  CHECK(found.parameters["w"].to_vector<double>() == std::vector<double>{1.0, 2.0});
  CHECK(found.buffers.empty());
  ht::bilevel::Problem wrong = problem;
  wrong.solver = [](const NamedTensors&, const NamedTensors&) {
    return NamedTensors{{"v", Tensor::zeros({2})}};
  };
  CHECK(contains(refusal([&] { ht::bilevel::train(wrong, h); }), "[train] the problem's solver returned"));
}

TEST_CASE("bilevel: hyperparameters that do not fit the run are refused with name and shape") {
  expect_refused(
      [](Case& c) {
        c.h = c.h.with("rates", Tensor::full({4, 2}, 0.1));
      },
      {"'rates'", "(4, 2)", "5 steps"});
  expect_refused([](Case& c) { c.h = c.h.with("momenta", Tensor::scalar(0.5)); }, {"'momenta'", "5 steps"});
  expect_refused([](Case& c) { c.problem.per_step.push_back("no such name"); }, {"no such name", "momenta"});
  expect_refused([](Case& c) { c.h = c.h.with("start", Tensor()); }, {"'start'", "absent"});
  expect_refused([](Case& c) { c.h = c.h.with("rates", Tensor::full({5, 3, 1}, 0.1)); }, {"[sgd]", "(3, 1)"});
  expect_refused([](Case& c) { c.problem.step = ht::optim::sgd({.rate = "rate", .momentum = 0.5}); },
                 {"rate", "momenta"});
  expect_refused(
      [](Case& c) {
        c.problem.step = ht::optim::sgd({.rate = "rates", .momentum = "momenta", .rate_groups = {0, 5}});
      },
      {"[sgd]", "2 elements", "6 groups"});
}

TEST_CASE("bilevel: a step that returns a state of another form is refused by name") {
  const auto with_update = [](const auto& change) {
    return [=](Case& c) {
      c.problem.step.update = [=, update = c.problem.step.update](
                                  const ht::optim::State& state, const TensorList& g, const NamedTensors& h) {
        ht::optim::State next = update(state, g, h);
        change(next);
        return next;
      };
      c.problem.step.name = "odd";
      c.problem.step.reversible.reset();
    };
  };
  using State = ht::optim::State;
  expect_refused(with_update([](State& s) { s.buffers.pop_back(); }), {"'odd'"});
  expect_refused(with_update([](State& s) { s.parameters[1] = Tensor(); }), {"'odd'"});
  expect_refused(with_update([](State& s) { s.parameters[1] = Tensor::ones({2, 1}); }), {"'odd'"});
}

TEST_CASE("bilevel: losses that are not one floating element are refused with their shape") {
  const auto with_loss = [](const Tensor& value) {
    return [=](Case& c) {
      c.problem.loss = [=](const NamedTensors&, const NamedTensors&, const StepContext&) { return value; };
    };
  };
  expect_refused(with_loss(Tensor::ones({3})), {"one element", "(3)"});
  expect_refused(with_loss(Tensor::ones({0})), {"one element", "(0)"});
  expect_refused(with_loss(Tensor()), {"absent"});
  expect_refused(
      [](Case& c) { c.outer = [](const NamedTensors& w, const NamedTensors&) { return w["first"]; }; },
      {"(3)"});
}

TEST_CASE("bilevel: divergence names the function that was called") {
  const Case c = with_loss_at(5, infinity);
  const std::string what = " the training loss is inf at step 5";
  const auto starts = [](const std::string& text, const std::string& start) {
    CAPTURE(text);
    CHECK(text.starts_with(start));
  };
  starts(refusal([&] { ht::bilevel::train(c.problem, c.h); }), "[train]" + what);
  starts(refusal([&] { ht::bilevel::solve(c.problem, c.h, Unrolled{}); }), "[solve]" + what);
  starts(refusal([&] { ht::bilevel::solve(c.problem, c.h, Reversible{}); }), "[solve]" + what);
  starts(c.by(Unrolled{}).message, "[hypergradient]" + what);
  const auto along = ht::bilevel::directional_derivative(c.problem, c.outer, c.h, c.h);
  starts(along.message, "[directional_derivative]" + what);
  Case outer = Quadratic(3, Rule::momentum).problem();
  outer.outer = [f = outer.outer](const NamedTensors& w, const NamedTensors& h) { return f(w, h) / 0.0; };
  starts(outer.by(Unrolled{}).message, "[hypergradient] the outer loss is not finite");
  starts(outer.by(Forward{}).message, "[hypergradient] the outer loss or its derivative is not finite");
  starts(ht::bilevel::directional_derivative(outer.problem, outer.outer, outer.h, outer.h).message,
         "[directional_derivative] the outer loss or its derivative is not finite");
}

TEST_CASE("bilevel: a non-finite training loss is reported with its step by every method") {
  for (const double bad : {not_a_number, std::copysign(not_a_number, -1.0), infinity, -infinity})
    for (const std::int64_t step : {0, 5, 7}) {
      const Case problem = with_loss_at(step, bad);
      const std::string number = std::isnan(bad) ? "nan" : bad > 0.0 ? "inf" : "-inf";
      for (const Estimator& method : all_methods()) {
        CAPTURE(method.name());
        CAPTURE(step);
        const NothingLeft check;
        const Hypergradient result = problem.by(method);
        CHECK(result.status == ResultStatus::diverged);
        CHECK(result.failed_step == step);
        CHECK(contains(result.message, "at step " + std::to_string(step)));
        CHECK(contains(result.message, "training loss"));
        CHECK(result.message.starts_with("[hypergradient] the training loss is " + number + " at step "));
        CHECK(result.message.rfind("[hypergradient]") == 0);
        CHECK(result.gradients.names() == problem.h.names());
        CHECK(result.availability ==
              std::vector<ht::bilevel::Availability>(problem.h.size(), ht::bilevel::Availability::unknown));
        CHECK(result.cost.seconds > 0.0);
        CHECK(result.cost.gradients == step + 1);
        std::ostringstream text;
        text << result;
        CHECK(contains(text.str(), "diverged"));
        CHECK_FALSE(contains(text.str(), "unused"));
      }
      const NothingLeft check;
      const DirectionalDerivative tangent =
          directional_derivative(problem.problem, problem.outer, problem.h, problem.h);
      CHECK(tangent.status == ResultStatus::diverged);
      CHECK(tangent.failed_step == step);
      try {
        train(problem.problem, problem.h);
        FAIL_CHECK("train did not throw");
      } catch (const TrainingDiverged& error) {
        CHECK(error.step() == step);
      }
      for (const Estimator& method : reverse_methods())
        CHECK_THROWS_AS(solve(problem.problem, problem.h, method), TrainingDiverged);
    }
}

TEST_CASE(
    "bilevel: an outer loss or a hypergradient that is not finite is reported, never returned as exact") {
  Case problem = Quadratic(4, Rule::momentum).problem();
  Case outer = problem;
  outer.outer = [](const NamedTensors& w, const NamedTensors&) {
    return ht::sum(ht::log(ht::square(w["first"]) * 0.0 - 1.0));
  };
  // Finite values of infinite slope: the square root's at zero.
  Case slope = problem;
  slope.h.add("zero", Tensor::scalar(0.0));
  slope.outer = [o = problem.outer](const NamedTensors& w, const NamedTensors& h) {
    return o(w, h) + ht::exp(0.5 * ht::log(h["zero"]));
  };
  for (const Estimator& method : all_methods()) {
    CAPTURE(method.name());
    const NothingLeft check;
    const Hypergradient result = outer.by(method);
    CHECK(result.status == ResultStatus::diverged);
    CHECK(result.failed_step == -1);
    CHECK(std::isnan(result.value));
    CHECK(contains(result.message, "outer loss"));
    CHECK(result.unused().empty());
    const Hypergradient infinite = slope.by(method);
    CHECK(infinite.status == ResultStatus::diverged);
    CHECK_FALSE(infinite.message.empty());
  }
}

TEST_CASE("bilevel: forward mode refuses more hyperparameters than it was allowed, with the count") {
  const Case problem = Quadratic(5, Rule::momentum).problem();  // 3 + 10 + 5 + 5
  CHECK(contains(refusal([&] { problem.by(Forward{22}); }), "23"));
  CHECK(contains(refusal([&] { problem.by(Forward{22}); }), "directional_derivative"));
  CHECK(problem.by(Forward{23}).status == ResultStatus::exact);
  CHECK(contains(refusal([&] { digits({.steps = 400}).by(Forward{}); }), "1000"));
}

TEST_CASE("bilevel: settings and directions that make no sense are refused") {
  const Case problem = Quadratic(5, Rule::momentum).problem();
  CHECK(contains(refusal([] { [[maybe_unused]] const Estimator e = Checkpointed{-1}; }), "[checkpointed]"));
  const auto along = [&](const NamedTensors& direction) {
    return refusal([&] { directional_derivative(problem.problem, problem.outer, problem.h, direction); });
  };
  CHECK(contains(along({{"h", Tensor::ones({3})}}), "[directional_derivative]"));
  CHECK(contains(along({{"rates", problem.h["rates"]},
                        {"h", problem.h["h"]},
                        {"momenta", problem.h["momenta"]},
                        {"start", problem.h["start"]}}),
                 "in their order"));
  CHECK(contains(along(problem.h.with("h", Tensor::ones({4}))), "(4)"));
  CHECK(contains(along(problem.h.with("h", Tensor::ones({3}, ht::Dtype::float32))), "float32"));
  CHECK(along(problem.h.with(TensorList(4))) == "nothing thrown");
  const DirectionalDerivative nowhere =
      directional_derivative(problem.problem, problem.outer, problem.h, problem.h.with(TensorList(4)));
  CHECK(nowhere.derivative == 0.0);
  CHECK(contains(nowhere.message, "zero by construction"));
  CHECK(contains(refusal([&] { directional_derivative(problem.problem, OuterLoss{}, problem.h, problem.h); }),
                 "outer loss"));
}

TEST_CASE("bilevel: an exception of the user's passes through every method and leaves nothing behind") {
  const Case plain = Quadratic(6, Rule::momentum).problem();
  const auto expect_thrown = [](const std::function<Case()>& make) {
    for (const Estimator& method : all_methods()) {
      CAPTURE(method.name());
      const Case problem = make();
      const NothingLeft check;
      CHECK_THROWS_AS(problem.by(method), UserError);
    }
  };
  // At every evaluation of the loss, forward and in replays.
  for (int evaluation = 0; evaluation < 12; ++evaluation) {
    for (const Estimator& method : all_methods()) {
      if (evaluation >= 6 && (method.name() == "unrolled")) continue;
      CAPTURE(method.name());
      CAPTURE(evaluation);
      Case problem = plain;
      auto calls = std::make_shared<int>(0);
      problem.problem.loss = [=, loss = plain.problem.loss](const NamedTensors& w, const NamedTensors& h,
                                                            const StepContext& context) {
        if ((*calls)++ == evaluation) throw UserError("loss");
        return loss(w, h, context);
      };
      const NothingLeft check;
      CHECK_THROWS_AS(problem.by(method), UserError);
    }
  }
  expect_thrown([&] {
    Case problem = plain;
    problem.outer = [](const NamedTensors&, const NamedTensors&) -> Tensor { throw UserError("outer"); };
    return problem;
  });
  expect_thrown([&] {
    Case problem = plain;
    problem.problem.init = [](const NamedTensors&) -> NamedTensors { throw UserError("init"); };
    return problem;
  });
  expect_thrown([&] {
    Case problem = plain;
    problem.problem.prepare = [](const NamedTensors&) -> NamedTensors { throw UserError("prepare"); };
    return problem;
  });
  expect_thrown([&] {
    Case problem = plain;
    problem.problem.on_step = [](std::int64_t step, double) {
      if (step == 4) throw UserError("on_step");
    };
    return problem;
  });
}

TEST_CASE(
    "bilevel: a pullback that failed half-way can be called again or refuses, and leaves nothing behind") {
  const Case plain = Quadratic(6, Rule::momentum).problem();
  for (const Estimator& method : reverse_methods()) {
    if (method.name() == "unrolled") continue;
    CAPTURE(method.name());
    const NothingLeft check;
    auto calls = std::make_shared<int>(0);
    Case problem = plain;
    problem.problem.loss = [=, loss = plain.problem.loss](const NamedTensors& w, const NamedTensors& h,
                                                          const StepContext& context) {
      if ((*calls)++ == 8) throw UserError("loss");
      return loss(w, h, context);
    };
    auto [end, pullback] = ht::vjp(
        [&](const TensorList& h) {
          return solve(problem.problem, problem.h.with(h), method).parameters.tensors();
        },
        problem.h.tensors());
    CHECK_THROWS_AS(pullback(end), UserError);
    try {
      const TensorList again = pullback(end), once_more = pullback(end);
      CHECK(ladder::same_bits(again, once_more));
      CHECK(ladder::norm(again) > 0.0);
    } catch (const ht::Error& error) {
      // Reversible stood between two states.
      CHECK(method.name() == "reversible");
      CHECK(contains(error.what(), "did not replay"));
    }
  }
}

TEST_CASE("bilevel: on_step sees every step of the forward run once, in order") {
  for (const Estimator& method : reverse_methods()) {
    Case problem = Quadratic(6, Rule::momentum).problem();
    std::vector<std::int64_t> steps;
    std::vector<double> losses;
    problem.problem.on_step = [&](std::int64_t step, double loss) {
      steps.push_back(step);
      losses.push_back(loss);
    };
    problem.by(method);
    CHECK(steps == std::vector<std::int64_t>{0, 1, 2, 3, 4, 5});
    CHECK(losses.front() > losses.back());
  }
}

TEST_CASE("bilevel: a result put together by hand is printed, whatever it lacks") {
  Hypergradient result;
  result.gradients = {{"a", Tensor::ones({2})}, {"b", Tensor()}};
  std::ostringstream text;
  text << result;
  CHECK(contains(text.str(), "shape (2)"));
  CHECK(contains(text.str(), "  b  unknown"));
  CHECK(result.unused().empty());
}

TEST_CASE("functions that are not there are refused in words") {
  const TensorList x = {Tensor::ones({2})};
  CHECK(refusal([&] { ht::custom_vjp("mine", x, {}); }) ==
        "[custom_vjp] 'mine' has no function for the forward pass");
  const auto without_pullback = [](const TensorList& at) {
    return ht::sum(ht::custom_vjp("mine", at, [](const TensorList& plain) {
      return ht::CustomVjp{{plain[0] * 2.0}, {}};
    })[0]);
  };
  CHECK(without_pullback(x).item() == 4.0);
  CHECK(refusal([&] { ht::grad(without_pullback, x); }) == "[mine] its forward pass returned no pullback");
}
