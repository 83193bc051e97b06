#include "ridders.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace hypertape {

Extrapolation ridders(const std::function<double(double)>& f, double first_step, int most_steps) {
  constexpr double good_enough = 1e-9;
  constexpr double alike = 0.2;  // differences that differ by more are not in the range of a Taylor series
  constexpr double poor = 1e-3;  // two differences may also be alike by accident
  constexpr double worse = 4.0;
  constexpr double unknown = std::numeric_limits<double>::infinity();
  Extrapolation best;
  best.error = unknown;
  // Row i of Neville's tableau: element j is free of the error terms h^2, h^4, ..., h^2j.
  std::vector<double> previous, row;
  double step = first_step, last_change = unknown;
  for (int i = 0; i < most_steps; ++i, step /= 2) {
    row.assign(1, (f(step) - f(-step)) / (2 * step));
    best.evaluations += 2;
    if (!previous.empty()) {
      last_change = std::abs(row.front() - previous.front());
      if (last_change > alike * std::abs(row.front())) {
        previous.clear();  // start again
        if (best.error > poor * std::abs(best.derivative)) best.error = unknown;
      }
    }
    double power = 1.0;
    for (const double older : previous) {
      power *= 4.0;
      const double newer = row.back();
      row.push_back(newer + (newer - older) / (power - 1.0));
      const double error = std::max(std::abs(row.back() - newer), std::abs(row.back() - older));
      if (error <= best.error) {
        best.error = error;
        best.derivative = row.back();
      }
    }
    if (best.error <= good_enough * std::abs(best.derivative)) break;
    if (!previous.empty() && std::abs(row.back() - previous.back()) > worse * best.error) break;
    previous = row;
  }
  if (best.error == unknown) {
    best.derivative = row.front();
    best.error = last_change;
  }
  return best;
}

}  // namespace hypertape
