// Each call cuts its chunks into one contiguous share per thread. A participant first works through its own
// share, then helps with the others': neighbouring chunks tend to run on one thread (which keeps what they
// share in that core's cache), and a thread that arrives late costs nothing but its help.
#include "hypertape/core/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

#include "hypertape/core/error.h"
#include "late_help.h"

#if defined(HYPERTAPE_STD_THREADS)
#include <condition_variable>
#include <list>
#include <thread>
#include <vector>
#else
#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/partitioner.h>
#include <tbb/task_arena.h>
#include <tbb/task_group.h>
#endif

namespace hypertape {
namespace {

constexpr int max_shares = 256;

int count_cpus() noexcept {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;  // more than 1024 CPUs, or not permitted
  return std::clamp(CPU_COUNT(&set), 1, max_shares);
}

std::atomic<int>& configured_threads() noexcept {
  static std::atomic<int> count{available_cpus()};
  return count;
}

// Threads at work in parallel calls: the callers and the helpers of all calls together.
std::atomic<int>& threads_at_work() noexcept {
  static std::atomic<int> count{0};
  return count;
}

// The caller and its helpers for one call: only as many helpers as leave all calls together with
// thread_count() threads. Who calls when all are taken works alone, so that k threads of an embedder that
// call at once do not make k times as many.
class Team {
 public:
  explicit Team(int wanted) noexcept {
    int at_work = threads_at_work().load(std::memory_order_relaxed);
    do {
      size_ = std::clamp(thread_count() - at_work, 1, wanted);
    } while (!threads_at_work().compare_exchange_weak(at_work, at_work + size_, std::memory_order_relaxed));
  }
  ~Team() { threads_at_work().fetch_sub(size_, std::memory_order_relaxed); }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  int size() const noexcept { return size_; }

 private:
  int size_;
};

// True while this thread runs a chunk of a parallel call: nested calls then stay on this thread.
thread_local bool inside_chunk = false;

struct InsideChunk {
  InsideChunk() noexcept : before(inside_chunk) { inside_chunk = true; }
  ~InsideChunk() { inside_chunk = before; }
  InsideChunk(const InsideChunk&) = delete;
  InsideChunk& operator=(const InsideChunk&) = delete;
  bool before;
};

thread_local detail::LateHelp late_help;

// One cache line each, so that participants do not slow each other down.
struct alignas(64) Share {
  std::atomic<std::int64_t> next{0};
  std::int64_t end = 0;
};

class Job {
 public:
  Job(std::int64_t chunks, int shares, Share* storage, detail::ChunkBody body) noexcept
      : count_(shares), shares_(storage), body_(body) {
    for (int s = 0; s < shares; ++s) {
      shares_[s].next.store(chunks * s / shares, std::memory_order_relaxed);
      shares_[s].end = chunks * (s + 1) / shares;
    }
    late_help.begin();
  }
  ~Job() { late_help.end(helped_.load(std::memory_order_relaxed)); }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  void participate(int own) noexcept {
    const InsideChunk inside;
    const bool called = caller_ == &late_help;
    if (!called) helped_.store(true, std::memory_order_relaxed);
    for (int offset = 0; offset < count_; ++offset) {
      Share& share = shares_[(own + offset) % count_];
      while (share.next.load(std::memory_order_relaxed) < share.end) {
        const std::int64_t chunk = share.next.fetch_add(1, std::memory_order_relaxed);
        if (chunk >= share.end || failed_.load(std::memory_order_relaxed)) break;
        run(chunk);
        if (called && !helped_.load(std::memory_order_relaxed)) late_help.alone();
      }
    }
  }

  void rethrow() {
    if (failed_.load(std::memory_order_relaxed)) std::rethrow_exception(error_);
  }

 private:
  void run(std::int64_t chunk) noexcept {
    try {
      body_.call(body_.object, chunk);
    } catch (...) {
      const std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
      failed_.store(true, std::memory_order_relaxed);
    }
  }

