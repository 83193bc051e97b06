// What the fuzz targets share: drawing decisions from the input, and properties that must hold.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string_view>

namespace fuzzing {

/// A property of the code under test: ends the program, for libFuzzer to keep the input, if it does not hold.
inline void require(bool holds, const char* property) {
  if (holds) return;
  std::fprintf(stderr, "property violated: %s\n", property);
  std::abort();
}

/// The fuzzer's bytes as decisions, from the front; zeros once they are used up.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : bytes_(data, size) {}

  bool empty() const noexcept { return bytes_.empty(); }
  std::uint8_t byte() noexcept {
    if (bytes_.empty()) return 0;
    const std::uint8_t first = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return first;
  }
  /// 0 to `limit`, both possible.
  std::int64_t up_to(std::int64_t limit) noexcept { return byte() % (limit + 1); }
  /// -64 to 63: mostly small numbers of either sign.
  std::int64_t small() noexcept { return byte() % 128 - 64; }
  /// Any number.
  std::int64_t any() noexcept {
    std::uint64_t bits = 0;
    for (int i = 0; i < 8; ++i) bits = bits << 8 | byte();
    return static_cast<std::int64_t>(bits);
  }
  /// What is left, as text.
  std::string_view rest() noexcept {
    const std::string_view text(reinterpret_cast<const char*>(bytes_.data()), bytes_.size());
    bytes_ = {};
    return text;
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

}  // namespace fuzzing
