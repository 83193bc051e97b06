// Each helper is owned by one caller at a time, who writes its work and moves its state:
//
//   free -> taken -> offered -> at_work -> done -> free
//                       `-----------------------^    taken back
//
// and from free to stopped when the process ends. Only offered -> at_work and at_work -> done are the
// helper's, and free -> taken -> free where it ends by itself, having slept for `retirement`: a process whose
// main thread has called pthread_exit ends with its last thread, which no helper may be. After its work a
// helper keeps looking for more for a while (`patience`): a call then costs 0.4 us. When it sleeps, waking it
// takes 10 us of the caller and 60 to 130 us until it is there (virtual machine, Linux 6.18). So small calls
// wake it only when they have gone on for `worth_waking`: a small net that is used now and then never pays
// for waking, nor does it keep other CPUs busy.
#include "core/threads/helper_threads.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cfenv>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <thread>

#include "core/base/default_floats.h"

namespace hypertape::detail {
namespace {

enum State : std::uint32_t { free, taken, offered, at_work, done, stopped };

using Clock = std::chrono::steady_clock;

constexpr auto patience = std::chrono::microseconds(300);
constexpr auto worth_waking = std::chrono::microseconds(20);
constexpr auto retirement = std::chrono::seconds(1);
// What `ulimit -s` says may be too little, or more than many threads can have. The library needs less than 64
// KiB; what remains is for static thread-local storage, which glibc takes from it, and bodies that users give
// to parallel_chunks.
constexpr std::size_t helper_stack = std::size_t{1} << 20;

// Since when this thread's small calls have found their helpers asleep, without pauses.
struct Alone {
  Clock::time_point since, last;
};
thread_local Alone alone;

bool small_calls_go_on() noexcept {
  const Clock::time_point now = Clock::now();
  if (now - alone.last > patience) alone.since = now;
  return now - alone.since > worth_waking;
}

// Threads at work in parallel calls: the callers and the helpers of all calls together.
constinit std::atomic<int> threads_at_work{0};

// Rounding, traps and treatment of subnormal numbers, which every thread sets for itself: helpers compute as
// their callers do. The library's own calls have default arithmetic (default_floats.h), those of
// parallel_chunks the user's.
#if defined(__x86_64__)
using FloatMode = unsigned int;
FloatMode float_mode() noexcept { return __builtin_ia32_stmxcsr(); }
void set_float_mode(FloatMode mode) noexcept { __builtin_ia32_ldmxcsr(mode); }
#elif defined(__aarch64__)
using FloatMode = std::uint64_t;
FloatMode float_mode() noexcept {
  FloatMode mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
void set_float_mode(FloatMode mode) noexcept { asm volatile("msr fpcr, %0" : : "r"(mode)); }
#else
using FloatMode = std::fenv_t;
FloatMode float_mode() noexcept {
  FloatMode mode;
  std::fegetenv(&mode);
  return mode;
}
void set_float_mode(const FloatMode& mode) noexcept { std::fesetenv(&mode); }
#endif

void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// All but one; empty if no other is left.
cpu_set_t others(int cpu) noexcept {
  cpu_set_t set = usable_cpus();
  if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_CLR(cpu, &set);
  return set;
}

}  // namespace

struct alignas(64) Helper {
  std::atomic<std::uint32_t> state{free};
  std::atomic<bool> asleep{false};
  std::atomic<std::uint32_t> wakings{0};
  // The owner's.
  SharedWork* work = nullptr;
  int share = 0;
  FloatMode mode{};
  Helper* before = nullptr;  // of the same call
  bool made = false;
  pthread_t thread{};
  // Where it was at its last work, and where it may run: `kept_off` is the CPU it was last kept away from.
  std::atomic<int> cpu{-1};
  std::atomic<pid_t> id{0};
  int kept_off = -1;
  cpu_set_t mask{};

