// Where checkpoints stand, and in which order the pieces of a run between them are run again.
//
// A run is cut into blocks that are recorded one at a time, the last first. A block's start must be a kept
// state, or be reached by running plainly from one. With a checkpoint for every block each is run twice:
// plainly, then recorded. With fewer, those behind the block that is being recorded are free again and
// stand anew between it and the one before, so that the steps in between are run several times. (Griewank
// 1992; Griewank and Walther 2000, algorithm 799: c checkpoints reverse C(c + r, c) blocks with each block
// run plainly at most r times. Here training has passed every block once before the first is recorded, which
// places the first c checkpoints for nothing.)
#pragma once

#include <cstdint>
#include <vector>

namespace hypertape::bilevel::detail {

class CheckpointSchedule {
 public:
  /// At most `checkpoints` states kept at a time, 0: the square root of `steps`. `segment`: steps of a block;
  /// 0: as many blocks as checkpoints, as even as possible.
  CheckpointSchedule(std::int64_t steps, std::int64_t checkpoints, std::int64_t segment);

  std::int64_t checkpoints() const noexcept { return checkpoints_; }  ///< never more than blocks
  std::int64_t blocks() const noexcept { return blocks_; }
  /// The step that block `block` starts at; that of blocks() is the number of steps.
  std::int64_t start_of(std::int64_t block) const noexcept;
  /// Of the largest block.
  std::int64_t longest() const noexcept;
  std::int64_t length_of(std::int64_t block) const noexcept { return start_of(block + 1) - start_of(block); }
  /// The blocks whose start the training keeps, ascending, the first being 0.
  std::vector<std::int64_t> kept_blocks() const;
  /// The way back: `keep(block)` runs plainly from the last kept state to the start of `block` and keeps it;
  /// `record(block, is_kept)` records a block, from the last kept state itself, which is then free, or from
  /// what is run plainly from it.
  template <class Keep, class Record>
  void go_back(const Keep& keep, const Record& record) const {
    std::vector<std::int64_t> kept = kept_blocks();
    for (std::int64_t end = blocks_; end > 0;) {
      const std::int64_t blocks = end - kept.back();
      const std::int64_t free = checkpoints_ - static_cast<std::int64_t>(kept.size());
      if (blocks > 1 && free > 0) {
        kept.push_back(kept.back() + split(blocks, free + 1));
        keep(kept.back());
        continue;
      }
      record(--end, blocks == 1);
      if (blocks == 1) kept.pop_back();
    }
  }
  /// Steps run plainly besides the training and the recorded ones.
  std::int64_t repeated_steps() const noexcept;

 private:
  /// Of n > 1 blocks whose first starts at a kept state, with c > 1 checkpoints of which that is one: the
  /// number of them to run plainly before the next checkpoint.
  static std::int64_t split(std::int64_t blocks, std::int64_t checkpoints) noexcept;

  std::int64_t steps_, checkpoints_, segment_, blocks_;
};

}  // namespace hypertape::bilevel::detail
