#include "bilevel/run/checkpoint_schedule.h"

#include <algorithm>
#include <cmath>

namespace hypertape::bilevel::detail {
namespace {

// More than any number of blocks, and far from overflow when multiplied once.
constexpr std::int64_t enough = std::int64_t{1} << 40;

// C(checkpoints + runs, runs): the blocks that so many checkpoints reverse with each block run plainly at
// most `runs` times. At most `enough`.
std::int64_t reach(std::int64_t checkpoints, std::int64_t runs) noexcept {
  if (runs < 0) return 0;
  const std::int64_t few = std::min(checkpoints, runs), many = std::max(checkpoints, runs);
  std::int64_t result = 1;
  for (std::int64_t i = 1; i <= few; ++i) {
    // Exact: the product of i neighbours is divisible by i!. In pieces, so that nothing overflows.
    const __int128 next = static_cast<__int128>(result) * (many + i) / i;
    if (next >= enough) return enough;
    result = static_cast<std::int64_t>(next);
  }
  return result;
}

// How many times at most a block is run plainly again: the first kept states stand apart by what c, c - 1,
// ..., 1 checkpoints reverse, together C(c + r + 1, c) - 1.
std::int64_t repeats(std::int64_t blocks, std::int64_t checkpoints) noexcept {
  std::int64_t runs = 0;
  while (reach(checkpoints, runs + 1) - 1 < blocks) ++runs;
  return runs;
}

}  // namespace

CheckpointSchedule::CheckpointSchedule(std::int64_t steps, std::int64_t checkpoints, std::int64_t segment)
    : steps_(steps), segment_(std::min(segment, steps)) {
  const std::int64_t wanted =
      checkpoints ? checkpoints : static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(steps))));
  blocks_ = segment_ ? (steps + segment_ - 1) / segment_ : std::min(wanted, steps);
  checkpoints_ = std::min(wanted, blocks_);
}

std::int64_t CheckpointSchedule::start_of(std::int64_t block) const noexcept {
  // A shorter block is the last one, which is never run plainly but in training.
  return segment_ ? std::min(block * segment_, steps_) : block * steps_ / blocks_;
}

std::int64_t CheckpointSchedule::longest() const noexcept {
  return segment_ ? segment_ : (steps_ + blocks_ - 1) / blocks_;
}

std::vector<std::int64_t> CheckpointSchedule::kept_blocks() const {
  const std::int64_t runs = repeats(blocks_, checkpoints_);
  // Blocks behind each kept state, the last first: as many as `runs - 1` runs reverse, and of the rest as
  // many as one run more does. Then every block beyond costs `runs`, wherever it is.
  std::vector<std::int64_t> sizes;
  std::int64_t rest = blocks_;
  for (std::int64_t c = 1; c <= checkpoints_; ++c) {
    sizes.push_back(std::max<std::int64_t>(reach(c, runs - 1), runs == 0 ? 1 : 0));
    rest -= sizes.back();
  }
  for (std::int64_t c = 1; c <= checkpoints_ && rest > 0; ++c) {
    const std::int64_t more = std::min(rest, reach(c, runs) - reach(c, runs - 1));
    sizes[static_cast<std::size_t>(c - 1)] += more;
    rest -= more;
  }
  std::vector<std::int64_t> kept;
  std::int64_t block = 0;
  for (auto size = sizes.rbegin(); size != sizes.rend(); ++size) {
    kept.push_back(block);
    block += *size;
  }
  return kept;
}

std::int64_t CheckpointSchedule::split(std::int64_t blocks, std::int64_t checkpoints) noexcept {
  std::int64_t runs = 0;
  while (reach(checkpoints, runs) < blocks) ++runs;
  return std::min(reach(checkpoints, runs - 1), blocks - reach(checkpoints - 1, runs - 1));
}

std::int64_t CheckpointSchedule::repeated_steps() const noexcept {
  const std::int64_t c = checkpoints_, runs = repeats(blocks_, c);
  if (runs == 0) return 0;
  // Sums over c, c - 1, ..., 1 of what their blocks cost, r n - C(c + r, r - 1) for n blocks (Griewank and
  // Walther 2000, equation 6), at n = C(c + r - 1, c); and `runs` for each block beyond.
  const std::int64_t reached = reach(c, runs) - 1;
  const std::int64_t cost = runs == 1 ? 0 : (runs - 1) * reached - (reach(c + 1, runs - 1) - 1 - (runs - 1));
  return segment_ * (cost + runs * (blocks_ - reached));
}

}  // namespace hypertape::bilevel::detail
