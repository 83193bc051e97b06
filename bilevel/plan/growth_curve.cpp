#include "bilevel/plan/growth_curve.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include <hypertape/core/memory.h>

namespace hypertape::bilevel::detail {
namespace {

// A recorded peak may be too low by peak_granularity: on a rise this large that is 0.8 % of the slope.
constexpr std::int64_t telling_rise = 128 * peak_granularity;
constexpr double settled = 0.03;
// Two slopes of moments that do not matter may be equal: then runs get longer, but not forever.
constexpr std::int64_t longest_probe = 4096;

}  // namespace

GrowthCurve::GrowthCurve(std::function<std::int64_t(std::int64_t steps)> measure, std::int64_t most,
                         std::int64_t least_slope) {
  for (std::int64_t steps = 1;; steps *= 2) {
    steps = std::min(steps, most);
    points_[steps] = measure(steps);
    if (steps == most || is_settled(least_slope) || steps >= longest_probe) return;
  }
}

double GrowthCurve::last_slope() const {
  const auto last = std::prev(points_.end()), before = std::prev(last);
  return static_cast<double>(last->second - before->second) /
         static_cast<double>(last->first - before->first);
}

bool GrowthCurve::is_settled(std::int64_t least_slope) const {
  if (points_.size() < 3) return false;
  const auto last = std::prev(points_.end()), before = std::prev(last), earlier = std::prev(before);
  if (last->second - before->second < telling_rise) return false;
  const double slope = last_slope();
  const double earlier_slope = static_cast<double>(before->second - earlier->second) /
                               static_cast<double>(before->first - earlier->first);
  return slope >= (1.0 - settled) * static_cast<double>(least_slope) &&
         std::abs(slope - earlier_slope) <= settled * slope;
}

std::int64_t GrowthCurve::at(std::int64_t steps) const {
  const auto next = points_.lower_bound(steps);
  if (next != points_.end() && next->first == steps) return next->second;
  if (next == points_.end()) {
    const auto& [longest, bytes] = *points_.rbegin();
    if (points_.size() < 2) return bytes;
    return bytes + std::llround(last_slope() * static_cast<double>(steps - longest));
  }
  const auto before = std::prev(next);
  const double part =
      static_cast<double>(steps - before->first) / static_cast<double>(next->first - before->first);
  return before->second + std::llround(part * static_cast<double>(next->second - before->second));
}

}  // namespace hypertape::bilevel::detail
