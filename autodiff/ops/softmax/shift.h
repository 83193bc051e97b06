// The shift that keeps exp(x - shift) from overflowing.
#pragma once

#include "core/backend/backend.h"

namespace hypertape::detail {

/// Maxima of x over the axes whose `reduced` is set, which keep extent 1; 0 where that is infinite. Constant
/// for every derivative: whoever subtracts it makes up for it.
Tensor softmax_shift(const Tensor& x, const std::array<bool, max_rank>& reduced);

}  // namespace hypertape::detail
