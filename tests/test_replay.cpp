// What runs again and gives other values than at first: named with its step, never differentiated in silence.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <hypertape/autodiff/derivatives.h>
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

// The loss of `step` is one rounding larger from its second evaluation on.
Case changed_at(const Case& problem, std::int64_t step) {
  Case changed = problem;
  changed.problem.loss = [=, seen = std::make_shared<int>(0), loss = problem.problem.loss](
                             const NamedTensors& w, const NamedTensors& h, const StepContext& context) {
    const Tensor value = loss(w, h, context);
    if (context.step != step || (*seen)++ == 0) return value;
    const bool narrow = value.dtype() == ht::Dtype::float32;
    return value * (1.0 + (narrow ? static_cast<double>(std::numeric_limits<float>::epsilon())
                                  : std::numeric_limits<double>::epsilon()));
  };
  return changed;
}

void expect_not_replayed(const Hypergradient& result, std::int64_t step, const std::string& method) {
  CAPTURE(method);
  CHECK(result.status == ResultStatus::not_replayed);
  CHECK(is_failure(result.status));
  CHECK(result.failed_step == step);
  CHECK(std::isnan(result.value));
  expect_text(result.message, "[" + method + "] the training loss did not replay: ");
  expect_text(result.message, "(at step " + std::to_string(step) + " of 6)");
  expect_text(result.message, "context.key");
  for (const Tensor& gradient : result.gradients.tensors()) CHECK_FALSE(gradient.defined());
  for (const Availability each : result.availability) CHECK(each == Availability::unknown);
}

}  // namespace

TEST_CASE("replay: a step whose loss differs by one rounding is named by every method that runs it again") {
  for (const std::int64_t step : {0, 3, 5}) {
    for (const Rule rule : {Rule::momentum, Rule::tanh_momentum}) {
      const Case problem = Quadratic(6, rule).problem();
      const auto changed = [&] { return changed_at(problem, step); };
      expect_not_replayed(changed().by(Checkpointed{}), step, "checkpointed");
      expect_not_replayed(changed().by(Checkpointed{1, 1}), step, "checkpointed");
      expect_not_replayed(changed().by(Trajectory{}), step, "trajectory");
      expect_not_replayed(changed().by(Forward{}), step, "forward");
      if (rule == Rule::momentum) expect_not_replayed(changed().by(Reversible{}), step, "reversible");
      // They run every step once.
      CHECK(changed().by(Unrolled{}).status == ResultStatus::exact);
      CHECK(ladder::same_bits(changed().by(Unrolled{}).gradients.tensors(),
                              problem.by(Unrolled{}).gradients.tensors()));
      CHECK(changed().by(Truncated{2}).status == ResultStatus::approximate);
    }
  }
}

TEST_CASE("replay: a loss with a counter, a generator or a queue of its own, in both dtypes") {
  for (const ht::Dtype dtype : {ht::Dtype::float32, ht::Dtype::float64}) {
    Case problem = digits({.sizes = {64, 3, 10}, .steps = 4, .batch = 5, .dtype = dtype});
    problem.problem.loss = [loss = problem.problem.loss, calls = std::make_shared<std::uint64_t>(0)](
                               const NamedTensors& w, const NamedTensors& h, const StepContext& context) {
      const Tensor noise =
          ht::random({64, 3}, ht::Distribution::normal, ht::Key{.seed = ++*calls}, w.tensors()[0].dtype());
      return loss(w.with(w.names()[0], w.tensors()[0] + 0.1 * noise), h, context);
    };
    for (const Estimator& method :
         {Estimator(Checkpointed{}), Estimator(Trajectory{}), Estimator(Reversible{})}) {
      CAPTURE(method.name());
      const Hypergradient result = problem.by(method);
      CHECK(result.status == ResultStatus::not_replayed);
      // The last step is the first that runs again; a segment has two.
      CHECK(result.failed_step == (method.name() == "checkpointed" ? 2 : 3));
    }
  }
}

TEST_CASE("replay: solve's pullback throws, as often as it is called") {
  for (const Estimator& method :
       {Estimator(Checkpointed{}), Estimator(Trajectory{}), Estimator(Reversible{})}) {
    CAPTURE(method.name());
    const Case fresh = changed_at(Quadratic(6, Rule::momentum).problem(), 2);
    auto [end, pullback] = ht::vjp(
        [&](const TensorList& h) {
          return solve(fresh.problem, fresh.h.with(h), method).parameters.tensors();
        },
        fresh.h.tensors());
    for (int call = 0; call < 2; ++call) {
      bool threw = false;
      try {
        pullback(end);
      } catch (const ht::NotReplayed& error) {
        threw = true;
        if (call == 0) expect_text(error.what(), "at step 2 of 6");
      }
      CHECK(threw);
    }
  }
}

TEST_CASE("replay: an outer loss that forward mode evaluates once for each direction") {
  Case problem = Quadratic(3, Rule::momentum).problem();
  problem.outer = [outer = problem.outer, calls = std::make_shared<int>(0)](const NamedTensors& w,
                                                                            const NamedTensors& h) {
    return outer(w, h) + 0.125 * (*calls)++;
  };
  const Hypergradient result = problem.by(Forward{});
  CHECK(result.status == ResultStatus::not_replayed);
  CHECK(result.failed_step == -1);
  expect_text(result.message, "the outer loss did not replay: ");
  CHECK(problem.by(Unrolled{}).status == ResultStatus::exact);
}

