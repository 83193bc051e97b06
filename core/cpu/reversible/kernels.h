// The loops behind fixed_point.h, compiled once per instruction set; every level gives the same bits.
#pragma once

#include <cstdint>

#include "core/cpu/isa/features.h"

namespace hypertape::detail {

/// What one momentum step does to every element of a segment.
struct MomentumStep {
  std::int64_t numerator;    ///< n.
  double inverse_numerator;  ///< 1/n, rounded.
  double gradient_scale;     ///< Multiplies a gradient before truncation: 2^f, times 1 - n/d if dampened.
  double rate;               ///< Learning rate, times 2^(f of weights - f of velocities).
};

/// Below this n the quotient by way of doubles is not proved exact (see core/cpu/reversible/kernels.inc), and
/// the
/// `*_small` kernels divide integers instead.
inline constexpr std::uint32_t smallest_fast_numerator = 1U << 13;

/// Steps return true if any element was or went out of range. Every element is updated all the same,
/// wrapping, and the reverse kernels take back exactly what `forward` did even then.
template <class T>
struct MomentumKernels {
  using Forward = bool(std::int64_t* w, std::int64_t* v, std::uint64_t* digits, const T* gradient,
                       std::int64_t size, const MomentumStep& step);
  using ReverseVelocities = bool(std::int64_t* v, std::uint64_t* digits, const T* gradient, std::int64_t size,
                                 const MomentumStep& step);
  Forward* forward;
  Forward* forward_small;
  ReverseVelocities* reverse_velocities;
  ReverseVelocities* reverse_velocities_small;
  void (*from_fixed)(const std::int64_t* fixed, T* values, std::int64_t size, double unit);
};

struct FixedPointKernels {
  MomentumKernels<float> for_float;
  MomentumKernels<double> for_double;
  bool (*reverse_weights)(std::int64_t* w, const std::int64_t* v, std::int64_t size, double rate);
  std::uint64_t (*hash)(const std::int64_t* fixed, std::int64_t size);

  template <class T>
  const MomentumKernels<T>& of() const {
    if constexpr (sizeof(T) == sizeof(float)) {
      return for_float;
    } else {
      return for_double;
    }
  }
};

namespace baseline {
extern const FixedPointKernels fixed_point_kernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const FixedPointKernels fixed_point_kernels;
}
namespace avx512 {
extern const FixedPointKernels fixed_point_kernels;
}
#endif

/// The kernels of one level, which this CPU must support.
const FixedPointKernels& fixed_point_kernels(Isa isa);

}  // namespace hypertape::detail
