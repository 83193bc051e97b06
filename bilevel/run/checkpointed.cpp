// States are kept at a few steps; each segment between them is run again on the tape, last segment first.
//
// The bits are those of the whole tape: a segment's sums for shared hyperparameters start from what later
// segments have added up, so every addition happens in the same order.
#include <memory>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/bilevel/estimators.h>
#include <hypertape/core/error.h>
#include "bilevel/run/adjoint.h"
#include "bilevel/run/checkpoint_schedule.h"

namespace hypertape::bilevel {
namespace {

// One segment as a function of (state, hyperparameters, rows): inputs in that order, rows grouped by name.
class Segment {
 public:
  Segment(const detail::Run& run, std::int64_t first, const optim::State& state, std::int64_t end,
          const TensorList& hyper)
      : run_(run),
        first_(first),
        end_(end),
        parameters_(state.parameters.size()),
        buffers_(state.buffers.size()),
        hyper_count_(hyper.size()) {
    inputs_ = detail::join(state);
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
    cotangent = detail::split(bars, parameters_, buffers_);
    std::size_t row = hyper_offset() + hyper_count_;
    for (std::size_t i = 0; i < hyper_count_; ++i) {
      if (!run_.is_per_step(i))
        totals.set_shared(i, std::move(bars[hyper_offset() + i]));
      else
        for (std::int64_t t = first_; t < end_; ++t) totals.add(i, t, std::move(bars[row++]));
    }
  }

 private:
  std::size_t hyper_offset() const noexcept { return parameters_ + buffers_; }

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
    optim::State state = detail::split(x, parameters_, buffers_);
    for (std::int64_t t = first_; t < end_; ++t)
      state = run_.advance(std::move(state), run_.at_step(hyper, rows, t, first_), t);
    return detail::join(state);
  }

  const detail::Run& run_;
  std::int64_t first_, end_;
  std::size_t parameters_, buffers_, hyper_count_;
  TensorList inputs_;
};

// Kept states, the last one on top, and the way back from the end of the run. Shared with the pullback.
class Replay {
 public:
  Replay(detail::RunPointer run, const detail::CheckpointSchedule& schedule, TensorList hyper)
      : run_(std::move(run)), schedule_(schedule), hyper_(std::move(hyper)), rows_(run_->rows(hyper_)) {}

  /// Runs all steps from `state`, keeping states on the way; returns the last.
  optim::State train(optim::State state, bool report) {
    kept_.clear();
    std::int64_t step = 0;
    for (const std::int64_t block : schedule_.kept_blocks()) {
      state = advanced(std::move(state), step, schedule_.start_of(block), report);
      step = schedule_.start_of(block);
      kept_.push_back({block, state});
    }
    return advanced(std::move(state), step, run_->steps(), report);
  }

  TensorList pull(const TensorList& cotangents) {
    detail::HyperCotangent totals(*run_, hyper_);
    optim::State bar = detail::split(cotangents, run_->initial_state().parameters.size(),
                                     run_->initial_state().buffers.size());
    // With a state for every block all of them may stay for another call.
    if (schedule_.repeated_steps() == 0) {
      pull_blocks(std::vector<Kept>(kept_), bar, totals);
      return detail::node_gradients(bar, totals);
    }
    const Kept start = kept_.front();
    if (!is_complete_) train(start.state, false);
    is_complete_ = false;
    std::vector<Kept> kept = std::move(kept_);
    kept_ = {start};
    pull_blocks(std::move(kept), bar, totals);
    return detail::node_gradients(bar, totals);
  }

 private:
  struct Kept {
    std::int64_t block;
    optim::State state;
  };

  void pull_blocks(std::vector<Kept> kept, optim::State& bar, detail::HyperCotangent& totals) const {
    schedule_.go_back(
        [&](std::int64_t block) {
          optim::State state = between(kept.back(), block);
          kept.push_back({block, std::move(state)});
        },
        [&](std::int64_t block, bool is_kept) {
          Segment(*run_, schedule_.start_of(block), is_kept ? kept.back().state : between(kept.back(), block),
                  schedule_.start_of(block + 1), hyper_)
              .pull(bar, totals);
          if (is_kept) kept.pop_back();
        });
  }

  optim::State between(const Kept& from, std::int64_t block) const {
    return advanced(from.state, schedule_.start_of(from.block), schedule_.start_of(block), false);
  }

  optim::State advanced(optim::State state, std::int64_t first, std::int64_t last, bool report) const {
    for (std::int64_t t = first; t < last; ++t)
      state = run_->advance(std::move(state), run_->at_step(hyper_, rows_, t), t, report);
    return state;
  }

  detail::RunPointer run_;
  detail::CheckpointSchedule schedule_;
  TensorList hyper_;
  detail::Run::Rows rows_;
  std::vector<Kept> kept_;
  bool is_complete_ = true;  // all the states that training kept are there
};

class CheckpointedMethod final : public detail::Method {
 public:
  CheckpointedMethod(std::int64_t checkpoints, std::int64_t segment)
      : checkpoints_(checkpoints), segment_(segment) {}
  std::string name() const override { return "checkpointed"; }
  bool repeats_steps() const noexcept override { return true; }
  std::string setting() const override {
    std::string text = checkpoints_ == 0 ? "sqrt(T) checkpoints"
                                         : std::to_string(checkpoints_) +
                                               (checkpoints_ == 1 ? " checkpoint" : " checkpoints");
    if (segment_ > 0) text += ", tapes of " + std::to_string(segment_) + (segment_ == 1 ? " step" : " steps");
    return text;
  }

  optim::State solve(const detail::RunPointer& run) const override {
    const detail::CheckpointSchedule schedule(run->steps(), checkpoints_, segment_);
    const std::size_t parameters = run->initial_state().parameters.size(),
                      buffers = run->initial_state().buffers.size();
    const auto forward = [&](const TensorList& plain) {
      const auto middle = plain.begin() + static_cast<std::ptrdiff_t>(parameters + buffers);
      const auto replay = std::make_shared<Replay>(run, schedule, TensorList(middle, plain.end()));
      const optim::State end = replay->train(detail::split(plain, parameters, buffers), true);
      return CustomVjp{detail::join(end),
                       [replay](const TensorList& cotangents) { return replay->pull(cotangents); }};
    };
    return detail::split(custom_vjp("checkpointed", detail::node_inputs(*run), forward), parameters, buffers);
  }

 private:
  std::int64_t checkpoints_, segment_;
};

}  // namespace

Checkpointed::operator Estimator() const {
  if (checkpoints < 0)
    fail("checkpointed", "checkpoints is ", checkpoints, "; 0 stands for the square root of T");
  if (segment < 0)
    fail("checkpointed", "segment is ", segment, "; 0 stands for T divided by the number of checkpoints");
  return Estimator(std::make_shared<CheckpointedMethod>(checkpoints, segment));
}

}  // namespace hypertape::bilevel
