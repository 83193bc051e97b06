#include <hypertape/core/random.h>

#include <numeric>

#include <hypertape/core/error.h>
#include "core/backend/backend.h"
#include "core/random/generator.h"

namespace hypertape {

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                    std::array<std::uint32_t, 2> key) noexcept {
  constexpr std::uint64_t multiplier_0 = 0xD2511F53, multiplier_1 = 0xCD9E8D57;
  constexpr std::uint32_t weyl_0 = 0x9E3779B9, weyl_1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product_0 = multiplier_0 * counter[0], product_1 = multiplier_1 * counter[2];
    counter = {static_cast<std::uint32_t>(product_1 >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(product_1),
               static_cast<std::uint32_t>(product_0 >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(product_0)};
    key[0] += weyl_0;
    key[1] += weyl_1;
  }
  return counter;
}

Tensor random(const Shape& shape, Distribution distribution, const Key& key, Dtype dtype) {
  if (!is_floating(dtype)) fail("random", "needs float32 or float64, not ", dtype);
  Tensor tensor = detail::make_tensor(shape, dtype);
  detail::backend_of(tensor)->random(detail::view_of(tensor), distribution, key);
  return tensor;
}

Tensor random_permutation(std::int64_t size, const Key& key) {
  if (size < 0) fail("random_permutation", "size ", size, " is negative");
  auto order = detail::list_of<std::vector<std::int64_t>>(size);
  std::iota(order.begin(), order.end(), std::int64_t{0});
  const detail::Generator generate(key);
  // Fisher and Yates; the 128-bit product maps 64 random bits to [0, i] with a bias below 2^-40.
  for (std::int64_t i = size - 1; i > 0; --i) {
    const auto bound = static_cast<unsigned __int128>(i + 1);
    const auto j = static_cast<std::int64_t>(bound * generate(static_cast<std::uint64_t>(i)).first >> 64);
    std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(j)]);
  }
  return Tensor::from(order, Shape{size});
}

}  // namespace hypertape