  bool make(int caller_cpu) noexcept;
  void keep_off(int caller_cpu) noexcept;
  bool offer(SharedWork& work, int share, int caller_cpu) noexcept;
  void wake() noexcept;
  void release() noexcept;
  void live() noexcept;
  bool await_offer() noexcept;
  bool sleep(std::uint32_t before_sleep) noexcept;
  bool retire() noexcept;
};

namespace {

// Static storage that is never destroyed: a thread that outlives main may still call.
constinit Helper helpers[most_helpers];

// The process that has made threads: a child that was made behind the back of pthread_atfork has none to end.
constinit std::atomic<pid_t> maker{0};
// When the system has refused a thread it is asked again a second later.
constinit std::atomic<Clock::rep> refused_until{0};

// A forked child has no threads but the one that forked, and that one was in no call.
void forget_threads() noexcept {
  threads_at_work = 0;
  refused_until = 0;
  for (Helper& helper : helpers) {
    helper.made = false;
    helper.asleep = false;
    helper.id = 0;
    helper.state = free;
  }
}

[[maybe_unused]] const int forgets_threads = pthread_atfork(nullptr, nullptr, forget_threads);

// Ends the threads when the process ends; later calls are on their own. Whoever ends the process from inside
// a call keeps its helpers, which are not waited for.
struct End {
  ~End() {
    if (getpid() != maker) return;
    const Clock::time_point until = Clock::now() + std::chrono::seconds(1);
    for (Helper& helper : helpers) {
      std::uint32_t now = free;
      while (!helper.state.compare_exchange_weak(now, stopped) && Clock::now() < until) {
        now = free;
        sched_yield();
      }
      if (helper.state != stopped || !helper.made) continue;
      helper.wake();
      pthread_join(helper.thread, nullptr);
    }
  }
};

}  // namespace

void end_helpers_at_exit() { static const End end; }

// Signals are the embedder's threads' business, but for those that a thread causes itself and those of
// profilers.
bool Helper::make(int caller_cpu) noexcept {
  if (Clock::now().time_since_epoch().count() < refused_until) return false;
  maker = getpid();
  end_helpers_at_exit();
  sigset_t blocked, before_signals;
  sigfillset(&blocked);
  for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT, SIGPROF})
    sigdelset(&blocked, own);
  if (pthread_sigmask(SIG_SETMASK, &blocked, &before_signals) != 0) return false;
  mask = others(caller_cpu);
  kept_off = caller_cpu;
  const auto create = [this](const pthread_attr_t* attributes) {
    const auto run = [](void* self) -> void* {
      static_cast<Helper*>(self)->live();
      return nullptr;
    };
    return pthread_create(&thread, attributes, run, this) == 0;
  };
  const auto create_on = [&create](const cpu_set_t* cpus) {
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return false;
    if (cpus != nullptr) pthread_attr_setaffinity_np(&attributes, sizeof *cpus, cpus);
    const bool good = pthread_attr_setstacksize(&attributes, helper_stack) == 0 && create(&attributes);
    pthread_attr_destroy(&attributes);
    return good;
  };
  made = CPU_COUNT(&mask) > 0 && create_on(&mask);
  // The process may have been confined to fewer CPUs since; or has more thread-local storage than that stack
  // holds.
  if (!made && (made = create_on(nullptr) || create(nullptr))) {
    pthread_getaffinity_np(thread, sizeof mask, &mask);
    kept_off = -1;
  }
  pthread_sigmask(SIG_SETMASK, &before_signals, nullptr);
  if (made)
    pthread_setname_np(thread, "hypertape");
  else
    refused_until = (Clock::now() + std::chrono::seconds(1)).time_since_epoch().count();
  return made;
}

// Linux wakes a thread on its waker's CPU where it takes the other CPUs for busy, and under KVM it takes
// halted ones for preempted: the helper then waits behind its caller for 2.7 ms until the next balancing.
// Only a CPU that it may not run on is sure to be left alone. Not done where somebody else has placed the
// helper.
void Helper::keep_off(int caller_cpu) noexcept {
  const pid_t its_id = id.load(std::memory_order_relaxed);
  if (caller_cpu == kept_off || its_id == 0) return;
  kept_off = caller_cpu;
  const cpu_set_t wanted = others(caller_cpu);
  cpu_set_t now;
  if (CPU_COUNT(&wanted) == 0 || sched_getaffinity(its_id, sizeof now, &now) != 0) return;
  if (CPU_EQUAL(&now, &mask) && sched_setaffinity(its_id, sizeof wanted, &wanted) == 0) mask = wanted;
}

// Whether it has seen the offer; else it sleeps.
bool Helper::offer(SharedWork& its_work, int its_share, int caller_cpu) noexcept {
  work = &its_work;
  share = its_share;
  mode = float_mode();
  if (cpu.load(std::memory_order_relaxed) == caller_cpu) keep_off(caller_cpu);  // one of them was moved
  // With await_offer: either it sees the offer before it sleeps, or this sees it asleep.
  state.store(offered, std::memory_order_seq_cst);
  return !asleep.load(std::memory_order_seq_cst);
}

