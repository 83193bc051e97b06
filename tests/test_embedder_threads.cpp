// ctest labels: threads
//
// Inside a program that has threads of its own, by whatever means: no more threads than agreed, limits
// respected, nothing that waits for ever, and everybody gets the bits that they get alone.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/parallel.h>
#include "ladder.h"

#if defined(HYPERTAPE_TEST_TBB)
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#endif

namespace {

namespace ht = hypertape;
using ht::Tensor;
using ht::TensorList;
using ladder::same_bits;
using ladder::sample;

int live_threads() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return static_cast<int>(std::distance(begin(tasks), end(tasks)));
}

// Large enough that products, elementwise loops and sums are all shared out.
const TensorList& operands() {
  static const TensorList list{sample({150, 220}, -1, 1, 1), sample({220, 310}, -1, 1, 2),
                               sample({310}, -1, 1, 3)};
  return list;
}

// Value, gradient and Hessian product of a loss; the same on any thread.
TensorList work() {
  const TensorList& x = operands();
  const auto loss = [&](const TensorList& w) {
    return ht::mean(ht::square(ht::tanh(ht::matmul(x[0], w[0]) + w[1])));
  };
  const TensorList w{x[1], x[2]};
  TensorList all = ht::grad(loss, w);
  for (Tensor& t : ht::hvp(loss, w, w)) all.push_back(std::move(t));
  all.push_back(loss(w));
  return all;
}

const TensorList& alone() {
  static const TensorList results = work();
  return results;
}

// Chunks that note how many of them run at once, and on which threads.
class Watch {
 public:
  void run(std::int64_t chunks) {
    ht::parallel_chunks(chunks, [this](std::int64_t) {
      const int now = ++running_;
      for (int most = most_; now > most && !most_.compare_exchange_weak(most, now);) {
      }
      // Long enough for others to come in.
      volatile double x = 1;
      for (int i = 0; i < 2000; ++i) x = x * 1.0000001;
      {
        const std::lock_guard lock(mutex_);
        threads_.insert(std::this_thread::get_id());
      }
      --running_;
    });
  }
  int most() const { return most_; }
  const std::set<std::thread::id>& threads() const { return threads_; }

 private:
  std::atomic<int> running_{0}, most_{0};
  std::mutex mutex_;
  std::set<std::thread::id> threads_;
};

void run_threads(int count, const std::function<void()>& body) {
  std::barrier together(count);
  std::vector<std::thread> threads;
  for (int k = 0; k < count; ++k)
    threads.emplace_back([&] {
      together.arrive_and_wait();
      body();
    });
  for (std::thread& thread : threads) thread.join();
}

// A call on another thread that has all threads, though only its first chunk, which goes on during this
// object's life, keeps one busy: the others could come over.
class AllTaken {
 public:
  AllTaken()
      : caller_([this] {
          ht::parallel_chunks(ht::available_cpus(), [this](std::int64_t chunk) {
            if (chunk > 0) return;
            begun_ = true;
            while (!done_) std::this_thread::yield();
          });
        }) {
    while (!begun_) std::this_thread::yield();
  }
  ~AllTaken() {
    done_ = true;
    caller_.join();
  }
  AllTaken(const AllTaken&) = delete;
  AllTaken& operator=(const AllTaken&) = delete;

 private:
  std::atomic<bool> begun_{false}, done_{false};
  std::thread caller_;
};

// Chunks that wait for each other end only on as many threads.
void expect_all_free() {
  const int count = ht::thread_count();
  std::barrier everybody(count);
  ht::parallel_chunks(count, [&](std::int64_t) { everybody.arrive_and_wait(); });
}

}  // namespace

TEST_CASE("k callers have at most thread_count() - 1 helpers between them, and no thread is made for each") {
  const TensorList& expected = alone();  // whatever threads there will be, are
  Watch().run(1000);
  const int before = live_threads();
  for (const int callers : {1, 2, 5}) {
    for (const int count : {1, ht::available_cpus()}) {
      const ladder::Threads use(count);
      Watch watch;
      std::atomic<int> most_threads{0}, wrong{0};
      run_threads(callers, [&] {
        for (int repeat = 0; repeat < 20; ++repeat) watch.run(16);
        if (!same_bits(work(), expected)) ++wrong;
        const int now = live_threads();
        for (int most = most_threads; now > most && !most_threads.compare_exchange_weak(most, now);) {
        }
      });
      CAPTURE(callers);
      CAPTURE(count);
      CHECK(wrong == 0);
      CHECK(watch.most() <= callers + count - 1);
      // Threads that the first calls have not made yet: at most the rest of one pool.
      CHECK(most_threads <= before + callers + ht::available_cpus() - 1);
    }
  }
}

TEST_CASE("who calls while all threads are taken works alone, and they are free afterwards") {
  const int count = ht::thread_count();
  if (count < 2) return;
  const std::set only{std::this_thread::get_id()};
  {
    const AllTaken taken;
    Watch crowded;
    for (int repeat = 0; repeat < 30; ++repeat) crowded.run(64);
    CHECK(crowded.threads() == only);
  }
  expect_all_free();
  // Nested calls stay on their thread even if others have become free since.
  Watch nested;
  auto taken = std::make_unique<AllTaken>();
  ht::parallel_chunks(8, [&](std::int64_t) {
    taken.reset();
    for (int repeat = 0; repeat < 10; ++repeat) nested.run(64);
  });
  CHECK(nested.threads() == only);
}

TEST_CASE("a chunk that throws gives its threads back") {
  run_threads(3, [] {
    for (int repeat = 0; repeat < 30; ++repeat) {
      try {
        ht::parallel_chunks(16, [](std::int64_t chunk) {
          if (chunk % 5 == 2) throw 1;
        });
      } catch (int) {
      }
    }
  });
  expect_all_free();
}

#if defined(HYPERTAPE_TEST_TBB)

TEST_CASE("tasks of an embedder's TBB may call, many at once and inside each other's arenas") {
  const TensorList& expected = alone();
  std::atomic<int> wrong{0};
  const auto tasks = [&] {
    tbb::parallel_for(0, 12, [&](int) {
      if (!same_bits(work(), expected)) ++wrong;
    });
  };
  tasks();
  tbb::task_arena(2).execute(tasks);
  run_threads(2, tasks);
  CHECK(wrong == 0);
}

#endif

#if defined(_OPENMP)

TEST_CASE("an embedder's OpenMP threads may call, and the library makes no OpenMP threads") {
  const TensorList& expected = alone();
  std::atomic<int> wrong{0};
  const auto region = [&] {
#pragma omp parallel for num_threads(3) schedule(static, 1)
    for (int k = 0; k < 6; ++k)
      if (!same_bits(work(), expected)) ++wrong;
  };
  region();  // OpenMP keeps its threads
  const int before = live_threads();
  region();
  CHECK(wrong == 0);
  CHECK(live_threads() <= before + ht::available_cpus() - 1);
}

#endif
