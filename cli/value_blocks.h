// A growing list of numbers that is never copied as a whole.
#pragma once

#include <cstddef>
#include <vector>

namespace hypertape {

/// A vector takes up to three times its content while it grows. This takes one block of 32 MiB more.
class ValueBlocks {
 public:
  void push_back(double value) {
    if (blocks_.empty() || blocks_.back().size() == block_values) begin_block();
    blocks_.back().push_back(value);
  }

  void clear() { blocks_.clear(); }

  /// All values from number `first` on, as one vector; the list is empty then.
  std::vector<double> take(std::size_t first = 0);

 private:
  // Blocks of this size are given back to the system one by one.
  static constexpr std::size_t block_values = std::size_t{1} << 22;
  void begin_block();

  std::vector<std::vector<double>> blocks_;
};

}  // namespace hypertape
