// ctest labels: threads kernels
// The thread wrapper: every chunk runs once, nested calls stay put, exceptions arrive.
#include <doctest/doctest.h>

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cpu_loops.h"
#include "hypertape/core/error.h"
#include "hypertape/core/parallel.h"
#include "late_help.h"

using namespace hypertape;

namespace {

struct ThreadCount {
  explicit ThreadCount(int count) : before(thread_count()) { set_thread_count(count); }
  ~ThreadCount() { set_thread_count(before); }
  int before;
};

}  // namespace

TEST_CASE("every chunk runs exactly once, for every number of chunks and threads") {
  for (int threads = 1; threads <= available_cpus(); ++threads) {
    const ThreadCount use(threads);
    for (const std::int64_t chunks : {0, 1, 2, 3, 7, 64, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(chunks));
      parallel_chunks(chunks, [&](std::int64_t chunk) { ++runs[static_cast<std::size_t>(chunk)]; });
      for (const auto& count : runs) REQUIRE(count == 1);
    }
  }
}

TEST_CASE("ranges cover [0, size) with borders that are multiples of the grain") {
  for (const std::int64_t size : {0, 1, 9, 10, 11, 95}) {
    std::vector<std::atomic<int>> runs(static_cast<std::size_t>(size));
    parallel_ranges(size, 10, [&](std::int64_t begin, std::int64_t end) {
      // Not CHECK: doctest's counters are not the business of several threads here.
      if (begin % 10 != 0 || end - begin > 10) throw std::logic_error("border");
      for (std::int64_t i = begin; i < end; ++i) ++runs[static_cast<std::size_t>(i)];
    });
    for (const auto& count : runs) REQUIRE(count == 1);
  }
}

TEST_CASE("work over elements is shared from `least` on, in even pieces of whole cache lines") {
  for (const std::size_t element : {4u, 8u})
    for (const int cost : {1, 3, 8, 20}) {
      const detail::Sharing sharing = detail::Sharing::of(element, cost);
      INFO(element, " bytes, cost ", cost);
      for (const std::int64_t size : {std::int64_t{0}, std::int64_t{1}, sharing.least})
        CHECK(sharing.piece(size) == std::max<std::int64_t>(size, 1));
      for (const std::int64_t size : {sharing.least + 1, 2 * sharing.least, std::int64_t{1'000'003}}) {
        const std::int64_t piece = sharing.piece(size), pieces = (size + piece - 1) / piece;
        CHECK(piece % 64 == 0);
        CHECK(piece < sharing.grain + 64);
        // The last piece lacks no more than what rounding up gave the others.
        CHECK(size - (pieces - 1) * piece > piece - 64 * pieces);
      }
    }
  // Bytes count, and what an element costs.
  CHECK(detail::Sharing::of(4).least == 2 * detail::Sharing::of(8).least);
  CHECK(detail::Sharing::of(8, 3).least == detail::Sharing::of(8).least / 2);
}

TEST_CASE("nested calls run in order on the calling thread") {
  std::atomic<int> wrong{0};
  parallel_chunks(8, [&](std::int64_t) {
    const std::thread::id outer = std::this_thread::get_id();
    std::int64_t expected = 0;
    parallel_chunks(20, [&](std::int64_t inner) {
      if (std::this_thread::get_id() != outer || inner != expected++) ++wrong;
    });
  });
  CHECK(wrong == 0);
}

TEST_CASE("one thread runs the chunks in order, in place") {
  const ThreadCount use(1);
  const std::thread::id here = std::this_thread::get_id();
  std::vector<std::int64_t> order;
  parallel_chunks(5, [&](std::int64_t chunk) {
    REQUIRE(std::this_thread::get_id() == here);
    order.push_back(chunk);
  });
  CHECK(order == std::vector<std::int64_t>{0, 1, 2, 3, 4});
}

TEST_CASE("an exception of a chunk reaches the caller and the next call works") {
  for (int threads = 1; threads <= available_cpus(); ++threads) {
    const ThreadCount use(threads);
    for (int repeat = 0; repeat < 50; ++repeat) {
      CHECK_THROWS_WITH_AS(parallel_chunks(16,
                                           [](std::int64_t chunk) {
                                             if (chunk == 11) throw std::runtime_error("eleven");
                                           }),
                           "eleven", std::runtime_error);
      std::atomic<int> runs{0};
      parallel_chunks(16, [&](std::int64_t) { ++runs; });
      CHECK(runs == 16);
    }
  }
}

TEST_CASE("several user threads may call at once") {
  std::vector<std::int64_t> sums(4);
  std::vector<std::thread> users;
  for (std::int64_t& sum : sums) {
    users.emplace_back([&sum] {
      for (int repeat = 0; repeat < 200; ++repeat) {
        std::vector<std::int64_t> values(37);
        parallel_chunks(37, [&](std::int64_t chunk) { values[static_cast<std::size_t>(chunk)] = chunk; });
        sum += std::accumulate(values.begin(), values.end(), std::int64_t{0});
      }
    });
  }
  for (std::thread& user : users) user.join();
  for (const std::int64_t sum : sums) CHECK(sum == 200 * 36 * 37 / 2);
}

TEST_CASE("set_thread_count refuses what this process cannot run on") {
  const int before = thread_count();
  for (const int count : {0, -1, available_cpus() + 1}) {
    try {
      set_thread_count(count);
      FAIL("accepted ", count);
    } catch (const Error& error) {
      CHECK(error.operation() == "set_thread_count");
      CHECK(std::string(error.what()).find(std::to_string(count)) != std::string::npos);
    }
    CHECK(thread_count() == before);
  }
}

TEST_CASE("a caller without help moves aside, and its affinity is as before") {
  using std::chrono::microseconds;
  const auto affinity = [] {
    cpu_set_t set;
    CPU_ZERO(&set);
    CHECK(sched_getaffinity(0, sizeof set, &set) == 0);
    return set;
  };
  const cpu_set_t all = affinity();
  // Whether the caller is elsewhere after a call of which `wait` passed without help.
  const auto moves = [](microseconds wait, bool helped_before = false) {
    detail::LateHelp late;
    late.begin();
    std::this_thread::sleep_for(wait);
    if (helped_before) {
      late.end(true);
      late.begin();
    }
    const int here = sched_getcpu();
    late.alone();
    const bool moved = sched_getcpu() != here;
    late.end(false);
    return moved;
  };
  int moved = 0, too_early = 0, helped = 0;
  for (int i = 0; i < 50; ++i) {
    moved += moves(microseconds(2000));
    too_early += moves(microseconds(0));
    helped += moves(microseconds(2000), true);
  }
  const cpu_set_t after = affinity();
  CHECK(CPU_EQUAL(&all, &after));
  CHECK(CPU_COUNT(&after) == available_cpus());  // nor has an earlier call left less
  // The system may move a thread by itself, and back.
  if (CPU_COUNT(&all) > 1) CHECK(moved > 25);
  CHECK(too_early < 25);
  CHECK(helped < 25);

  // Who may run on one CPU only stays there.
  std::thread([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    CHECK_FALSE(moves(microseconds(2000)));
    const cpu_set_t still = affinity();
    CHECK(CPU_EQUAL(&one, &still));
  }).join();
}
