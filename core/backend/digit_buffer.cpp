#include "core/backend/digit_buffer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <hypertape/core/error.h>
#include <hypertape/core/memory.h>
#include <hypertape/core/parallel.h>

namespace hypertape::detail {
namespace {

constexpr std::int64_t grain = 1 << 15;

std::size_t bytes_of_words(std::size_t size, std::size_t word) {
  if (size > static_cast<std::size_t>(INT64_MAX) / word) {
    fail("DigitBuffer", size, " elements do not fit in memory");
  }
  return size * word;
}

}  // namespace

void require_momentum(std::string_view operation, std::uint32_t numerator) {
  if (numerator == 0 || numerator >= momentum_denominator) {
    fail(operation, "momentum ", numerator, "/", momentum_denominator,
         " cannot be reversed: the numerator must be from 1 to ", momentum_denominator - 1);
  }
}

std::uint32_t momentum_numerator(double momentum) {
  constexpr double step = 1.0 / momentum_denominator;
  if (!(momentum >= step && momentum <= 1.0 - step)) {
    fail("momentum_numerator", "momentum ", momentum, " cannot be reversed: it must be from 1/",
         momentum_denominator, " to 1 - 1/", momentum_denominator);
  }
  return static_cast<std::uint32_t>(std::lround(momentum * momentum_denominator));
}

void DigitSchedule::flush() {
  flushes_.push_back({steps_, bound_ & ((std::uint64_t{1} << plane_bits) - 1)});
  bound_ >>= plane_bits;
}

void DigitSchedule::advance(std::uint32_t numerator) {
  require_momentum("DigitSchedule", numerator);
  if (must_flush()) fail("DigitSchedule", "a step needs a flush first; call flush() when must_flush()");
  bound_ = (((bound_ + 1) << momentum_shift) - 1) / numerator;
  entropy_bits_ -= std::log2(effective_momentum(numerator));
  ++steps_;
}

void DigitSchedule::retreat(std::uint32_t numerator) {
  require_momentum("DigitSchedule", numerator);
  if (steps_ == 0) fail("DigitSchedule", "there is no step left to reverse");
  // The bound of a step with this momentum is at most `largest`, which keeps the product below within 64
  // bits.
  const std::uint64_t largest = ((live_limit << momentum_shift) - 1) / numerator;
  const std::uint64_t scaled = bound_ <= largest ? (bound_ + 1) * numerator : 0;
  if (scaled < momentum_denominator || scaled % momentum_denominator >= numerator) {
    fail("DigitSchedule", "step ", steps_ - 1, " was not made with momentum ", numerator, "/",
         momentum_denominator, "; reverse the steps with their own momenta, the last one first");
  }
  bound_ = (scaled >> momentum_shift) - 1;
  --steps_;
  // Rounding would leave a residue where the sum is known to be zero.
  entropy_bits_ = steps_ == 0 ? 0.0 : entropy_bits_ + std::log2(effective_momentum(numerator));
}

void DigitSchedule::restore() {
  bound_ = (bound_ << plane_bits) | flushes_.back().dropped;
  flushes_.pop_back();
}

DigitBuffer::Bytes::Bytes(std::size_t count) : data_(count == 0 ? nullptr : allocate_bytes(count)) {}
DigitBuffer::Bytes::Bytes(Bytes&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
DigitBuffer::Bytes& DigitBuffer::Bytes::operator=(Bytes&& other) noexcept {
  std::swap(data_, other.data_);
  return *this;
}
DigitBuffer::Bytes::~Bytes() {
  if (data_ != nullptr) release_bytes(data_);
}

DigitBuffer::DigitBuffer(std::size_t size) : size_(size), live_(bytes_of_words(size, sizeof(std::uint64_t))) {
  std::ranges::fill(live(), std::uint64_t{0});
}

std::span<std::uint64_t> DigitBuffer::live() noexcept {
  return {static_cast<std::uint64_t*>(live_.get()), size_};
}
std::span<const std::uint64_t> DigitBuffer::live() const noexcept {
  return {static_cast<const std::uint64_t*>(live_.get()), size_};
}

void DigitBuffer::begin_forward(std::uint32_t numerator) {
  require_momentum("DigitBuffer", numerator);
  if (schedule_.must_flush()) {
    Bytes fresh(bytes_of_words(size_, sizeof(std::uint32_t)));
    planes_.reserve(planes_.size() + 1);
    schedule_.flush();
    planes_.push_back(std::move(fresh));
    std::uint64_t* words = live().data();
    auto* plane = static_cast<std::uint32_t*>(planes_.back().get());
    parallel_ranges(static_cast<std::int64_t>(size_), grain, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        plane[i] = static_cast<std::uint32_t>(words[i]);
        words[i] >>= plane_bits;
      }
    });
  }
  schedule_.advance(numerator);
}

void DigitBuffer::begin_reverse(std::uint32_t numerator) {
  require_momentum("DigitBuffer", numerator);
  schedule_.retreat(numerator);
}

void DigitBuffer::end_reverse() {
  if (!schedule_.must_restore()) return;
  std::uint64_t* words = live().data();
  const auto* plane = static_cast<const std::uint32_t*>(planes_.back().get());
  parallel_ranges(static_cast<std::int64_t>(size_), grain, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) words[i] = (words[i] << plane_bits) | plane[i];
  });
  schedule_.restore();
  planes_.pop_back();
}

bool DigitBuffer::empty() const {
  return schedule_.planes() == 0 && schedule_.bound() == 0 && schedule_.steps() == 0 &&
         std::ranges::all_of(live(), [](std::uint64_t word) { return word == 0; });
}

std::size_t DigitBuffer::bytes() const noexcept {
  return size_ * (sizeof(std::uint64_t) + planes_.size() * sizeof(std::uint32_t));
}

double DigitBuffer::packed_bits_per_element() const noexcept {
  return static_cast<double>(planes_.size()) * plane_bits;
}

}  // namespace hypertape::detail
