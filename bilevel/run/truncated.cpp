// Plain training but for the last K steps, which are on the tape.
#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/estimators.h>
#include <hypertape/core/error.h>
#include "autodiff/tape/node.h"
#include "bilevel/run/adjoint.h"

namespace hypertape::bilevel {
namespace {

class TruncatedMethod final : public detail::Method {
 public:
  explicit TruncatedMethod(std::int64_t steps) : steps_(steps) {}
  std::string name() const override { return "truncated"; }
  std::string setting() const override { return std::to_string(steps_) + (steps_ == 1 ? " step" : " steps"); }
  detail::Reach reach() const noexcept override { return detail::Reach::last_steps; }
  std::int64_t first_step(std::int64_t steps) const noexcept override {
    return std::max<std::int64_t>(0, steps - steps_);
  }
  optim::State solve(const detail::RunPointer& run) const override {
    const std::int64_t first = first_step(run->steps());
    const TensorList& hyper = run->hyper().tensors();
    optim::State state = run->initial_state();
    if (first > 0) {
      TensorList plain;
      for (const Tensor& each : hyper) plain.push_back(stop_gradient(each));
      state = detail::train_plainly(*run, std::move(state), plain, 0, first);
    }
    // Rows of the recorded steps only.
    TensorList tail = hyper;
    for (std::size_t i = 0; i < tail.size(); ++i)
      if (run->is_per_step(i)) tail[i] = slice(hyper[i], 0, first, run->steps());
    const detail::Run::Rows rows = run->rows(tail);
    for (std::int64_t t = first; t < run->steps(); ++t) {
      NamedTensors h_t = run->at_step(tail, rows, t - first);
      state = run->advance(std::move(state), h_t, t, true);
    }
    for (const Tensor& w : state.parameters) {
      if (!hypertape::detail::links_of(w).any()) continue;
      run->counters().hessian_vector_products += run->steps() - first;
      break;
    }
    return state;
  }
  void judge(const Problem& problem, const detail::Counters&, Hypergradient& result) const override {
    if (result.status != ResultStatus::exact || first_step(problem.steps) == 0) return;
    result.status = ResultStatus::approximate;
    result.message = "what steps before the last " + std::to_string(steps_) + " contributed is left out";
  }

 private:
  std::int64_t steps_;
};

}  // namespace

Truncated::operator Estimator() const {
  if (steps < 1) fail("truncated", "steps is ", steps, "; at least 1 is needed");
  return Estimator(std::make_shared<TruncatedMethod>(steps));
}

}  // namespace hypertape::bilevel
