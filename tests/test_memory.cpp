// ctest labels: threads
// The allocator: what a block is, what is counted, and what happens to blocks that change threads.
#include <doctest/doctest.h>
#include <hypertape/core/error.h>
#include <hypertape/core/memory.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using hypertape::accounted_bytes;
using hypertape::allocate_bytes;
using hypertape::memory_statistics;
using hypertape::MemoryStatistics;
using hypertape::peak_granularity;
using hypertape::PeakScope;
using hypertape::release_bytes;
using hypertape::trim_memory;

// The address sanitizer's own allocator takes the place of the cache, so nothing can be said about caching.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool caches = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool caches = false;
#else
constexpr bool caches = true;
#endif
#else
constexpr bool caches = true;
#endif

constexpr std::size_t mebibyte = std::size_t{1} << 20;

std::int64_t live_bytes() { return memory_statistics().live_bytes; }
std::int64_t held_bytes() { return memory_statistics().live_bytes + memory_statistics().cached_bytes; }
std::int64_t system_allocations() { return memory_statistics().system_allocations; }
std::int64_t counted(std::size_t bytes) { return static_cast<std::int64_t>(accounted_bytes(bytes)); }

std::vector<void*> allocate_many(std::size_t count, std::size_t bytes) {
  std::vector<void*> blocks(count);
  for (void*& block : blocks) block = allocate_bytes(bytes);
  return blocks;
}

void release_all(const std::vector<void*>& blocks) {
  for (void* block : blocks) release_bytes(block);
}

void on_a_thread(const std::function<void()>& work) { std::thread(work).join(); }

/// A block that notices when someone else writes to it.
struct MarkedBlock {
  MarkedBlock(std::size_t size, unsigned char value) : bytes(size), mark(value), data(allocate_bytes(size)) {
    std::memset(data, mark, bytes);
  }
  bool is_intact() const {
    const auto* begin = static_cast<const unsigned char*>(data);
    return std::all_of(begin, begin + bytes, [this](unsigned char byte) { return byte == mark; });
  }
  std::size_t bytes;
  unsigned char mark;
  void* data;
};

/// Allocates and releases in its destructor: as a static or thread-local object, after the allocator's own.
struct LateUser {
  void* block = nullptr;
  ~LateUser() {
    release_bytes(block);
    for (int i = 0; i < 2000; ++i) {
      void* first = allocate_bytes(100);
      std::memset(first, i, 100);
      release_bytes(allocate_bytes(100));
      release_bytes(first);
    }
    void* large = allocate_bytes(3 * mebibyte);
    static_cast<char*>(large)[3 * mebibyte - 1] = 1;
    release_bytes(large);
  }
};

// A crash in its destructor fails the whole test program.
LateUser static_user;

}  // namespace

TEST_CASE("memory: a size class holds its request and wastes at most an eighth above 512 bytes") {
  std::size_t previous = 0;
  for (std::size_t bytes = 0; bytes < 40000; ++bytes) {
    const std::size_t size = accounted_bytes(bytes);
    REQUIRE(size >= std::max<std::size_t>(bytes, 16));
    REQUIRE(size >= previous);
    if (bytes > 48) REQUIRE(size % 64 == 0);
    if (bytes > 512) REQUIRE(size - bytes <= bytes / 8);
    REQUIRE(accounted_bytes(size) == size);
    previous = size;
  }
  for (std::size_t bytes = 40000; bytes < (std::size_t{1} << 45); bytes += bytes / 7) {
    CHECK(accounted_bytes(bytes) >= bytes);
    CHECK(accounted_bytes(bytes) - bytes <= bytes / 8);
  }
}

