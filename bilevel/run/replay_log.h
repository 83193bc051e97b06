// First values of what is run again, to compare with: whatever a method computes from a second run that
// differs is the derivative of nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <hypertape/core/tensor.h>

namespace hypertape::bilevel::detail {

class ReplayLog {
 public:
  /// Keeps the value, of one floating element, the first time that `place`, one of `places`, is given; later
  /// whether it has the bits kept. Anything else agrees: it is refused elsewhere, with its shape.
  bool agrees(std::int64_t place, std::int64_t places, const Tensor& value);
  /// "0.693 at first, 0.652 now"
  std::string difference(std::int64_t place, const Tensor& value) const;

 private:
  Tensor values_;
  std::vector<bool> kept_;
};

}  // namespace hypertape::bilevel::detail
