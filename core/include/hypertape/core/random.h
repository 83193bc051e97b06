// Counter-based random numbers: a value depends on (seed, stream, step) and its index alone, so any step of
// any run can be replayed without state.
#pragma once

#include <array>
#include <cstdint>

#include <hypertape/core/export.h>
#include <hypertape/core/tensor.h>

namespace hypertape {

/// What a sequence of random numbers is keyed by.
struct Key {
  std::uint64_t seed = 0;
  /// What the numbers are for: one stream each for initial weights, batches, noise.
  std::uint32_t stream = 0;
  /// Usually the training step.
  std::uint64_t step = 0;
};

enum class Distribution : std::uint8_t {
  uniform,     ///< [0, 1), the top 53 (float32: 24) bits
  normal,      ///< mean 0, variance 1, by Box and Muller
  rademacher,  ///< -1 or 1
};

/// The four 32-bit words of Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011) at one counter.
HYPERTAPE_API std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                                  std::array<std::uint32_t, 2> key) noexcept;

/// A float32 or float64 tensor of independent draws. Element i, in row-major order, depends on distribution,
/// key and dtype, not on the shape.
HYPERTAPE_API Tensor random(const Shape& shape, Distribution distribution, const Key& key,
                            Dtype dtype = Dtype::float64);

/// The integers 0..size-1 in random order (int64).
HYPERTAPE_API Tensor random_permutation(std::int64_t size, const Key& key);

}  // namespace hypertape
