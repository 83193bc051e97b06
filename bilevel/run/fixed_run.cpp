#include "bilevel/run/fixed_run.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>

namespace hypertape::bilevel::detail {
namespace {

using hypertape::detail::StepFault;
using hypertape::detail::view_of;

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
  if (!(momentum >= least && momentum <= 1.0 - least)) {
    std::ostringstream text = hypertape::detail::text_stream();
    text << "momentum " << momentum << " cannot be reversed: it must be from 2^-16 to 1 - 2^-16; learn it as "
         << "a logit, or use another method";
    throw OutOfRange("reversible", t, text.str());
  }
  return hypertape::detail::momentum_numerator(momentum);
}

constexpr int bits_step = 10, least_bits = 22;
// What fits in so many fraction bits is below this.
double limit_of(int bits) { return std::ldexp(1.0, 62 - bits); }

// NaN if any element is.
double largest_of(const Tensor& x) {
  if (x.size() == 0) return 0.0;
  const double largest = max(abs(x)).item();
  return std::isfinite(largest) && has_non_finite(x) ? std::nan("") : largest;
}

}  // namespace

FixedRun::Integers::Integers(const std::vector<Shape>& of)
    : shapes(of),
      whole(hypertape::detail::make_tensor({element_count(of)}, Dtype::int64)),
      parts(unflatten(whole, of)),
      bits(of.size(), hypertape::detail::fraction_bits) {}

void FixedRun::Integers::set(const TensorList& values) {
  const hypertape::detail::BackendCall backend = hypertape::detail::backend_of(whole);
  for (std::size_t i = 0; i < parts.size(); ++i)
    backend->to_fixed(view_of(hypertape::detail::make_contiguous(values[i])), view_of(parts[i]), bits[i]);
}

// Views of one fresh flat tensor: they are saved by derivatives, so they may not be overwritten later.
TensorList FixedRun::Integers::floats(Dtype dtype) const {
  const hypertape::detail::BackendCall backend = hypertape::detail::backend_of(whole);
  const Tensor flat = hypertape::detail::make_tensor(whole.shape(), dtype);
  TensorList values = unflatten(flat, shapes);
  if (std::all_of(bits.begin(), bits.end(), [&](int each) { return each == bits.front(); })) {
    backend->from_fixed(view_of(whole), view_of(flat), bits.front());
  } else {
    for (std::size_t i = 0; i < parts.size(); ++i)
      backend->from_fixed(view_of(parts[i]), view_of(values[i]), bits[i]);
  }
  return values;
}

FixedRun::FixedRun(RunPointer run, const TensorList& plain)
    : run_(std::move(run)),
      shapes_(run_->initial().shapes()),
      dtype_(plain.front().dtype()),
      start_(split(plain, shapes_.size(), shapes_.size())),
      w_(shapes_),
      v_(shapes_) {
  hyper_.assign(plain.begin() + static_cast<std::ptrdiff_t>(2 * shapes_.size()), plain.end());
  rows_ = run_->rows(hyper_);
  for (std::size_t i = 0; i < shapes_.size(); ++i) {
    fit(w_, i, largest_of(start_.parameters[i]), 1.0, "an initial weight");
    fit(v_, i, largest_of(start_.buffers[i]), 1.0, "an initial velocity");
  }
  begin();
}

void FixedRun::begin() {
  step_ = 0;
  digits_.clear();
  if (numbers(0).numerators.size() == 1) {
    digits_.emplace_back(static_cast<std::size_t>(element_count(shapes_)));
  } else {
    for (const Shape& shape : shapes_) digits_.emplace_back(static_cast<std::size_t>(shape.size()));
  }
  w_.set(start_.parameters);
  v_.set(start_.buffers);
  hashes_ = hypertape::detail::list_of<std::vector<std::uint64_t>>(run_->steps() + 1);
  hashes_.clear();  // their memory stays
  hashes_.push_back(hash());
}

void FixedRun::train(bool report) {
  while (step_ < run_->steps()) {
    const Numbers at = numbers(step_);
    // Every step once, also where the run starts again.
    const bool is_new = step_ >= reported_;
    const TensorList gradient = run_->gradient(weights(), at.h, step_, report && is_new);
    if (is_new) reported_ = step_ + 1;
    set_views(at, gradient);
    const bool seen = hashes_.size() > static_cast<std::size_t>(step_) + 1;
    if (!advance(at)) {
      if (seen) fail_replay(*run_, step_, "a number leaves the fixed-point range");
      widen(at, gradient);
      run_->counters().replay = {};  // the run with fewer bits is another one
      begin();
      continue;
    }
    ++step_;
    // Once only: a later run must reproduce what the first one saw.
    if (seen)
      require_replay(step_, step_ - 1);
    else
      hashes_.push_back(hash());
  }
}

