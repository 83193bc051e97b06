// Training in fixed point, undone exactly step by step. (Maclaurin, Duvenaud and Adams 2015, algorithms 2 and
// 3; the position update uses the new velocity, which the printed algorithm 1 has wrong.)
#include "adjoint.h"
#include "backend.h"
#include "hypertape/autodiff/derivatives.h"
#include "hypertape/autodiff/ops.h"
#include "hypertape/bilevel/estimators.h"
#include "hypertape/core/error.h"

namespace hypertape::bilevel {
namespace {

using hypertape::detail::DigitBuffer;
using hypertape::detail::MomentumViews;
using hypertape::detail::StepFault;
using hypertape::detail::view_of;

std::string_view text_of(StepFault fault) {
  return fault == StepFault::non_finite ? "a gradient is infinite or NaN"
                                        : "a weight, velocity or move left the fixed-point range of +-1024";
}

// Training in fixed point, at any step, forward and back.
class FixedRun {
 public:
  FixedRun(detail::RunPointer run, const TensorList& plain)
      : run_(std::move(run)),
        shapes_(run_->initial().shapes()),
        dtype_(plain.front().dtype()),
        size_(element_count(shapes_)),
        w_(hypertape::detail::make_tensor({size_}, Dtype::int64)),
        v_(hypertape::detail::make_tensor({size_}, Dtype::int64)),
        w_parts_(unflatten(w_, shapes_)),
        v_parts_(unflatten(v_, shapes_)),
        digits_(static_cast<std::size_t>(size_)) {
    const optim::State start = detail::split(plain, shapes_.size(), shapes_.size());
    hyper_.assign(plain.begin() + static_cast<std::ptrdiff_t>(2 * shapes_.size()), plain.end());
    rows_ = run_->rows(hyper_);
    backend().to_fixed(view_of(flatten(start.parameters)), view_of(w_));
    backend().to_fixed(view_of(flatten(start.buffers)), view_of(v_));
    hashes_.reserve(static_cast<std::size_t>(run_->steps()) + 1);
    hashes_.push_back(hash());
  }

  void train(bool report) {
    for (; step_ < run_->steps(); ++step_) {
      const Executed at = executed(step_);
      const TensorList gradient = run_->gradient(floats(w_), at.h, step_, report);
      const StepFault fault =
          backend().momentum_forward(digits_, at.numerator, momentum().dampened, views(at, gradient));
      if (fault != StepFault::none) throw TrainingDiverged(step_, std::string(text_of(fault)));
      // Once only: a later run must reproduce what the first one saw.
      if (hashes_.size() == static_cast<std::size_t>(step_) + 1)
        hashes_.push_back(hash());
      else
        require_replay(step_ + 1, step_);
    }
  }

