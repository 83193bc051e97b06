// States are kept at a few steps; each segment between them is run again on the tape, last segment first.
//
// The bits are those of the whole tape: a segment's sums for shared hyperparameters start from what later
// segments have added up, so every addition happens in the same order.
#include <cmath>

#include "adjoint.h"
#include "hypertape/autodiff/derivatives.h"
#include "hypertape/bilevel/estimators.h"
#include "hypertape/core/error.h"

namespace hypertape::bilevel {
namespace {

struct Kept {
  std::int64_t step;
  optim::State state;
};

// One segment as a function of (state, hyperparameters, rows): inputs in that order, rows grouped by name.
class Segment {
 public:
  Segment(const detail::Run& run, const Kept& kept, std::int64_t end, const TensorList& hyper)
      : run_(run),
        first_(kept.step),
        end_(end),
        parameters_(kept.state.parameters.size()),
        slots_(kept.state.slots.size()),
        hyper_count_(hyper.size()) {
    inputs_ = detail::join(kept.state);
    // A per-step hyperparameter takes part through its rows alone.
    for (std::size_t i = 0; i < hyper.size(); ++i)
      inputs_.push_back(run.is_per_step(i) ? Tensor() : hyper[i]);
    for (std::size_t i = 0; i < hyper.size(); ++i)
      if (run.is_per_step(i))
        for (std::int64_t t = first_; t < end_; ++t) inputs_.push_back(detail::Run::row(hyper[i], t));
  }

  void pull(optim::State& cotangent, detail::HyperCotangent& totals) const {
    TensorList accumulated(inputs_.size());
    for (std::size_t i = 0; i < hyper_count_; ++i)
      if (!run_.is_per_step(i)) accumulated[hyper_offset() + i] = totals.shared(i);
    auto [end_state, pullback] = vjp([this](const TensorList& x) { return run_steps(x); }, inputs_);
    for (std::size_t i = 0; i < hyper_count_; ++i)
      if (!run_.is_per_step(i)) totals.set_shared(i, Tensor());  // the walk now holds the only reference
    run_.counters().hessian_vector_products += end_ - first_;
    TensorList bars = pullback.consume(detail::join(cotangent), std::move(accumulated));
    cotangent = detail::split(bars, parameters_, slots_);
    std::size_t row = hyper_offset() + hyper_count_;
    for (std::size_t i = 0; i < hyper_count_; ++i) {
      if (!run_.is_per_step(i))
        totals.set_shared(i, std::move(bars[hyper_offset() + i]));
      else
        for (std::int64_t t = first_; t < end_; ++t) totals.add(i, t, std::move(bars[row++]));
    }
  }

 private:
  std::size_t hyper_offset() const noexcept { return parameters_ + slots_; }

  TensorList run_steps(const TensorList& x) const {
    const auto hyper_begin = x.begin() + static_cast<std::ptrdiff_t>(hyper_offset());
    const auto hyper_end = hyper_begin + static_cast<std::ptrdiff_t>(hyper_count_);
    const TensorList hyper(hyper_begin, hyper_end);
    detail::Run::Rows rows(hyper_count_);
    auto next = hyper_end;
    for (std::size_t i = 0; i < hyper_count_; ++i) {
      if (!run_.is_per_step(i)) continue;
      rows[i].assign(next, next + (end_ - first_));
      next += end_ - first_;
    }
    optim::State state = detail::split(x, parameters_, slots_);
    for (std::int64_t t = first_; t < end_; ++t)
      state = run_.advance(std::move(state), run_.at_step(hyper, rows, t, first_), t);
    return detail::join(state);
  }

  const detail::Run& run_;
  std::int64_t first_, end_;
  std::size_t parameters_, slots_, hyper_count_;
  TensorList inputs_;
};

class CheckpointedMethod final : public detail::Method {
 public:
  explicit CheckpointedMethod(std::int64_t checkpoints) : checkpoints_(checkpoints) {}
  std::string name() const override { return "checkpointed"; }
  std::string setting() const override {
    if (checkpoints_ == 0) return "sqrt(T) checkpoints";
    return std::to_string(checkpoints_) + (checkpoints_ == 1 ? " checkpoint" : " checkpoints");
  }

  optim::State solve(const detail::RunPointer& run) const override {
    const std::int64_t steps = run->steps();
    const std::int64_t wanted =
        checkpoints_ ? checkpoints_
                     : static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(steps))));
    const std::int64_t count = std::min(wanted, steps);
    const std::size_t parameters = run->initial_state().parameters.size(),
                      slots = run->initial_state().slots.size();
    const auto forward = [&](const TensorList& plain) {
      const TensorList hyper(plain.begin() + static_cast<std::ptrdiff_t>(parameters + slots), plain.end());
      const detail::Run::Rows rows = run->rows(hyper);
      std::vector<Kept> kept;
      optim::State state = detail::split(plain, parameters, slots);
      for (std::int64_t t = 0; t < steps; ++t) {
        // Checkpoint k stands at step k * steps / count.
        const auto k = static_cast<std::int64_t>(kept.size());
        if (k < count && t == k * steps / count) kept.push_back({t, state});
        state = run->advance(std::move(state), run->at_step(hyper, rows, t), t, true);
      }
      return CustomVjp{detail::join(state),
                       [run, kept = std::move(kept), hyper](const TensorList& cotangents) {
                         return pull(*run, kept, hyper, cotangents);
                       }};
    };
    return detail::split(custom_vjp("checkpointed", detail::node_inputs(*run), forward), parameters, slots);
  }

 private:
  static TensorList pull(const detail::Run& run, const std::vector<Kept>& kept, const TensorList& hyper,
                         const TensorList& cotangents) {
    detail::HyperCotangent totals(run, hyper);
    optim::State bar =
        detail::split(cotangents, run.initial_state().parameters.size(), run.initial_state().slots.size());
    std::int64_t end = run.steps();
    for (auto checkpoint = kept.rbegin(); checkpoint != kept.rend(); ++checkpoint) {
      Segment(run, *checkpoint, end, hyper).pull(bar, totals);
      end = checkpoint->step;
    }
    return detail::node_gradients(bar, totals);
  }

  std::int64_t checkpoints_;
};

}  // namespace

Checkpointed::operator Estimator() const {
  if (checkpoints < 0)
    fail("checkpointed", "checkpoints is ", checkpoints, "; 0 stands for the square root of T");
  return Estimator(std::make_shared<CheckpointedMethod>(checkpoints));
}

}  // namespace hypertape::bilevel
