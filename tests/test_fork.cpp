// Children that are forked while other threads hold a lock of the library, or are in the middle of something.
// A child that hangs is ended by its alarm, and fails.
#include <dlfcn.h>
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <thread>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/initialize.h>
#include <hypertape/core/memory.h>
#include <hypertape/core/named_tensors.h>
#include <hypertape/core/warning.h>
#include "autodiff/tape/node.h"
#include "core/base/warn_once.h"
#include "core/cpu/products/blas.h"

namespace ht = hypertape;
using ht::Tensor;

namespace {

bool is_good(const std::function<bool()>& in_child) {
  std::cout << std::flush;  // or the child would print it once more
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(in_child() ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status == 0;
}

// Forks while another thread does `work` without end.
void check_forks(const std::function<void()>& work, const std::function<bool()>& in_child) {
  std::atomic<bool> over{false};
  std::atomic<int> begun{0};
  std::thread other([&] {
    while (!over) {
      work();
      begun = 1;
    }
  });
  while (begun == 0) {
  }
  bool good = true;
  for (int i = 0; i < 40 && good; ++i) good = is_good(in_child);
  over = true;
  other.join();
  CHECK(good);
}

// Something that another thread is in the middle of, until the end of the scope.
class Elsewhere {
 public:
  template <class Work>
  explicit Elsewhere(const Work& work)
      : thread_([this, work] {
          work([this] {
            inside_ = true;
            while (!over_) std::this_thread::yield();
          });
        }) {
    while (!inside_) std::this_thread::yield();
  }
  ~Elsewhere() {
    over_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> inside_{false}, over_{false};
  std::thread thread_;
};

class Sink {
 public:
  explicit Sink(const ht::WarningSink& sink) { ht::set_warning_sink(sink); }
  ~Sink() { ht::set_warning_sink({}); }
};

Tensor third_derivative() {
  const auto nested = [](const Tensor& x) {
    return ht::grad(
        [](const Tensor& y) {
          return ht::jvp([](const Tensor& z) { return z * z * z * z; }, y, y * y).second;
        },
        x);
  };
  return ht::grad(nested, Tensor::scalar(2.0));
}

}  // namespace

TEST_CASE("a child forked while other threads take and give back BLAS can compute") {
  check_forks([] { const ht::detail::SingleThreadBlas single; },
              [] {
                const ht::detail::SingleThreadBlas single;
                return true;
              });
}

TEST_CASE("a child forked while another thread holds BLAS at one thread has the embedder's number again") {
  const auto threads = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "openblas_get_num_threads"));
  const auto set_threads = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads"));
  if (threads == nullptr || set_threads == nullptr) return;
  const int before = threads();
  set_threads(2);
  const int own = threads();  // 1 where BLAS has no threads
  {
    const Elsewhere other([](const auto& wait) {
      const ht::detail::SingleThreadBlas single;
      wait();
    });
    CHECK(threads() == 1);
    CHECK(is_good([&] {
      {
        const ht::detail::SingleThreadBlas single;
        if (threads() != 1) return false;
      }
      return threads() == own;
    }));
    // What the thread that forks holds itself it goes on holding.
    const ht::detail::SingleThreadBlas outer;
    CHECK(is_good([&] {
      { const ht::detail::SingleThreadBlas inner; }
      return threads() == 1;
    }));
  }
  CHECK(threads() == own);
  set_threads(before);
}

TEST_CASE("a child forked while other threads warn can warn") {
  std::atomic<int> given{0};
  const Sink sink([&](std::string_view) { ++given; });
  int number = 0;
  check_forks(
      [&] {
        ht::detail::warn_once("fork " + std::to_string(++number), "[test] once");
        if (number % 64 == 0) ht::set_warning_sink([&](std::string_view) { ++given; });
      },
      [&] {
        const int before = given;
        ht::detail::warn_once("fork, in the child", "[test] once");
        ht::set_warning_sink({});
        return given == before + 1;
      });
}

