#include <hypertape/core/random.h>

#include <cmath>
#include <numbers>
#include <numeric>

#include <hypertape/core/error.h>
#include "core/cpu/views.h"

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

namespace {

// 128 random bits for one element: two 64-bit words. Seed is the Philox key; stream and step are folded into
// a second key round so that all of (seed, stream, step, index) count.
struct Words {
  std::uint64_t first, second;
};

class Generator {
 public:
  explicit Generator(const Key& key) {
    const auto words =
        philox({static_cast<std::uint32_t>(key.step), static_cast<std::uint32_t>(key.step >> 32), key.stream,
                0x48797065},
               {static_cast<std::uint32_t>(key.seed), static_cast<std::uint32_t>(key.seed >> 32)});
    key_ = {words[0], words[1]};
    salt_ = {words[2], words[3]};
  }
  Words operator()(std::uint64_t index) const {
    const auto words = philox(
        {static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), salt_[0], salt_[1]},
        key_);
    return {words[0] | std::uint64_t{words[1]} << 32, words[2] | std::uint64_t{words[3]} << 32};
  }

 private:
  std::array<std::uint32_t, 2> key_, salt_;
};

constexpr double two_to_minus_53 = 0x1p-53;

}  // namespace

namespace detail {

template <class T>
void random_elements(const View& target, Distribution distribution, const Key& key) {
  const Generator generate(key);
  T* elements = target.as<T>();
  for (std::int64_t i = 0; i < target.size; ++i) {
    const Words words = generate(static_cast<std::uint64_t>(i));
    switch (distribution) {
      case Distribution::uniform:
        // float32 takes fewer bits, since rounding 53 of them could give 1.
        if constexpr (sizeof(T) == 4)
          elements[i] = static_cast<T>(words.first >> 40) * 0x1p-24f;
        else
          elements[i] = static_cast<double>(words.first >> 11) * two_to_minus_53;
        break;
      case Distribution::normal: {
        const double radius =
            std::sqrt(-2.0 * std::log((static_cast<double>(words.first >> 11) + 1.0) * two_to_minus_53));
        const double angle =
            2.0 * std::numbers::pi * static_cast<double>(words.second >> 11) * two_to_minus_53;
        elements[i] = static_cast<T>(radius * std::cos(angle));
        break;
      }
      case Distribution::rademacher:
        elements[i] = words.first >> 63 ? T(1) : T(-1);
        break;
    }
  }
}
template void random_elements<float>(const View&, Distribution, const Key&);
template void random_elements<double>(const View&, Distribution, const Key&);

}  // namespace detail

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
  const Generator generate(key);
  // Fisher and Yates; the 128-bit product maps 64 random bits to [0, i] with a bias below 2^-40.
  for (std::int64_t i = size - 1; i > 0; --i) {
    const auto bound = static_cast<unsigned __int128>(i + 1);
    const auto j = static_cast<std::int64_t>(bound * generate(static_cast<std::uint64_t>(i)).first >> 64);
    std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(j)]);
  }
  return Tensor::from(order, Shape{size});
}

}  // namespace hypertape
