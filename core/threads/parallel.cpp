// Each call cuts its chunks into one contiguous share per thread. A participant first works through its own
// share, then helps with the others': neighbouring chunks tend to run on one thread (which keeps what they
// share in that core's cache), and a thread that arrives late costs nothing but its help.
#include <hypertape/core/parallel.h>

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

#include <hypertape/core/error.h>
#include "core/base/default_floats.h"
#include "core/threads/cpu_quota.h"
#include "core/threads/helper_threads.h"

namespace hypertape {
namespace {

constexpr int most_threads = detail::most_helpers + 1;

int default_threads() noexcept {
  const detail::DefaultFloats floats;
  int quota = 0;
  try {
    quota = detail::cpu_quota();
  } catch (...) {  // no memory to read it with
  }
  return detail::threads_for(quota, available_cpus());
}

std::atomic<int>& configured_threads() noexcept {
  static std::atomic<int> count{default_threads()};
  return count;
}

// True while this thread runs a chunk of a parallel call: nested calls then stay on this thread.
thread_local bool inside_chunk = false;

struct InsideChunk {
  InsideChunk() noexcept : before(inside_chunk) { inside_chunk = true; }
  ~InsideChunk() { inside_chunk = before; }
  InsideChunk(const InsideChunk&) = delete;
  InsideChunk& operator=(const InsideChunk&) = delete;
  bool before;
};

// One cache line each, so that participants do not slow each other down.
struct alignas(64) Share {
  std::atomic<std::int64_t> next{0};
  std::int64_t end = 0;
};

class Job final : public detail::SharedWork {
 public:
  Job(detail::Crew& crew, std::int64_t chunks, Share* storage, int count, detail::ChunkBody body) noexcept
      : crew_(crew), count_(count), shares_(storage), body_(body) {
    for (int s = 0; s < count_; ++s) {
      shares_[s].next.store(chunks * s / count_, std::memory_order_relaxed);
      shares_[s].end = chunks * (s + 1) / count_;
    }
  }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  void take_part(int own) noexcept override {
    const InsideChunk inside;
    for (int offset = 0; offset < count_; ++offset) {
      Share& share = shares_[(own + offset) % count_];
      while (share.next.load(std::memory_order_relaxed) < share.end) {
        const std::int64_t chunk = share.next.fetch_add(1, std::memory_order_relaxed);
        if (chunk >= share.end || failed_.load(std::memory_order_relaxed)) break;
        run(chunk);
        if (own == 0) crew_.wake_another();
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

  detail::Crew& crew_;
  int count_;
  Share* shares_;
  detail::ChunkBody body_;
  std::atomic<bool> failed_{false};
  std::mutex error_mutex_;
  std::exception_ptr error_;
};

}  // namespace

int available_cpus() noexcept {
  static const int cpus = std::clamp(CPU_COUNT(&detail::usable_cpus()), 1, most_threads);
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

void run_chunks(std::int64_t chunks, ChunkBody body, CallSize call) {
  const int wanted = static_cast<int>(std::min<std::int64_t>(chunks, thread_count()));
  if (wanted <= 1 || inside_chunk) {
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) body.call(body.object, chunk);
    return;
  }
  Crew crew(wanted);
  if (crew.size() == 1) {
    const InsideChunk inside;
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) body.call(body.object, chunk);
    return;
  }
  // Threads beyond the shares begin in another's: shares for 256 threads would take 16 KiB of the caller's
  // stack.
  constexpr int most_shares = 48;
  Share storage[most_shares];
  Job job(crew, chunks, storage, std::min(crew.size(), most_shares), body);
  crew.run(job, call);
  job.rethrow();
}

}  // namespace detail
}  // namespace hypertape