TEST_CASE("a warning sink may take long, fork and compute") {
  bool is_computed = false;
  const Sink sink([&](std::string_view text) {
    if (text == "[test] computes") {
      ht::detail::warn_once("fork, within", "[test] is not given within another");
      CHECK(is_good([] { return ht::sum(Tensor::ones({3})).item() == 3.0; }));
      is_computed = true;
    }
    CHECK(text != "[test] is not given within another");
  });
  ht::detail::warn_once("fork, computes", "[test] computes");
  CHECK(is_computed);

  std::function<void()> wait_in_sink;
  int given = 0;
  ht::set_warning_sink([&](std::string_view) {
    ++given;
    if (wait_in_sink) wait_in_sink();
  });
  {
    const Elsewhere other([&](const auto& wait) {
      wait_in_sink = wait;
      ht::detail::warn_once("fork, elsewhere", "[test] takes long");
    });
    CHECK(is_good([&] {
      wait_in_sink = {};
      ht::detail::warn_once("fork, elsewhere", "[test] was given before");
      ht::detail::warn_once("fork, here", "[test] is new");
      return given == 2;
    }));
  }
  CHECK(given == 1);
}

TEST_CASE("a child forked while other threads differentiate tangents can do it") {
  const double expected = third_derivative().item();
  check_forks([] { const ht::detail::TangentScope scope; },
              [] {
                const ht::detail::TangentScope scope;
                return true;
              });
  const Elsewhere other([](const auto& wait) {
    const ht::detail::TangentScope scope;
    wait();
  });
  CHECK(is_good([&] { return third_derivative().item() == expected; }));
}

TEST_CASE("a child forgets the scopes of threads that it does not have") {
  // Where their stacks were, others may lie.
  auto memory =
      std::make_unique<unsigned char[]>(sizeof(ht::PeakScope) + sizeof(ht::detail::TangentScope) + 32);
  void* at = memory.get();
  std::size_t room = sizeof(ht::PeakScope) + sizeof(ht::detail::TangentScope) + 32;
  const auto place = [&](std::size_t size) {
    void* const here = std::align(16, size, at, room);
    at = static_cast<unsigned char*>(at) + size;
    room -= size;
    return here;
  };
  void *const peak_place = place(sizeof(ht::PeakScope)), *const tangent_place =
                                                             place(sizeof(ht::detail::TangentScope));
  const ht::PeakScope before;
  const Elsewhere other([&](const auto& wait) {
    auto* const peak = new (peak_place) ht::PeakScope;
    auto* const tangent = new (tangent_place) ht::detail::TangentScope;
    wait();
    tangent->~TangentScope();
    peak->~PeakScope();
  });
  const ht::PeakScope after;
  const ht::detail::TangentScope own;
  const std::int64_t held_before = before.peak_bytes();
  CHECK(is_good([&] {
    std::fill_n(memory.get(), sizeof(ht::PeakScope) + sizeof(ht::detail::TangentScope) + 32, 0xff);
    {
      const ht::PeakScope inner;
      const ht::detail::TangentScope nested;
      const Tensor large = Tensor::zeros({100'000});
      if (inner.peak_bytes() < 800'000 || after.peak_bytes() < 800'000) return false;
    }
    for (std::size_t i = 0; i < sizeof(ht::PeakScope); ++i)
      if (static_cast<unsigned char*>(peak_place)[i] != 0xff) return false;
    const ht::PeakScope again;  // which gives the others what was highest
    return before.peak_bytes() >= held_before + 700'000 && third_derivative().defined();
  }));
}

// A process can ask for the first time once only, so that this is run in processes of its own by the next
// case.
TEST_CASE("first question and fork" * doctest::skip()) {
  const char* const delay = std::getenv("HYPERTAPE_TEST_MICROSECONDS");
  REQUIRE(delay != nullptr);
  const auto ask = [] {
    ht::initialize();
    return !ht::runtime_info().isa.empty() && ht::NamedTensors().names().empty();
  };
  std::atomic<bool> begun{false};
  std::thread other([&] {
    begun = true;
    ask();
  });
  while (!begun) {
  }
  const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(std::atoi(delay));
  while (std::chrono::steady_clock::now() < until) {
  }
  CHECK(is_good(ask));
  other.join();
}

TEST_CASE("a child forked while another thread asks what runs can ask") {
  bool good = true;
  for (int i = 0; i < 40 && good; ++i)
    good = is_good([i] {
      ::setenv("HYPERTAPE_TEST_MICROSECONDS", std::to_string(3 * i).c_str(), 1);
      ::execl("/proc/self/exe", "hypertape_tests", "--test-case=first question and fork", "--no-skip",
              "--minimal", nullptr);
      return false;
    });
  CHECK(good);
}
