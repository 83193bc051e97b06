// ctest labels: threads kernels
// The thread wrapper: every chunk runs once, nested calls stay put, exceptions arrive.
#include <doctest/doctest.h>

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <mutex>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <hypertape/core/error.h>
#include <hypertape/core/parallel.h>
#include "core/cpu/views.h"

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
        CHECK(piece < sharing.least + 64);
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

namespace {

void work_for(int microseconds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
  while (std::chrono::steady_clock::now() < until) {
  }
}

// The threads that took part in a call of `chunks` pieces of some `microseconds` each.
std::set<std::thread::id> threads_of(std::int64_t chunks, int microseconds, CallSize size) {
  std::mutex mutex;
  std::set<std::thread::id> threads;
  parallel_chunks(
      chunks,
      [&](std::int64_t) {
        work_for(microseconds);
        const std::lock_guard lock(mutex);
        threads.insert(std::this_thread::get_id());
      },
      size);
  return threads;
}

// Long enough for every helper to go to sleep.
void let_helpers_sleep() { std::this_thread::sleep_for(std::chrono::milliseconds(5)); }

}  // namespace

TEST_CASE("small calls wake helpers only when they go on, others at once") {
  if (thread_count() < 2) return;
  int now_and_then = 0, going_on = 0, large = 0;
  for (int repeat = 0; repeat < 20; ++repeat) {
    let_helpers_sleep();
    threads_of(4, 1, CallSize::brief);
    work_for(200);  // had it been woken, it would be looking for work by now
    now_and_then += threads_of(10, 1, CallSize::brief).size() > 1;
    let_helpers_sleep();
    // 20 ms on one thread, where a helper is there within 0.2.
    bool came = false;
    for (int i = 0; i < 2000 && !came; ++i) came = threads_of(10, 1, CallSize::brief).size() > 1;
    going_on += came;
    let_helpers_sleep();
    large += threads_of(200, 50, CallSize::any).size() > 1;
  }
  // Others may need the CPUs.
  CHECK(now_and_then <= 10);
  CHECK(going_on >= 10);
  CHECK(large >= 10);
}

TEST_CASE("helpers leave their caller's CPU alone, and the caller where it may run") {
  if (thread_count() < 2) return;
  const auto affinity = [] {
    cpu_set_t set;
    CPU_ZERO(&set);
    CHECK(sched_getaffinity(0, sizeof set, &set) == 0);
    return set;
  };
  const cpu_set_t before = affinity();
  // A caller that is moved from CPU to CPU, while helpers sleep and while they look for work.
  std::thread([&] {
    for (const bool asleep : {true, false})
      for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &before)) continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
        if (asleep)
          let_helpers_sleep();
        else
          threads_of(20, 50, CallSize::any);  // shows where helpers are
        const std::thread::id caller = std::this_thread::get_id();
        std::atomic<int> helped{0}, in_the_way{0};
        for (int attempt = 0; attempt < 20 && helped == 0; ++attempt)
          parallel_chunks(200, [&](std::int64_t) {
            work_for(50);
            if (std::this_thread::get_id() == caller) return;
            ++helped;
            in_the_way += sched_getcpu() == cpu;
          });
        INFO("CPU ", cpu, asleep ? ", asleep" : ", awake");
        CHECK(helped > 0);
        // It is sure on two CPUs, and tested there; elsewhere the system may have moved a helper since the
        // last call, and is rarely in the way by itself.
        CHECK(in_the_way <= (CPU_COUNT(&before) == 2 ? 0 : helped / 4));
      }
    const cpu_set_t one = affinity();
    CHECK(CPU_COUNT(&one) == 1);
  }).join();
  const cpu_set_t after = affinity();
  CHECK(CPU_EQUAL(&before, &after));
}

TEST_CASE("helpers round as their caller does") {
  const int before = std::fegetround();
  const auto third = [] {
    volatile double one = 1, three = 3;
    return one / three;
  };
  std::atomic<int> wrong{0};
  for (const int mode : {FE_UPWARD, FE_DOWNWARD, FE_TONEAREST}) {
    std::fesetround(mode);
    const double expected = third();
    CHECK((expected > 1.0 / 3) == (mode == FE_UPWARD));
    for (int attempt = 0; attempt < 100; ++attempt)
      parallel_chunks(100, [&](std::int64_t) { wrong += third() != expected; });
  }
  std::fesetround(before);
  CHECK(wrong == 0);
}

#if !defined(__SANITIZE_THREAD__)  // which allows no threads in forked processes
TEST_CASE("a forked child, with which no helper came, has helpers of its own") {
  threads_of(200, 50, CallSize::any);
  std::cout << std::flush;  // or the child would print it once more
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const bool helped = thread_count() == 1 || threads_of(2000, 50, CallSize::any).size() > 1;
    std::exit(helped ? 0 : 1);  // with the library's threads ended as in any process
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
#endif
