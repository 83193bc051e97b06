// Training state as integers, so that a run can be reversed exactly.
//
// A weight or velocity x is the int64 x * 2^f, |x| < 2^(62 - f), where f is 52 unless numbers of 2^10 and
// more need fewer fraction bits; weights and velocities of each parameter have an f of their own. One step of
// SGD with momentum n/d, elementwise:
//
//     v <- v n/d + s g        the digits lost go to a DigitBuffer; s g truncated toward zero to the grid;
//                             s = 1, or 1 - n/d for a dampened step (Maclaurin's form)
//     w <- w - rate v         with the new velocity; the product, a double, truncated toward zero to the grid
//
// Given the same g, rate and n, the two halves of the reverse step undo it bit for bit: integers add exactly,
// both truncations are recomputed from the same numbers, and algorithm 3 of Maclaurin, Duvenaud and Adams
// (2015) undoes v n/d. (Their algorithm 1 prints the old velocity in the last line; the new one is meant.)
// Nothing depends on the number of threads or on the CPU's instruction set, and mirroring w, v and g mirrors
// the run but for the floor in v n/d.
#pragma once

#include <cstdint>
#include <span>

#include "core/backend/digit_buffer.h"

namespace hypertape::detail {

/// f where nothing else is said.
inline constexpr int fraction_bits = 52;

/// What stopped a step.
enum class StepFault : std::uint8_t {
  none,
  non_finite,  ///< A gradient is infinite or not a number.
  overflow,    ///< A gradient, velocity, move or weight reached 2^(62 - f).
};

/// One parameter: its part of the state, its gradient, all of one length, and its learning rate.
template <class T>
struct MomentumSegment {
  std::span<std::int64_t> w;
  std::span<std::int64_t> v;
  std::span<const T> gradient;
  double rate;
  int weight_bits = fraction_bits, velocity_bits = fraction_bits;
};

/// One step of all parameters with momentum numerator / 2^16. The segments, one after another, are the
/// elements of `digits`. On a fault nothing has changed: w, v and `digits` are as before the call. Error,
/// with nothing changed: a momentum out of range, a rate that is not finite, lengths that disagree.
template <class T>
StepFault momentum_forward(DigitBuffer& digits, std::uint32_t numerator, bool dampened,
                           std::span<const MomentumSegment<T>> segments);

/// First half of undoing the last `momentum_forward`: w <- w + rate v, for which no gradient is needed (and
/// none is looked at). The gradient of the step was taken at the weights that this brings back. A fault, here
/// and below, says that the step is not being given what it was made with, and leaves the state without
/// meaning.
template <class T>
StepFault momentum_reverse_weights(std::span<const MomentumSegment<T>> segments);

/// Second half: undoes the velocities and takes their digits back, given the step's gradient, momentum and
/// form. Error as `momentum_forward`, and if `digits` holds no step or, where that can be told, one made with
/// another momentum.
template <class T>
StepFault momentum_reverse_velocities(DigitBuffer& digits, std::uint32_t numerator, bool dampened,
                                      std::span<const MomentumSegment<T>> segments);

/// values * 2^bits truncated toward zero. Error, with nothing written, naming the first element that is not
/// finite or not below 2^(62 - bits) in magnitude.
template <class T>
void to_fixed(std::span<const T> values, std::span<std::int64_t> fixed, int bits = fraction_bits);

/// fixed * 2^-bits, rounded to nearest (for float by way of double).
template <class T>
void from_fixed(std::span<const std::int64_t> fixed, std::span<T> values, int bits = fraction_bits);

/// A hash that tells which step of a reversal went wrong: arrays that differ in one element never share it.
/// Not meant against an adversary.
std::uint64_t hash_fixed(std::span<const std::int64_t> fixed);

}  // namespace hypertape::detail