// One step; false, with nothing changed, if it leaves the fixed-point range or has a gradient that is not
// finite.
bool FixedRun::advance(const Numbers& at) {
  for (std::size_t k = 0; k < digits_.size(); ++k) {
    if (backend()->momentum_forward(digits_[k], at.numerators[k], is_dampened(), views_of(k)) ==
        StepFault::none)
      continue;
    while (k-- > 0) {
      backend()->momentum_reverse_weights(views_of(k));
      backend()->momentum_reverse_velocities(digits_[k], at.numerators[k], is_dampened(), views_of(k));
    }
    return false;
  }
  return true;
}

// Takes fraction bits from what the step that failed needs more room for.
void FixedRun::widen(const Numbers& at, const TensorList& gradient) {
  struct Need {
    Integers& integers;
    std::size_t part;
    double largest;
    const char* what;
  };
  std::vector<Need> needs;
  double worst = 0.0;
  const auto add = [&](Integers& integers, std::size_t part, double largest, const char* what) {
    needs.push_back({integers, part, largest, what});
    worst = std::max(worst, largest / limit_of(integers.bits[part]));
  };
  const TensorList weights = this->weights(), velocities = this->velocities();
  for (std::size_t i = 0; i < shapes_.size(); ++i) {
    if (has_non_finite(gradient[i]))
      diverge(run_->counters().caller, step_,
              "the gradient of '" + run_->initial().names()[i] + "' is infinite or NaN", {gradient[i]});
    const Tensor push = (is_dampened() ? 1.0 - at.momentum(i) : 1.0) * gradient[i];
    const Tensor velocity = at.momentum(i) * velocities[i] + push;
    add(v_, i, largest_of(push), "a gradient");
    add(v_, i, largest_of(velocity), "a velocity");
    add(w_, i, std::abs(at.rates[i]) * largest_of(velocity), "a move");
    add(w_, i, largest_of(weights[i] - at.rates[i] * velocity), "a weight");
  }
  // Told in floating point, which may err by roundings: the worst is surely one that did not fit. What comes
  // near its limit will need room soon.
  const double to_limit = std::max(1.0, 1.0 / worst);
  for (const Need& need : needs) fit(need.integers, need.part, need.largest * to_limit, 16.0, need.what);
}

// Fewer fraction bits for a part that holds numbers up to `largest`, and where possible `room` times that.
// Throws TrainingDiverged if none are few enough.
void FixedRun::fit(Integers& integers, std::size_t part, double largest, double room, const char* what) {
  const double limit = limit_of(least_bits);
  if (!(largest < limit)) {
    std::ostringstream text = hypertape::detail::text_stream();
    text << what << " of '" << run_->initial().names()[part] << "' is " << largest
         << ", and fixed point ends at 2^" << 62 - least_bits << ", about 1e12; a lower rate or momentum, or "
         << "another method, may do";
    throw TrainingDiverged(run_->counters().caller, step_, text.str());
  }
  int& bits = integers.bits[part];
  while (bits > least_bits && !(room * largest < limit_of(bits))) bits -= bits_step;
}

void FixedRun::undo_weights(const Numbers& at) {
  --step_;
  set_views(at, {});
  backend()->momentum_reverse_weights(views_);
}

void FixedRun::undo_velocities(const Numbers& at, const TensorList& gradient) {
  set_views(at, gradient);
  for (std::size_t k = 0; k < digits_.size(); ++k) {
    const StepFault fault =
        backend()->momentum_reverse_velocities(digits_[k], at.numerators[k], is_dampened(), views_of(k));
    if (fault != StepFault::none) fail_replay(*run_, step_, "a gradient or velocity is another one");
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
  for (std::size_t i = 0; i < at.rates.size(); ++i) {
    if (std::isfinite(at.rates[i])) continue;
    throw TrainingDiverged(
        run_->counters().caller, t,
        "the learning rate of '" + run_->initial().names()[i] + "' is " + text_of(at.rates[i]));
  }
  for (const double each : setting("momenta", momentum().momenta(parameters, at.h)))
    at.numerators.push_back(numerator_of(each, t));
  if (!digits_.empty() && at.numerators.size() != digits_.size())
    fail("reversible", at.numerators.size(), " momenta given at step ", t, ", but ", digits_.size(),
         " at the first");
  return at;
}

TensorList FixedRun::state() const { return join({weights(), velocities()}); }

// On the way back to the weights no gradient is read; its dtype still selects the kernel.
void FixedRun::set_views(const Numbers& at, const TensorList& gradient) {
  views_.clear();
  contiguous_.clear();
  for (std::size_t i = 0; i < shapes_.size(); ++i) {
    MomentumViews part{view_of(w_.parts[i]), view_of(v_.parts[i]), {}, at.rates[i], w_.bits[i], v_.bits[i]};
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
  return backend()->hash_fixed(view_of(w_.whole)) * 31 + backend()->hash_fixed(view_of(v_.whole));
}

// Compares the state with that before step `at`, which was reached by running or undoing `step`.
void FixedRun::require_replay(std::int64_t at, std::int64_t step) const {
  if (hash() != hashes_[static_cast<std::size_t>(at)])
    fail_replay(*run_, step, "weights or velocities differ");
}

}  // namespace hypertape::bilevel::detail