  TensorList pull(const TensorList& cotangents) {
    train(false);  // does nothing unless an earlier pullback has gone back to the start
    detail::HyperCotangent totals(*run_, hyper_);
    optim::State bar = detail::split(cotangents, shapes_.size(), shapes_.size());
    while (step_ > 0) {
      const std::int64_t t = --step_;
      const Executed at = executed(t);
      backend().momentum_reverse_weights(views(at, {}));
      optim::State state{floats(w_), {}};
      detail::DualGradient dual = detail::dual_gradient(*run_, state.parameters, at.h, t,
                                                        detail::gradient_cotangent(*run_, bar, at.h));
      const StepFault fault = backend().momentum_reverse_velocities(
          digits_, at.numerator, momentum().dampened, views(at, dual.gradient));
      if (fault != StepFault::none) fail_replay(t, text_of(fault));
      require_replay(t, t);
      state.buffers = floats(v_);
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
  hypertape::detail::Backend& backend() const { return hypertape::detail::backend_of(w_); }
  const optim::ReversibleMomentum& momentum() const { return *run_->problem().step.reversible; }

  Executed executed(std::int64_t t) const {
    const NamedTensors h = run_->at_step(hyper_, rows_, t);
    Executed at;
    const double wanted = momentum().momentum(h);
    constexpr double least = hypertape::detail::effective_momentum(1);
    if (!(wanted >= least && wanted <= 1.0 - least))
      fail("reversible", "momentum ", wanted, " at step ", t,
           " cannot be reversed: it must be from 2^-16 to 1 - 2^-16; learn it as a logit, or use another "
           "method");
    at.numerator = hypertape::detail::momentum_numerator(wanted);
    at.h = momentum().with_momentum(h, hypertape::detail::effective_momentum(at.numerator));
    at.rates = momentum().rates(h);
    if (at.rates.size() != 1 && at.rates.size() != shapes_.size())
      fail("reversible", at.rates.size(), " rates given for ", shapes_.size(), " parameter tensors");
    return at;
  }

  // Views of one fresh flat tensor: they are saved by derivatives, so they may not be overwritten later.
  TensorList floats(const Tensor& fixed) const {
    const Tensor flat = hypertape::detail::make_tensor({size_}, dtype_);
    backend().from_fixed(view_of(fixed), view_of(flat));
    return unflatten(flat, shapes_);
  }

  // On the way back to the weights no gradient is read; its dtype still selects the kernel.
  std::span<const MomentumViews> views(const Executed& at, const TensorList& gradient) {
    views_.clear();
    contiguous_.clear();
    for (std::size_t i = 0; i < shapes_.size(); ++i) {
      MomentumViews part{
          view_of(w_parts_[i]), view_of(v_parts_[i]), {}, at.rates[at.rates.size() == 1 ? 0 : i]};
      part.gradient.dtype = dtype_;
      if (!gradient.empty()) {
        contiguous_.push_back(hypertape::detail::make_contiguous(gradient[i]));
        part.gradient = view_of(contiguous_.back());
      }
      views_.push_back(part);
    }
    return views_;
  }

  std::uint64_t hash() const {
    return backend().hash_fixed(view_of(w_)) * 31 + backend().hash_fixed(view_of(v_));
  }
  // Compares the state with that before step `at`, which was reached by running or undoing `step`.
  void require_replay(std::int64_t at, std::int64_t step) const {
    if (hash() != hashes_[static_cast<std::size_t>(at)]) fail_replay(step, "weights or velocities differ");
  }
  [[noreturn]] static void fail_replay(std::int64_t t, std::string_view what) {
    fail("reversible", "step ", t, " did not replay: ", what,
         "; the training loss must depend on its arguments alone, and must not be changed between the runs");
  }

  detail::RunPointer run_;
  std::vector<Shape> shapes_;
  Dtype dtype_;
  std::int64_t size_;
  Tensor w_, v_;  // int64, 52 fraction bits
  TensorList w_parts_, v_parts_;
  DigitBuffer digits_;
  TensorList hyper_;
  detail::Run::Rows rows_;
  std::int64_t step_ = 0;
  std::vector<std::uint64_t> hashes_;  // of the state before each step
  std::vector<MomentumViews> views_;
  TensorList contiguous_;
};

void check(const detail::Run& run) {
  const optim::Step& step = run.problem().step;
  if (!step.reversible || !step.gradient_cotangent)
    fail("reversible", "the problem's step '", step.name,
         "' has no exact inverse (no reversible_step: its member `reversible` is empty); use sgd with plain "
         "or "
         "dampened momentum, or another method");
  const TensorList& parameters = run.initial_state().parameters;
  if (run.initial_state().buffers.size() != parameters.size())
    fail("reversible", "needs one velocity per parameter tensor, but there are ",
         run.initial_state().buffers.size(), " buffers for ", parameters.size(), " parameters");
  for (const Tensor& p : parameters)
    if (p.dtype() != parameters.front().dtype())
      fail("reversible", "parameters of different dtypes: ", parameters.front().dtype(), " and ", p.dtype());
}

class ReversibleMethod final : public detail::Method {
 public:
  std::string name() const override { return "reversible"; }
  optim::State solve(const detail::RunPointer& run) const override {
    check(*run);
    const TensorList outputs =
        custom_vjp("reversible", detail::node_inputs(*run), [&](const TensorList& plain) {
          auto fixed = std::make_shared<FixedRun>(run, plain);
          fixed->train(true);
          return CustomVjp{fixed->state(),
                           [fixed](const TensorList& cotangents) { return fixed->pull(cotangents); }};
        });
    return detail::split(outputs, run->initial_state().parameters.size(),
                         run->initial_state().buffers.size());
  }
};

}  // namespace

Reversible::operator Estimator() const { return Estimator(std::make_shared<ReversibleMethod>()); }

}  // namespace hypertape::bilevel
