// Random numbers by counting: an element's bits depend on the key and on its index alone.
#pragma once

#include <hypertape/core/random.h>

namespace hypertape::detail {

/// 128 random bits for one element: two 64-bit words. Seed is the Philox key; stream and step are folded into
/// a second key round so that all of (seed, stream, step, index) count.
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

}  // namespace hypertape::detail