// Once woken it counts as awake: whoever calls until it is there does not wake it again.
void Helper::wake() noexcept {
  if (!asleep.exchange(false, std::memory_order_seq_cst)) return;
  wakings.fetch_add(1, std::memory_order_seq_cst);
  syscall(SYS_futex, &wakings, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

void Helper::release() noexcept {
  std::uint32_t now = offered;
  if (!state.compare_exchange_strong(now, free, std::memory_order_release, std::memory_order_relaxed)) {
    // It is on its last chunk, unless the system has taken its CPU away. Then it may need this one, which
    // yielding does not give to a thread of lower priority.
    for (int i = 0; state.load(std::memory_order_acquire) != done; ++i) {
      if (i < 1000)
        relax();
      else if (i < 2000)
        sched_yield();
      else
        std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    state.store(free, std::memory_order_release);
  }
}

void Helper::live() noexcept {
  const DefaultFloats floats;  // a thread begins with its maker's
  id.store(gettid(), std::memory_order_relaxed);
  while (true) {
    if (!await_offer() && retire()) return;
    std::uint32_t now = offered;
    if (state.compare_exchange_strong(now, at_work, std::memory_order_acquire)) {
      cpu.store(sched_getcpu(), std::memory_order_relaxed);
      set_float_mode(mode);
      work->take_part(share);
      state.store(done, std::memory_order_release);
    } else if (now == stopped) {
      return;
    }
  }
}

// False when it has slept long enough to end.
bool Helper::await_offer() noexcept {
  const auto nothing = [](std::uint32_t now) { return now != offered && now != stopped; };
  Clock::time_point since = Clock::now();
  for (int i = 1; nothing(state.load(std::memory_order_relaxed)); ++i) {
    relax();
    if (i % 64 != 0) continue;
    sched_yield();  // to whoever else needs this CPU
    if (Clock::now() - since < patience) continue;
    const std::uint32_t before_sleep = wakings.load(std::memory_order_seq_cst);
    asleep.store(true, std::memory_order_seq_cst);
    const bool woken = !nothing(state.load(std::memory_order_seq_cst)) || sleep(before_sleep);
    asleep.store(false, std::memory_order_seq_cst);
    if (!woken) return false;
    since = Clock::now();  // who came too late may be in time for the next
  }
  return true;
}

// Until it is woken; false when nobody has for the time of retirement. std::atomic waits without limit only.
bool Helper::sleep(std::uint32_t before_sleep) noexcept {
  static_assert(sizeof wakings == 4 && decltype(wakings)::is_always_lock_free);
  // One end for all waits: signals, such as a profiler's, may interrupt each.
  timespec limit;
  clock_gettime(CLOCK_MONOTONIC, &limit);
  limit.tv_sec += std::chrono::seconds(retirement).count();
  while (wakings.load(std::memory_order_seq_cst) == before_sleep) {
    const long code = syscall(SYS_futex, &wakings, FUTEX_WAIT_BITSET_PRIVATE, before_sleep, &limit, nullptr,
                              FUTEX_BITSET_MATCH_ANY);
    if (code != 0 && errno == ETIMEDOUT) return false;
  }
  return true;
}

// Gives its place back, for which another thread is made when there is work. False if somebody has taken it,
// or ends it.
bool Helper::retire() noexcept {
  std::uint32_t now = free;
  if (!state.compare_exchange_strong(now, taken, std::memory_order_acquire)) return false;
  pthread_detach(pthread_self());
  made = false;
  id.store(0, std::memory_order_relaxed);
  cpu.store(-1, std::memory_order_relaxed);
  state.store(free, std::memory_order_release);
  return true;
}

const cpu_set_t& usable_cpus() noexcept {
  static const cpu_set_t cpus = [] {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) CPU_ZERO(&set);  // more than 1024, or not permitted
    return set;
  }();
  return cpus;
}

Crew::Crew(int wanted) noexcept {
  int before = threads_at_work.load(std::memory_order_relaxed);
  do {
    size_ = std::clamp(thread_count() - before, 1, wanted);
  } while (!threads_at_work.compare_exchange_weak(before, before + size_, std::memory_order_relaxed));
}

Crew::~Crew() { threads_at_work.fetch_sub(size_, std::memory_order_relaxed); }

void Crew::run(SharedWork& work, CallSize call) noexcept {
  const int here = sched_getcpu();
  bool all_awake = true;
  int share = 1;
  for (Helper& helper : helpers) {
    if (share >= size_) break;
    std::uint32_t now = free;
    if (helper.state.load(std::memory_order_relaxed) != free ||
        !helper.state.compare_exchange_strong(now, taken, std::memory_order_acquire))
      continue;
    if (!helper.made && !helper.make(here)) {
      helper.state.store(free, std::memory_order_release);
      break;
    }
    helper.before = last_;
    last_ = &helper;
    all_awake &= helper.offer(work, share++, here);
  }
  const bool waking = !all_awake && (call == CallSize::any || small_calls_go_on());
  if (waking) asleep_ = last_;
  wake_another();
  work.take_part(0);
  if (!all_awake && !waking) alone.last = Clock::now();
  while (last_ != nullptr) {
    Helper& helper = *last_;
    last_ = helper.before;
    helper.release();
  }
}

void Crew::wake_next() noexcept {
  for (bool woken = false; !woken && asleep_ != nullptr; asleep_ = asleep_->before) {
    woken = asleep_->asleep.load(std::memory_order_relaxed);
    if (!woken) continue;
    asleep_->keep_off(sched_getcpu());
    asleep_->wake();
  }
}

}  // namespace hypertape::detail