TEST_CASE("replay: full_loss at the minimum, and nowhere else") {
  const implicit_problems::Known known = implicit_problems::quadratic();
  Case problem = known.problem;
  problem.problem.full_loss = [inner = problem.problem.full_loss, calls = std::make_shared<int>(0)](
                                  const NamedTensors& w, const NamedTensors& h) {
    return inner(w, h) + 1e-9 * (*calls)++;
  };
  for (const Estimator& method : {Estimator(ImplicitCg{}), Estimator(ImplicitNormalCg{}),
                                  Estimator(ImplicitDense{}), Estimator(ImplicitNeumann{.rate = 0.3})}) {
    CAPTURE(method.name());
    const Hypergradient result = problem.by(method);
    CHECK(result.status == ResultStatus::not_replayed);
    CHECK(result.failed_step == -1);
    expect_text(result.message, "[" + method.name() + "] full_loss did not replay: ");
    CHECK(thrown([&] {
            ht::grad([&](const TensorList& h) { return implicit_problems::outer_of(problem, method, h); },
                     problem.h.tensors());
          }).find("full_loss did not replay") != std::string::npos);
  }
  // Differences are taken elsewhere than at the minimum, where the loss may be another.
  CHECK(known.problem.by(Darts{}).status == ResultStatus::approximate);
}

TEST_CASE("checkpoint: a function that does not repeat its values is refused by every derivative") {
  const Tensor x = Tensor::from({0.5, -1.0, 2.0});
  const auto counting = [calls = std::make_shared<int>(0)](const Tensor& at) {
    return ht::checkpoint([calls](const Tensor& y) { return ht::sum(ht::tanh(y)) + 1e-15 * (*calls)++; }, at);
  };
  const auto refused = [](const auto& call) {
    expect_text(thrown(call), "[checkpoint] the function gave other values when it ran again");
    CHECK_THROWS_AS(call(), ht::NotReplayed);
  };
  refused([&] { ht::grad(counting, x); });
  refused([&] { ht::hvp(counting, x, x); });
  refused([&] { ht::linearize(counting, x).second(x); });
  refused([&] { ht::grad([&](const Tensor& y) { return ht::dot(ht::grad(counting, y), y); }, x); });
}

TEST_CASE("checkpoint: captured tensors may change between runs only where no value shows it") {
  const Tensor x = Tensor::from({0.5, -1.0, 2.0});
  for (const ht::Dtype dtype : {ht::Dtype::float32, ht::Dtype::float64}) {
    Tensor captured = Tensor::full({3}, 2.0, dtype);
    const Tensor at = ht::astype(x, dtype);
    const auto f = [&](const Tensor& y) {
      return ht::checkpoint([captured](const Tensor& z) { return ht::sin(z) * captured; }, y);
    };
    auto [value, pullback] = ht::vjp(f, at);
    const Tensor before = pullback(Tensor::ones({3}, dtype));
    captured.assign(Tensor::full({3}, 2.0, dtype));  // the same values
    CHECK(ladder::same_bits({pullback(Tensor::ones({3}, dtype))}, {before}));
    for (std::int64_t place = 0; place < 3; ++place) {  // one element, also behind the last whole word
      std::vector<double> changed(3, 2.0);
      changed[static_cast<std::size_t>(place)] = 2.5;
      captured.assign(ht::astype(Tensor::from(changed, {3}), dtype));
      CHECK_THROWS_AS(pullback(Tensor::ones({3}, dtype)), ht::NotReplayed);
    }
  }
}

TEST_CASE("checkpoint: inside a training loss the step is named, and the status says it") {
  Case problem = Quadratic(6, Rule::momentum).problem();
  problem.problem.loss = [loss = problem.problem.loss, calls = std::make_shared<int>(0)](
                             const NamedTensors& w, const NamedTensors& h, const StepContext& context) {
    TensorList all = w.tensors();
    all.insert(all.end(), h.tensors().begin(), h.tensors().end());
    const auto middle = static_cast<std::ptrdiff_t>(w.size());
    return ht::checkpoint(
               [=](const TensorList& x) {
                 const int call = context.step == 4 ? (*calls)++ : 0;
                 const NamedTensors w_x = w.with({x.begin(), x.begin() + middle});
                 return TensorList{loss(w_x, h.with({x.begin() + middle, x.end()}), context) *
                                   (1.0 + 1e-12 * call)};
               },
               all)
        .front();
  };
  const Hypergradient result = problem.by(Trajectory{});
  CHECK(result.status == ResultStatus::not_replayed);
  CHECK(result.failed_step == 4);
  expect_text(result.message, "[checkpoint] ");
  expect_text(result.message, "(at step 4 of 6)");
}

TEST_CASE("replay: the status has a name, and counts as a failure") {
  CHECK(name_of(ResultStatus::not_replayed) == "not replayed");
  CHECK(is_failure(ResultStatus::diverged));
  for (const ResultStatus status :
       {ResultStatus::exact, ResultStatus::chaotic, ResultStatus::approximate, ResultStatus::converged,
        ResultStatus::not_converged, ResultStatus::negative_curvature, ResultStatus::unstable_series})
    CHECK_FALSE(is_failure(status));
}
