// Where the digits go that multiplying a fixed-point velocity by a momentum below 1 would lose.
//
// v <- v n/d (d = 2^16, 0 < n < d) keeps fewer numbers apart than it was given. Maclaurin, Duvenaud and Adams
// (2015, algorithm 3) keep the difference, log2(d/n) bits, in an integer B per element:
//
//     v = q d + r    B1 = B d + r        v' = q n + B1 mod n    B' = floor(B1 / n)
//
// and every step is undone exactly, the last one first. B has no bound, so it is kept in pieces: one live
// 64-bit word per element, and a stack of planes of 32 bits per element. B' <= ((U + 1) d - 1) / n for every
// element with B <= U, so one scalar U says when all elements move their low 32 bits to a new plane. A worked
// step, with d = 10, n = 9:
//
//     v = 1234, B = 7:  q = 123, r = 4, B1 = 74   ->   v' = 123 * 9 + 74 mod 9 = 1109,  B' = 8
//     v' = 1109, B' = 8:  q = 123, 1109 mod 9 = 2, B1 = 8 * 9 + 2 = 74   ->   v = 123 * 10 + 4,  B = 7
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace hypertape::detail {

/// log2 of the denominator d of every momentum.
inline constexpr int momentum_shift = 16;
/// d: a momentum is n/d with 0 < n < d.
inline constexpr std::uint32_t momentum_denominator = std::uint32_t{1} << momentum_shift;
/// Bits per element that one plane holds.
inline constexpr int plane_bits = 32;
/// A step needs B + 1 <= 2^46 in every element: then B d + r < 2^62, for which the kernels' quotients are
/// proved, and a flush leaves U near 2^14. Were U flushed down to 1, each flush would waste log2(1 / (1 -
/// n/d)) bits (10 at 0.999) on the "+ 1" of the bound, since U then grows like (n/d)^-k / (1 - n/d); from
/// 2^14 the waste is 0.1.
inline constexpr std::uint64_t live_limit = std::uint64_t{1} << 46;

/// Throws Error unless 0 < numerator < d.
void require_momentum(std::string_view operation, std::uint32_t numerator);

/// n for which n/d is nearest to `momentum`. Error unless 1/d <= momentum <= 1 - 1/d: above, nothing would
/// decay. n/d, and never `momentum` itself, is what the update and its adjoint must both use.
std::uint32_t momentum_numerator(double momentum);

/// n/d, exact.
constexpr double effective_momentum(std::uint32_t numerator) {
  return static_cast<double>(numerator) / momentum_denominator;
}

/// The scalar half of a DigitBuffer: the bound U and the steps before which planes were flushed. It touches
/// no element, so that one schedule serves words that live on any device.
///
/// The bound is itself reversible: U' = floor(((U + 1) d - 1) / n) puts (U + 1) d among the n integers from
/// U' n + 1 to U' n + n, and since n < d that range holds one multiple of d at most. Nothing is stored per
/// step.
class DigitSchedule {
 public:
  /// True if every element must be flushed before the next step.
  bool must_flush() const noexcept { return bound_ >= live_limit; }
  /// Accounts for a flush.
  void flush();
  /// Accounts for a step with momentum n/d.
  void advance(std::uint32_t numerator);
  /// Undoes `advance`. Error if no step is left, or if no step with this momentum can have led here.
  void retreat(std::uint32_t numerator);
  /// True if the step that comes next was preceded by a flush when it was made.
  bool must_restore() const noexcept { return !flushes_.empty() && flushes_.back().step == steps_; }
  /// Undoes `flush`.
  void restore();

  std::int64_t steps() const noexcept { return steps_; }
  std::size_t planes() const noexcept { return flushes_.size(); }
  /// U: no live word is larger.
  std::uint64_t bound() const noexcept { return bound_; }
  /// Sum of log2(d/n) over the steps made and not undone: no encoding needs fewer bits per element.
  double entropy_bits() const noexcept { return entropy_bits_; }

 private:
  struct Flush {
    std::int64_t step;
    std::uint64_t dropped;  // The bits of U that the flush dropped.
  };
  std::uint64_t bound_ = 0;
  std::int64_t steps_ = 0;
  double entropy_bits_ = 0.0;
  std::vector<Flush> flushes_;
};

/// Live words and planes of `size` elements in host memory.
class DigitBuffer {
 public:
  explicit DigitBuffer(std::size_t size);
  DigitBuffer(DigitBuffer&& other) noexcept = default;
  DigitBuffer& operator=(DigitBuffer&& other) noexcept = default;

  std::size_t size() const noexcept { return size_; }
  /// The words B that the kernels update.
  std::span<std::uint64_t> live() noexcept;
  std::span<const std::uint64_t> live() const noexcept;

  /// To be called before the kernels of a forward step: flushes if the bound demands it.
  /// Error, with nothing changed, on a momentum out of range or when a plane cannot be allocated.
  void begin_forward(std::uint32_t numerator);
  /// To be called before the kernels of a reverse step; Error as `DigitSchedule::retreat`, with nothing
  /// changed.
  void begin_reverse(std::uint32_t numerator);
  /// To be called after the kernels of a reverse step: brings back the plane flushed before that step, if
  /// any.
  void end_reverse();

  const DigitSchedule& schedule() const noexcept { return schedule_; }
  /// True if nothing is stored: no plane, U zero and every live word zero, as after a complete reversal.
  bool empty() const;
  /// Bytes held, live words and planes.
  std::size_t bytes() const noexcept;
  /// Bits per element in the planes.
  double packed_bits_per_element() const noexcept;
  double entropy_bits() const noexcept { return schedule_.entropy_bits(); }

 private:
  // Bytes of the library's accounted allocator.
  class Bytes {
   public:
    explicit Bytes(std::size_t count);
    Bytes(Bytes&& other) noexcept;
    Bytes& operator=(Bytes&& other) noexcept;
    ~Bytes();
    void* get() const noexcept { return data_; }

   private:
    void* data_;
  };

  std::size_t size_;
  Bytes live_;
  std::vector<Bytes> planes_;
  DigitSchedule schedule_;
};

}  // namespace hypertape::detail