TEST_CASE("memory: blocks of all sizes are aligned, writable, disjoint and counted") {
  const std::int64_t level = live_bytes();
  std::vector<MarkedBlock> blocks;
  std::int64_t expected = 0;
  unsigned mark = 0;
  const auto add = [&](std::size_t bytes) {
    blocks.emplace_back(bytes, static_cast<unsigned char>(++mark % 251));
    expected += counted(bytes);
    REQUIRE(blocks.back().data != nullptr);
    REQUIRE(reinterpret_cast<std::uintptr_t>(blocks.back().data) % (bytes > 48 ? 64 : 16) == 0);
  };
  for (std::size_t bytes = 0; bytes < 1200; ++bytes) add(bytes);
  for (std::size_t bytes = 1200; bytes < 5 * mebibyte; bytes += bytes / 9) {
    add(bytes);
    add(accounted_bytes(bytes));
  }
  CHECK(live_bytes() - level == expected);
  std::mt19937 random(7);
  std::shuffle(blocks.begin(), blocks.end(), random);
  for (const MarkedBlock& block : blocks) {
    REQUIRE(block.is_intact());
    release_bytes(block.data);
  }
  CHECK(live_bytes() == level);
  release_bytes(nullptr);
  CHECK(live_bytes() == level);
}

TEST_CASE("memory: a request that no system can meet throws and changes nothing") {
  const MemoryStatistics before = memory_statistics();
  const std::size_t most = std::numeric_limits<std::size_t>::max();
  for (const std::size_t bytes :
       {most, most - 63, most / 2, std::size_t{1} << 47, (std::size_t{1} << 46) + 1}) {
    std::string text;
    try {
      release_bytes(allocate_bytes(bytes));
    } catch (const hypertape::Error& error) {
      text = error.what();
    }
    CHECK(text.starts_with("[allocate] "));
    CHECK(text.find(std::to_string(bytes) + " bytes") != std::string::npos);
  }
  const MemoryStatistics after = memory_statistics();
  CHECK(after.live_bytes == before.live_bytes);
  CHECK(after.live_blocks == before.live_blocks);
  CHECK(after.peak_bytes == before.peak_bytes);
}

TEST_CASE("memory: statistics count blocks and bytes and remember the peak") {
  const MemoryStatistics before = memory_statistics();
  const std::vector<void*> small = allocate_many(1000, 150);
  void* large = allocate_bytes(9 * mebibyte);
  const MemoryStatistics during = memory_statistics();
  CHECK(during.live_bytes - before.live_bytes == 1000 * counted(150) + counted(9 * mebibyte));
  CHECK(during.live_blocks - before.live_blocks == 1001);
  release_bytes(large);
  release_all(small);
  const MemoryStatistics after = memory_statistics();
  CHECK(after.live_bytes == before.live_bytes);
  CHECK(after.live_blocks == before.live_blocks);
  CHECK(after.peak_bytes >= during.live_bytes - peak_granularity);
}

TEST_CASE("memory: a peak scope sees the high-water mark above its level") {
  void* outside = allocate_bytes(3 * mebibyte);
  const PeakScope scope;
  CHECK(scope.peak_bytes() == 0);
  release_bytes(outside);
  CHECK(scope.peak_bytes() == 0);

  const std::int64_t small = 1000 * counted(150);
  release_all(allocate_many(1000, 150));
  CHECK(scope.peak_bytes() == 0);  // still below the level at construction
  outside = allocate_bytes(3 * mebibyte);
  release_all(allocate_many(1000, 150));
  CHECK(scope.peak_bytes() <= small);
  CHECK(scope.peak_bytes() >= small - peak_granularity);
  release_bytes(outside);
}

