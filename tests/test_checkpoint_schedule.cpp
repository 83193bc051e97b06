// Checkpoints that stand anew while going back: the schedule, and the bits and costs of runs by it.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include <hypertape/autodiff/derivatives.h>
#include "bilevel/run/checkpoint_schedule.h"
#include "bilevel_problems.h"
#include "ladder.h"

namespace {

namespace ht = hypertape;
using namespace bilevel_problems;
using namespace ht::bilevel;
using ht::bilevel::detail::CheckpointSchedule;

// The fewest plain runs of blocks that n blocks need, by trying every place of the next checkpoint. `free`:
// training passes, which reaches the first checkpoints for nothing.
std::int64_t fewest(std::int64_t blocks, std::int64_t checkpoints, bool free) {
  static std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> known[2];
  if (blocks <= 1) return 0;
  if (checkpoints == 1) return blocks * (blocks - 1) / 2;
  const auto [entry, is_new] = known[free].try_emplace({blocks, checkpoints}, 0);
  if (!is_new) return entry->second;
  std::int64_t least = blocks * blocks;
  for (std::int64_t first = 1; first < blocks; ++first)
    least = std::min(least, (free ? 0 : first) + fewest(blocks - first, checkpoints - 1, free) +
                                fewest(first, checkpoints, false));
  return known[free][{blocks, checkpoints}] = least;
}

bool same_bits(const Hypergradient& a, const Hypergradient& b) {
  if (a.value != b.value) return false;
  for (std::size_t i = 0; i < b.gradients.size(); ++i)
    if (ladder::elements(a.gradients.tensors()[i]) != ladder::elements(b.gradients.tensors()[i]))
      return false;
  return true;
}

}  // namespace

TEST_CASE("checkpoint schedule: the fewest repeated steps there can be, in closed form and as it goes") {
  for (std::int64_t steps = 1; steps <= 45; ++steps)
    for (std::int64_t checkpoints = 1; checkpoints <= 7; ++checkpoints)
      for (const std::int64_t segment : {1, 2, 3}) {
        CAPTURE(steps);
        CAPTURE(checkpoints);
        CAPTURE(segment);
        const CheckpointSchedule schedule(steps, checkpoints, segment);
        const std::int64_t blocks = (steps + segment - 1) / segment;
        REQUIRE(schedule.blocks() == blocks);
        REQUIRE(schedule.repeated_steps() == segment * fewest(blocks, checkpoints, true));
        // Going through it: every block once, the last first, from states that are there.
        std::vector<std::int64_t> kept = schedule.kept_blocks();
        REQUIRE(static_cast<std::int64_t>(kept.size()) <= checkpoints);
        REQUIRE(kept.front() == 0);
        std::int64_t repeated = 0, next = blocks - 1;
        const auto run = [&](std::int64_t to) {
          repeated += schedule.start_of(to) - schedule.start_of(kept.back());
        };
        schedule.go_back(
            [&](std::int64_t block) {
              run(block);
              kept.push_back(block);
              REQUIRE(static_cast<std::int64_t>(kept.size()) <= checkpoints);
            },
            [&](std::int64_t block, bool is_kept) {
              REQUIRE(block == next--);
              REQUIRE(kept.back() <= block);
              REQUIRE(is_kept == (kept.back() == block));
              REQUIRE(schedule.length_of(block) <= segment);
              run(block);
              if (is_kept) kept.pop_back();
            });
        REQUIRE(next == -1);
        REQUIRE(repeated == schedule.repeated_steps());
      }
}

TEST_CASE("checkpoint schedule: without a length, as many even blocks as checkpoints, and nothing repeated") {
  for (const std::int64_t steps : {1, 2, 7, 50, 1000})
    for (const std::int64_t checkpoints : {0, 1, 3, 7, 2000}) {
      const CheckpointSchedule schedule(steps, checkpoints, 0);
      CHECK(schedule.repeated_steps() == 0);
      CHECK(schedule.blocks() == schedule.checkpoints());
      CHECK(schedule.start_of(schedule.blocks()) == steps);
      for (std::int64_t block = 0; block < schedule.blocks(); ++block) {
        CHECK(schedule.length_of(block) >= steps / schedule.blocks());
        CHECK(schedule.length_of(block) <= schedule.longest());
      }
    }
  // A million steps with 20 checkpoints: five more runs of each at most, and no overflow.
  const CheckpointSchedule large(1'000'000, 20, 1);
  CHECK(large.repeated_steps() > 3'000'000);
  CHECK(large.repeated_steps() < 7'000'000);
}

TEST_CASE("checkpointed: the bits of the tape whatever is repeated, and the evaluations counted") {
  for (const Rule rule : {Rule::momentum, Rule::slow_weights, Rule::adam}) {
    const Case problem = Quadratic(23, rule).problem();
    const Hypergradient tape = problem.by(Unrolled{});
    for (const auto& setting : std::vector<std::pair<std::int64_t, std::int64_t>>{
             {1, 1}, {2, 1}, {3, 1}, {4, 1}, {30, 1}, {1, 4}, {2, 3}, {3, 3}, {0, 2}, {5, 100}}) {
      const std::int64_t checkpoints = setting.first, segment = setting.second;
      CAPTURE(checkpoints);
      CAPTURE(segment);
      const Hypergradient result = problem.by(Checkpointed{checkpoints, segment});
      CHECK(same_bits(result, tape));
      const CheckpointSchedule schedule(23, checkpoints, segment);
      CHECK(result.cost.gradients == 46 + schedule.repeated_steps());
      CHECK(result.cost.hessian_vector_products == 23);
    }
  }
  const Case net = digits({.steps = 17});
  CHECK(same_bits(net.by(Checkpointed{2, 2}), net.by(Unrolled{})));
}

TEST_CASE("checkpointed: a pullback may be called again after its states have made room for others") {
  const Case problem = Quadratic(19, Rule::momentum).problem();
  for (const Checkpointed& method : {Checkpointed{4}, Checkpointed{2, 1}}) {
    auto [end, pullback] = ht::vjp(
        [&](const TensorList& h) {
          return solve(problem.problem, problem.h.with(h), method).parameters.tensors();
        },
        problem.h.tensors());
    const TensorList first = pullback(end), second = pullback(end), third = pullback.consume(end);
    for (std::size_t i = 0; i < first.size(); ++i) {
      CHECK(ladder::elements(first[i]) == ladder::elements(second[i]));
      CHECK(ladder::elements(first[i]) == ladder::elements(third[i]));
    }
  }
}

TEST_CASE("checkpointed: settings as text") {
  CHECK(Estimator(Checkpointed{3, 1}).setting() == "3 checkpoints, tapes of 1 step");
  CHECK(Estimator(Checkpointed{1, 20}).setting() == "1 checkpoint, tapes of 20 steps");
  CHECK(Estimator(Checkpointed{}).setting() == "sqrt(T) checkpoints");
}
