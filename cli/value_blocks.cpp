#include "value_blocks.h"

#include <algorithm>
#include <utility>

namespace hypertape {

void ValueBlocks::begin_block() {
  blocks_.emplace_back();
  // The first block grows: most files fit in it.
  if (blocks_.size() > 1) blocks_.back().reserve(block_values);
}

std::vector<double> ValueBlocks::take(std::size_t first) {
  std::vector<std::vector<double>> blocks = std::exchange(blocks_, {});
  if (blocks.empty()) return {};
  if (blocks.size() == 1 && first == 0) return std::move(blocks.front());
  std::size_t total = 0;
  for (const std::vector<double>& block : blocks) total += block.size();
  first = std::min(first, total);
  std::vector<double> values;
  // Pages are taken as they are written, while the blocks behind are given back.
  values.reserve(total - first);
  for (std::vector<double>& block : blocks) {
    const std::size_t skipped = std::min(first, block.size());
    values.insert(values.end(), block.begin() + static_cast<std::ptrdiff_t>(skipped), block.end());
    first -= skipped;
    block = {};
  }
  return values;
}

}  // namespace hypertape
