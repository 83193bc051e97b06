// Ridders' extrapolation of central differences: an independent derivative to check others against.
// (C. J. F. Ridders, Accurate computation of F'(x) and F'(x)F''(x), Advances in Engineering Software 4, 1982)
#pragma once

#include <functional>

namespace hypertape {

struct Extrapolation {
  double derivative = 0.0;
  double error = 0.0;  ///< its own estimate, absolute
  int evaluations = 0;
};

/// f'(0). Central differences at first_step, first_step / 2, ... are extrapolated to step 0 until the
/// estimated error is 1e-9 of the derivative, rounding makes it worse, or `most_steps` (at least 2) were
/// tried. The steps must come to where f is smooth.
Extrapolation ridders(const std::function<double(double)>& f, double first_step, int most_steps);

}  // namespace hypertape
