// Fixed-point momentum training outside the library's method: on wide integers written a second time, and
// step by step on the library's kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "bilevel_problems.h"
#include "core/backend/digit_buffer.h"

namespace integer_run {

/// `problem` with its momenta rounded to multiples of 2^-16, straight through: what reversible executes.
bilevel_problems::Case with_rounded_momenta(const bilevel_problems::Case& problem);

/// `problem` with a step of its own formulas on the tape, whose velocities and then weights are replaced,
/// straight through, by those of the integer trajectory, computed here on 128-bit integers. To be
/// differentiated by Unrolled. For a step of sgd reading "rates" (a vector, by layer) and "momentum".
bilevel_problems::Case taped_integers(const bilevel_problems::Case& problem, bool dampened);

/// Training of a digits problem on the kernels of fixed_point.h, forward and back.
class Stepwise {
 public:
  explicit Stepwise(const bilevel_problems::Case& digits);
  void forward();   ///< one step
  void backward();  ///< undoes the last step
  std::vector<std::int64_t> w, v;
  hypertape::detail::DigitBuffer digits;

 private:
  void apply(std::int64_t t, bool undo);
  std::vector<double> gradient(std::int64_t t) const;

  const bilevel_problems::Case& problem_;
  hypertape::NamedTensors prepared_, initial_;
  std::vector<double> rates_, momenta_;
  std::int64_t step_ = 0;
};

}  // namespace integer_run
