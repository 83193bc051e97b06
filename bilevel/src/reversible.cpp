// Training in fixed point, undone exactly step by step. (Maclaurin, Duvenaud and Adams 2015, algorithms 2 and
// 3; the position update uses the new velocity, which the printed algorithm 1 has wrong.)
#include "adjoint.h"
#include "backend.h"
#include "fixed_point.h"
#include "hypertape/autodiff/derivatives.h"
#include "hypertape/autodiff/ops.h"
#include "hypertape/bilevel/estimators.h"
#include "hypertape/core/error.h"

namespace hypertape::bilevel {
namespace {

using hypertape::detail::DigitBuffer;
using hypertape::detail::MomentumSegment;
using hypertape::detail::StepFault;

std::string_view text_of(StepFault fault) {
  return fault == StepFault::non_finite ? "a gradient is infinite or NaN"
                                        : "a weight, velocity or move left the fixed-point range of +-1024";
}

// Training in fixed point, at any step, forward and back. T is the parameters' element type.
template <class T>
class FixedRun {
 public:
  FixedRun(detail::RunPointer run, const TensorList& plain)
      : run_(std::move(run)),
        shapes_(run_->initial().shapes()),
        size_(element_count(shapes_)),
        w_(hypertape::detail::make_tensor({size_}, Dtype::int64)),
        v_(hypertape::detail::make_tensor({size_}, Dtype::int64)),
        digits_(static_cast<std::size_t>(size_)) {
    const optim::State start = detail::split(plain, shapes_.size(), shapes_.size());
    hyper_.assign(plain.begin() + static_cast<std::ptrdiff_t>(2 * shapes_.size()), plain.end());
    rows_ = run_->rows(hyper_);
    hypertape::detail::to_fixed<T>(flatten(start.parameters).data<T>(), words(w_));
    hypertape::detail::to_fixed<T>(flatten(start.slots).data<T>(), words(v_));
    hashes_.reserve(static_cast<std::size_t>(run_->steps()) + 1);
    hashes_.push_back(hash());
  }

  void train(bool report) {
    for (; step_ < run_->steps(); ++step_) {
      const Executed at = executed(step_);
      const TensorList gradient = run_->gradient(floats(w_), at.h, step_, report);
      const StepFault fault = hypertape::detail::momentum_forward<T>(
          digits_, at.numerator, momentum().dampened, segments(at, gradient));
      if (fault != StepFault::none) throw TrainingDiverged(step_, std::string(text_of(fault)));
      // Once only: a later run must reproduce what the first one saw.
      if (hashes_.size() == static_cast<std::size_t>(step_) + 1)
        hashes_.push_back(hash());
      else
        require_replay(step_ + 1);
    }
  }

  TensorList pull(const TensorList& cotangents) {
    train(false);  // does nothing unless an earlier pullback has gone back to the start
    detail::HyperCotangent totals(*run_, hyper_);
    optim::State bar = detail::split(cotangents, shapes_.size(), shapes_.size());
    while (step_ > 0) {
      const std::int64_t t = --step_;
      const Executed at = executed(t);
      hypertape::detail::momentum_reverse_weights<T>(segments(at, {}));
      optim::State state{floats(w_), {}};
      detail::DualGradient dual = detail::dual_gradient(*run_, state.parameters, at.h, t,
                                                        detail::gradient_cotangent(*run_, bar, at.h));
      const StepFault fault = hypertape::detail::momentum_reverse_velocities<T>(
          digits_, at.numerator, momentum().dampened, segments(at, dual.gradient));
      if (fault != StepFault::none) fail_replay(t, text_of(fault));
      require_replay(t);
      state.slots = floats(v_);
      detail::pull_step(*run_, state, at.h, t, std::move(dual), bar, totals);
    }
    if (!digits_.empty()) fail_replay(0, "the digit buffer is not empty at the start");
    return detail::node_gradients(bar, totals);
  }

  TensorList state() const {
    TensorList all = floats(w_);
    for (Tensor& v : floats(v_)) all.push_back(std::move(v));
    return all;
  }

 private:
  // The hyperparameters of a step as executed: the momentum is numerator / 2^16 everywhere.
  struct Executed {
    NamedTensors h;
    std::uint32_t numerator;
    std::vector<double> rates;
  };

  static std::int64_t element_count(const std::vector<Shape>& shapes) {
    std::int64_t size = 0;
    for (const Shape& shape : shapes) size += shape.size();
    return size;
  }
  static std::span<std::int64_t> words(const Tensor& tensor) {
    return {reinterpret_cast<std::int64_t*>(tensor.header()->data), static_cast<std::size_t>(tensor.size())};
  }
  const optim::ReversibleMomentum& momentum() const { return *run_->problem().step.reversible; }

