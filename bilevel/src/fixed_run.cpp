#include "fixed_run.h"

#include "hypertape/autodiff/derivatives.h"
#include "hypertape/autodiff/ops.h"
#include "hypertape/core/error.h"

namespace hypertape::bilevel::detail {
namespace {

using hypertape::detail::StepFault;
using hypertape::detail::view_of;

std::string_view text_of(StepFault fault) {
  return fault == StepFault::non_finite ? "a gradient is infinite or NaN"
                                        : "a weight, velocity or move left the fixed-point range of +-1024";
}

[[noreturn]] void fail_replay(const Run& run, std::int64_t t, std::string_view what) {
  run.counters().failed_step = t;
  throw NotReplayed("reversible", "step " + std::to_string(t) + " did not replay: " + std::string(what) +
                                      std::string(replay_advice()));
}

std::int64_t element_count(const std::vector<Shape>& shapes) {
  std::int64_t size = 0;
  for (const Shape& shape : shapes) size += shape.size();
  return size;
}

std::uint32_t numerator_of(double momentum, std::int64_t t) {
  constexpr double least = hypertape::detail::effective_momentum(1);
  if (!(momentum >= least && momentum <= 1.0 - least))
    fail("reversible", "momentum ", momentum, " at step ", t,
         " cannot be reversed: it must be from 2^-16 to 1 - 2^-16; learn it as a logit, or use another "
         "method");
  return hypertape::detail::momentum_numerator(momentum);
}

}  // namespace

FixedRun::FixedRun(RunPointer run, const TensorList& plain)
    : run_(std::move(run)),
      shapes_(run_->initial().shapes()),
      dtype_(plain.front().dtype()),
      size_(element_count(shapes_)),
      w_(hypertape::detail::make_tensor({size_}, Dtype::int64)),
      v_(hypertape::detail::make_tensor({size_}, Dtype::int64)),
      w_parts_(unflatten(w_, shapes_)),
      v_parts_(unflatten(v_, shapes_)) {
  const optim::State start = split(plain, shapes_.size(), shapes_.size());
  hyper_.assign(plain.begin() + static_cast<std::ptrdiff_t>(2 * shapes_.size()), plain.end());
  rows_ = run_->rows(hyper_);
  if (numbers(0).numerators.size() == 1) {
    digits_.emplace_back(static_cast<std::size_t>(size_));
  } else {
    for (const Shape& shape : shapes_) digits_.emplace_back(static_cast<std::size_t>(shape.size()));
  }
  backend().to_fixed(view_of(flatten(start.parameters)), view_of(w_));
  backend().to_fixed(view_of(flatten(start.buffers)), view_of(v_));
  hashes_.reserve(static_cast<std::size_t>(run_->steps()) + 1);
  hashes_.push_back(hash());
}

void FixedRun::train(bool report) {
  for (; step_ < run_->steps(); ++step_) {
    const Numbers at = numbers(step_);
    const TensorList gradient = run_->gradient(weights(), at.h, step_, report);
    set_views(at, gradient);
    for (std::size_t k = 0; k < digits_.size(); ++k) {
      const StepFault fault =
          backend().momentum_forward(digits_[k], at.numerators[k], is_dampened(), views_of(k));
      if (fault != StepFault::none) diverge(step_, std::string(text_of(fault)), gradient);
    }
    // Once only: a later run must reproduce what the first one saw.
    if (hashes_.size() == static_cast<std::size_t>(step_) + 1)
      hashes_.push_back(hash());
    else
      require_replay(step_ + 1, step_);
  }
}

void FixedRun::undo_weights(const Numbers& at) {
  --step_;
  set_views(at, {});
  backend().momentum_reverse_weights(views_);
}

void FixedRun::undo_velocities(const Numbers& at, const TensorList& gradient) {
  set_views(at, gradient);
  for (std::size_t k = 0; k < digits_.size(); ++k) {
    const StepFault fault =
        backend().momentum_reverse_velocities(digits_[k], at.numerators[k], is_dampened(), views_of(k));
    if (fault != StepFault::none) fail_replay(*run_, step_, text_of(fault));
  }
  require_replay(step_, step_);
}

void FixedRun::require_start() const {
  for (const hypertape::detail::DigitBuffer& each : digits_)
    if (!each.empty()) fail_replay(*run_, 0, "the digit buffer is not empty at the start");
}

std::vector<double> FixedRun::setting(const char* what, const TensorList& given) const {
  if (given.size() != 1 && given.size() != shapes_.size())
    fail("reversible", given.size(), ' ', what, " given for ", shapes_.size(), " parameter tensors");
  std::vector<double> numbers;
  for (const Tensor& each : given) {
    if (each.dtype() != dtype_ || each.rank() != 0)
      fail("reversible", "the step's ", what, " are ", each.dtype(), ' ', each.shape(), " for parameters of ",
           dtype_, "; they must be scalars of that dtype");
    numbers.push_back(each.item());
  }
  return numbers;
}

FixedRun::Numbers FixedRun::numbers(std::int64_t t) const {
  Numbers at;
  at.h = run_->at_step(hyper_, rows_, t);
  const TensorList& parameters = run_->initial_state().parameters;
  at.rates = setting("rates", momentum().rates(parameters, at.h));
  if (at.rates.size() == 1) at.rates.resize(shapes_.size(), at.rates.front());
  for (const double each : setting("momenta", momentum().momenta(parameters, at.h)))
    at.numerators.push_back(numerator_of(each, t));
  if (!digits_.empty() && at.numerators.size() != digits_.size())
    fail("reversible", at.numerators.size(), " momenta given at step ", t, ", but ", digits_.size(),
         " at the first");
  return at;
}

// Views of one fresh flat tensor: they are saved by derivatives, so they may not be overwritten later.
TensorList FixedRun::floats(const Tensor& fixed) const {
  const Tensor flat = hypertape::detail::make_tensor({size_}, dtype_);
  backend().from_fixed(view_of(fixed), view_of(flat));
  return unflatten(flat, shapes_);
}

TensorList FixedRun::state() const { return join({weights(), velocities()}); }

// On the way back to the weights no gradient is read; its dtype still selects the kernel.
void FixedRun::set_views(const Numbers& at, const TensorList& gradient) {
  views_.clear();
  contiguous_.clear();
  for (std::size_t i = 0; i < shapes_.size(); ++i) {
    MomentumViews part{view_of(w_parts_[i]), view_of(v_parts_[i]), {}, at.rates[i]};
    part.gradient.dtype = dtype_;
    if (!gradient.empty()) {
      contiguous_.push_back(hypertape::detail::make_contiguous(gradient[i]));
      part.gradient = view_of(contiguous_.back());
    }
    views_.push_back(part);
  }
}

std::span<const FixedRun::MomentumViews> FixedRun::views_of(std::size_t digits) const {
  const std::span<const MomentumViews> all(views_);
  return digits_.size() == 1 ? all : all.subspan(digits, 1);
}

std::uint64_t FixedRun::hash() const {
  return backend().hash_fixed(view_of(w_)) * 31 + backend().hash_fixed(view_of(v_));
}

// Compares the state with that before step `at`, which was reached by running or undoing `step`.
void FixedRun::require_replay(std::int64_t at, std::int64_t step) const {
  if (hash() != hashes_[static_cast<std::size_t>(at)])
    fail_replay(*run_, step, "weights or velocities differ");
}

}  // namespace hypertape::bilevel::detail
