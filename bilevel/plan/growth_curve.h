// Peak bytes as a function of steps, known from short runs.
#pragma once

#include <cstdint>
#include <functional>
#include <map>

namespace hypertape::bilevel::detail {

/// Peak memory over n steps is the largest of several moments' (the end of training, the outer loss, the
/// first step back, ...), each of which grows linearly: a convex function, whose last slope is that of a
/// step. Short runs of doubling length find it; between them bytes are interpolated, beyond them extended.
class GrowthCurve {
 public:
  /// `measure(n)`: peak bytes of n steps, for n up to `most`. `least_slope`: what a step surely adds in the
  /// end, so that a slope below it belongs to a moment that does not matter for long runs.
  GrowthCurve(std::function<std::int64_t(std::int64_t steps)> measure, std::int64_t most,
              std::int64_t least_slope);
  std::int64_t at(std::int64_t steps) const;
  std::int64_t longest_measured() const { return points_.rbegin()->first; }

 private:
  bool is_settled(std::int64_t least_slope) const;
  double last_slope() const;

  std::map<std::int64_t, std::int64_t> points_;
};

}  // namespace hypertape::bilevel::detail