TEST_CASE("memory: nested and overlapping peak scopes each see their own maximum") {
  const std::int64_t mib = counted(mebibyte);
  const auto touch = [](std::size_t mebibytes) { release_all(allocate_many(mebibytes, mebibyte)); };
  PeakScope outer;
  touch(5);
  CHECK(outer.peak_bytes() == 5 * mib);
  {
    const PeakScope inner;
    CHECK(inner.peak_bytes() == 0);
    touch(2);
    CHECK(inner.peak_bytes() == 2 * mib);
    CHECK(outer.peak_bytes() == 5 * mib);
    void* kept = allocate_bytes(mebibyte);
    {
      const PeakScope innermost;
      touch(8);
      CHECK(innermost.peak_bytes() == 8 * mib);
    }
    CHECK(inner.peak_bytes() == 9 * mib);
    release_bytes(kept);
  }
  CHECK(outer.peak_bytes() == 9 * mib);

  // Closed in the order they were opened in, as two threads may.
  auto* first = new PeakScope;
  touch(3);
  auto* second = new PeakScope;
  touch(4);
  CHECK(first->peak_bytes() == 4 * mib);
  delete first;
  touch(6);
  CHECK(second->peak_bytes() == 6 * mib);
  delete second;
  CHECK(outer.peak_bytes() == 9 * mib);
  CHECK(memory_statistics().peak_bytes >= 9 * mib);
}

TEST_CASE("memory: a peak scope sees what other threads allocate") {
  const PeakScope scope;
  on_a_thread([] { release_bytes(allocate_bytes(mebibyte)); });
  on_a_thread([] { release_bytes(allocate_bytes(5 * mebibyte)); });
  CHECK(scope.peak_bytes() == counted(5 * mebibyte));
}

TEST_CASE("memory: a repeated computation asks the system for nothing") {
  if (!caches) return;
  const auto step = [] {
    std::vector<void*> blocks;
    for (std::size_t i = 0; i < 2000; ++i) {
      for (const std::size_t bytes : {32, 96, 150, 4096, 12000}) blocks.push_back(allocate_bytes(bytes));
    }
    for (const std::size_t kib : {80, 360, 1000, 1025, 3000, 8192}) {
      blocks.push_back(allocate_bytes(kib * 1024));
    }
    release_all(blocks);
  };
  step();
  const std::int64_t before = system_allocations();
  for (int repeat = 0; repeat < 20; ++repeat) step();
  CHECK(system_allocations() == before);
}

TEST_CASE("memory: blocks released on another thread return to their owner") {
  const std::int64_t level = live_bytes();
  std::int64_t before = 0;
  for (int round = 0; round < 20; ++round) {
    std::vector<void*> blocks = allocate_many(20000, 1000);
    std::vector<void*> large = allocate_many(3, 2 * mebibyte);
    on_a_thread([&] {
      release_all(blocks);  // a thread without blocks of its own
      release_all(large);
      void* own = allocate_bytes(64);
      blocks = allocate_many(100, 1000);
      release_bytes(own);
    });
    on_a_thread([&] {
      void* own = allocate_bytes(64);
      release_all(blocks);
      release_bytes(own);
    });
    CHECK(live_bytes() == level);
    if (round == 0) before = system_allocations();
  }
  if (caches) CHECK(system_allocations() == before);
}

TEST_CASE("memory: blocks outlive their thread and its cache serves the next") {
  const std::int64_t level = live_bytes();
  std::int64_t before = 0;
  for (int round = 0; round < 20; ++round) {
    std::vector<MarkedBlock> blocks;
    on_a_thread([&] {
      for (int i = 0; i < 500; ++i)
        blocks.emplace_back(i % 2 == 0 ? 96 : 20000, static_cast<unsigned char>(i));
      release_all(allocate_many(5000, 200));
    });
    CHECK(live_bytes() - level == 250 * (counted(96) + counted(20000)));
    for (const MarkedBlock& block : blocks) {
      REQUIRE(block.is_intact());
      release_bytes(block.data);
    }
    CHECK(live_bytes() == level);
    if (round == 1) before = system_allocations();
  }
  if (caches) CHECK(system_allocations() == before);
}