  const detail::LateHelp* caller_ = &late_help;
  int count_;
  Share* shares_;
  detail::ChunkBody body_;
  std::atomic<bool> failed_{false}, helped_{false};
  std::mutex error_mutex_;
  std::exception_ptr error_;
};

#if defined(HYPERTAPE_STD_THREADS)

// For the thread sanitizer, which cannot see inside an uninstrumented TBB. Not tuned.
class Pool {
 public:
  static Pool& instance() {
    static Pool pool;
    return pool;
  }

  void run(Job& job, int shares) {
    Entry entry{&job, 1, shares, 0};
    std::unique_lock lock(mutex_);
    const auto place = entries_.insert(entries_.end(), &entry);
    wake_.notify_all();
    lock.unlock();
    job.participate(0);
    lock.lock();
    entries_.erase(place);
    idle_.wait(lock, [&] { return entry.active == 0; });
  }

 private:
  struct Entry {
    Job* job;
    int next_share;
    int shares;
    int active;
  };

  Pool() {
    for (int i = 1; i < available_cpus(); ++i) threads_.emplace_back([this] { work(); });
  }

  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      const auto open = [](const Entry* entry) { return entry->next_share < entry->shares; };
      wake_.wait(lock, [&] { return stop_ || std::any_of(entries_.begin(), entries_.end(), open); });
      if (stop_) return;
      Entry& entry = **std::find_if(entries_.begin(), entries_.end(), open);
      const int own = entry.next_share++;
      ++entry.active;
      lock.unlock();
      entry.job->participate(own);
      lock.lock();
      if (--entry.active == 0) idle_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  std::list<Entry*> entries_;
  std::vector<std::thread> threads_;
  bool stop_ = false;
};

void run_job(Job& job, int shares) { Pool::instance().run(job, shares); }

#else

// As many tasks as threads may take part: that bounds the concurrency without an arena of our own and
// respects the arena that an embedder runs us in. Isolation keeps the waiting thread from picking up the
// embedder's tasks, which would then run inside our caller's scopes.
void run_job(Job& job, int shares) {
  tbb::this_task_arena::isolate([&] {
    // A context of its own: if the embedder cancels the group it calls us from, our chunks must still all
    // run.
    tbb::task_group_context context(tbb::task_group_context::isolated);
    tbb::parallel_for(
        tbb::blocked_range<int>(0, shares, 1),
        [&](const tbb::blocked_range<int>& range) {
          for (int own = range.begin(); own < range.end(); ++own) job.participate(own);
        },
        tbb::simple_partitioner(), context);
  });
}

#endif

}  // namespace

int available_cpus() noexcept {
  static const int cpus = count_cpus();
  return cpus;
}

int thread_count() noexcept { return configured_threads().load(std::memory_order_relaxed); }

void set_thread_count(int count) {
  if (count < 1 || count > available_cpus()) {
    fail("set_thread_count", "count is ", count, ", but this process may run on ", available_cpus(),
         " CPUs; use a count from 1 to ", available_cpus());
  }
  configured_threads().store(count, std::memory_order_relaxed);
}

namespace detail {

void run_chunks(std::int64_t chunks, ChunkBody body) {
  const int wanted = static_cast<int>(std::min<std::int64_t>(chunks, thread_count()));
  if (wanted <= 1 || inside_chunk) {
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) body.call(body.object, chunk);
    return;
  }
  const Team team(wanted);
  const int shares = team.size();
  if (shares == 1) {
    const InsideChunk inside;
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) body.call(body.object, chunk);
    return;
  }
  constexpr int usual = 16;
  if (shares <= usual) {
    Share storage[usual];
    Job job(chunks, shares, storage, body);
    run_job(job, shares);
    job.rethrow();
  } else {
    Share storage[max_shares];
    Job job(chunks, shares, storage, body);
    run_job(job, shares);
    job.rethrow();
  }
}

}  // namespace detail
}  // namespace hypertape
