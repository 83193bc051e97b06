// A view filled with random numbers.
#include <cmath>
#include <numbers>

#include "core/cpu/views.h"
#include "core/random/generator.h"

namespace hypertape::detail {
namespace {
constexpr double two_to_minus_53 = 0x1p-53;
}

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

}  // namespace hypertape::detail