TEST_CASE("memory: thread-local and static objects may use it in their destructors") {
  static_user.block = allocate_bytes(500);
  const MemoryStatistics before = memory_statistics();
  std::int64_t first_round = 0;
  for (int round = 0; round < 20; ++round) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([] {
        thread_local LateUser user;  // constructed first, so destroyed after the thread's heap was given back
        user.block = nullptr;
        user.block = allocate_bytes(300);
      });
    }
    for (std::thread& thread : threads) thread.join();
    if (round == 0) first_round = system_allocations() - before.system_allocations;
  }
  CHECK(memory_statistics().live_bytes == before.live_bytes);
  CHECK(memory_statistics().live_blocks == before.live_blocks);
  // At most what four threads at once need: nothing was left behind by those that ended.
  if (caches) CHECK(system_allocations() - before.system_allocations <= first_round + 16);
}

TEST_CASE("memory: trimming gives back what nobody uses and keeps what is live") {
  if (!caches) return;
  trim_memory();
  const std::int64_t held = held_bytes();
  const MarkedBlock kept(100, 17);
  const MarkedBlock kept_large(5 * mebibyte, 18);
  release_all(allocate_many(4000, 9000));
  release_all(allocate_many(200000, 40));
  release_bytes(allocate_bytes(50 * mebibyte));
  on_a_thread([] { release_all(allocate_many(2000, 9000)); });
  CHECK(memory_statistics().cached_bytes > 90 * static_cast<std::int64_t>(mebibyte));
  trim_memory();
  CHECK(held_bytes() - held < 10 * static_cast<std::int64_t>(mebibyte));
  CHECK(kept.is_intact());
  CHECK(kept_large.is_intact());
  release_all(allocate_many(4000, 9000));  // still works, from the system again
  release_bytes(kept.data);
  release_bytes(kept_large.data);
  trim_memory();
  CHECK(held_bytes() == held);
  if (live_bytes() == 0) CHECK(memory_statistics().cached_bytes == 0);
}

TEST_CASE("memory: free blocks of one size class become room for another") {
  if (!caches) return;
  trim_memory();
  const std::int64_t held = held_bytes();
  const auto use = [&](std::size_t mebibytes, std::size_t bytes) {
    const std::vector<void*> blocks = allocate_many(mebibytes * mebibyte / bytes, bytes);
    const std::int64_t peak = memory_statistics().peak_bytes;
    CHECK(held_bytes() - held <= peak + peak / 4 + 256 * static_cast<std::int64_t>(mebibyte));
    release_all(blocks);
  };
  for (const std::size_t bytes : {16384, 20480, 24576, 28672}) use(600, bytes);
  trim_memory();
  use(600, 16384);
  for (const std::size_t mebibytes : {300, 250, 200, 150}) use(600, mebibytes * mebibyte);
  trim_memory();
  CHECK(held_bytes() == held);
}

TEST_CASE("memory: threads that exchange blocks never see a block twice") {
  const std::int64_t level = live_bytes();
  std::mutex mutex;
  std::vector<MarkedBlock> exchange;
  const auto work = [&](unsigned seed) {
    std::mt19937 random(seed);
    for (int i = 0; i < 20000; ++i) {
      const std::size_t bytes = random() % (i % 64 == 0 ? 30000 : 400);
      const MarkedBlock mine(bytes, static_cast<unsigned char>(random() % 256));
      const std::lock_guard lock(mutex);
      exchange.push_back(mine);
      std::swap(exchange.back(), exchange[random() % exchange.size()]);
      if (exchange.size() < 200) continue;
      const MarkedBlock theirs = exchange.back();
      exchange.pop_back();
      if (!theirs.is_intact()) FAIL("block changed");
      release_bytes(theirs.data);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) threads.emplace_back(work, seed);
  threads.emplace_back([] {
    for (int i = 0; i < 200; ++i) {
      trim_memory();
      const PeakScope scope;
      release_bytes(allocate_bytes(2 * mebibyte));
      CHECK(scope.peak_bytes() >= counted(mebibyte));  // the others release some of what was below the level
    }
  });
  for (std::thread& thread : threads) thread.join();
  for (const MarkedBlock& block : exchange) {
    CHECK(block.is_intact());
    release_bytes(block.data);
  }
  CHECK(live_bytes() == level);
}