  Executed executed(std::int64_t t) const {
    const NamedTensors h = run_->at_step(hyper_, rows_, t);
    Executed at;
    at.numerator = hypertape::detail::momentum_numerator(momentum().momentum(h));
    at.h = momentum().with_momentum(h, hypertape::detail::effective_momentum(at.numerator));
    at.rates = momentum().rates(h);
    if (at.rates.size() != 1 && at.rates.size() != shapes_.size())
      fail("reversible", at.rates.size(), " rates given for ", shapes_.size(), " parameter tensors");
    return at;
  }

  // Views of one fresh flat tensor: they are saved by derivatives, so they may not be overwritten later.
  TensorList floats(const Tensor& fixed) const {
    const Tensor flat = hypertape::detail::make_tensor({size_}, dtype_of<T>);
    hypertape::detail::from_fixed<T>(
        words(fixed), {reinterpret_cast<T*>(flat.header()->data), static_cast<std::size_t>(size_)});
    return unflatten(flat, shapes_);
  }

  std::span<const MomentumSegment<T>> segments(const Executed& at, const TensorList& gradient) {
    segments_.clear();
    contiguous_.clear();
    std::size_t offset = 0;
    for (std::size_t i = 0; i < shapes_.size(); ++i) {
      const auto size = static_cast<std::size_t>(shapes_[i].size());
      MomentumSegment<T> segment{words(w_).subspan(offset, size),
                                 words(v_).subspan(offset, size),
                                 {},
                                 at.rates[at.rates.size() == 1 ? 0 : i]};
      if (!gradient.empty()) {
        contiguous_.push_back(hypertape::detail::make_contiguous(gradient[i]));
        segment.gradient = contiguous_.back().template data<T>();
      }
      segments_.push_back(segment);
      offset += size;
    }
    return segments_;
  }

  std::uint64_t hash() const {
    return hypertape::detail::hash_fixed(words(w_)) * 31 + hypertape::detail::hash_fixed(words(v_));
  }
  void require_replay(std::int64_t t) const {
    if (hash() != hashes_[static_cast<std::size_t>(t)]) fail_replay(t, "weights or velocities differ");
  }
  [[noreturn]] static void fail_replay(std::int64_t t, std::string_view what) {
    fail("reversible", "step ", t, " did not replay: ", what,
         "; the training loss must depend on its arguments alone, and must not be changed between the runs");
  }

  detail::RunPointer run_;
  std::vector<Shape> shapes_;
  std::int64_t size_;
  Tensor w_, v_;  // int64, 52 fraction bits
  DigitBuffer digits_;
  TensorList hyper_;
  detail::Run::Rows rows_;
  std::int64_t step_ = 0;
  std::vector<std::uint64_t> hashes_;  // of the state before each step
  std::vector<MomentumSegment<T>> segments_;
  TensorList contiguous_;
};

void check(const detail::Run& run) {
  const optim::Step& step = run.problem().step;
  if (!step.reversible || !step.gradient_cotangent)
    fail("reversible", "the problem's step '", step.name,
         "' has no reversible_step (an exact inverse); use sgd, or another method");
  const TensorList& parameters = run.initial_state().parameters;
  if (run.initial_state().slots.size() != parameters.size())
    fail("reversible", "needs one velocity per parameter tensor, but there are ",
         run.initial_state().slots.size(), " slots for ", parameters.size(), " parameters");
  for (const Tensor& p : parameters)
    if (p.dtype() != parameters.front().dtype())
      fail("reversible", "parameters of different dtypes: ", parameters.front().dtype(), " and ", p.dtype());
}

class ReversibleMethod final : public detail::Method {
 public:
  std::string name() const override { return "reversible"; }
  optim::State solve(const detail::RunPointer& run) const override {
    check(*run);
    const bool single = run->initial_state().parameters.front().dtype() == Dtype::float32;
    const TensorList outputs =
        custom_vjp("reversible", detail::node_inputs(*run), [&](const TensorList& plain) {
          return single ? forward<float>(run, plain) : forward<double>(run, plain);
        });
    return detail::split(outputs, run->initial_state().parameters.size(), run->initial_state().slots.size());
  }

 private:
  template <class T>
  static CustomVjp forward(const detail::RunPointer& run, const TensorList& plain) {
    auto fixed = std::make_shared<FixedRun<T>>(run, plain);
    fixed->train(true);
    return {fixed->state(), [fixed](const TensorList& cotangents) { return fixed->pull(cotangents); }};
  }
};

}  // namespace

Reversible::operator Estimator() const { return Estimator(std::make_shared<ReversibleMethod>()); }

}  // namespace hypertape::bilevel
