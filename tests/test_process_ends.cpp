// Objects that compute when threads and processes end, and children forked while others compute. All of it
// happens in child processes, whose exit status tells.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <string>
#include <thread>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/memory.h>
#include <hypertape/core/random.h>

namespace ht = hypertape;
using ht::Tensor;

namespace {

// The wait status of a child that runs the body and exits; one that hangs is ended by its alarm.
int status_of_child(const std::function<void()>& body, bool runs_destructors) {
  std::cout << std::flush;  // or the child would print it once more
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    body();
    if (runs_destructors) std::exit(0);
    _exit(0);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status;
}

// Multiplies when it is destroyed.
struct Late {
  Tensor a;
  ~Late() {
    if (!a.defined()) return;
    const double got = ht::sum(ht::matmul(a, a)).item();
    const Tensor slope = ht::grad([](const Tensor& x) { return ht::sum(ht::square(ht::matmul(x, x))); }, a);
    if (got != ht::sum(ht::matmul(a, a)).item() || ht::has_non_finite(slope)) _exit(1);
  }
};

Tensor square_matrix(std::int64_t size) { return ht::random({size, size}, ht::Distribution::normal, {1}); }

// Threads, kernels of both element types, products.
void call_all() {
  for (const ht::Dtype type : {ht::Dtype::float32, ht::Dtype::float64}) {
    const Tensor a = Tensor::ones({3, 3}, type);
    if (ht::sum(ht::matmul(a, ht::exp(a))).item() < 20) _exit(1);
  }
}

}  // namespace

TEST_CASE("static objects multiply in their destructors") {
  CHECK(status_of_child(
            [] {
              static Late late;
              late.a = square_matrix(200);
              ht::matmul(late.a, late.a);
            },
            true) == 0);
}

TEST_CASE("thread-local objects multiply in their destructors, whichever is made first") {
  for (const bool first : {true, false})
    CHECK(status_of_child(
              [first] {
                std::thread([first] {
                  const Tensor small = square_matrix(150);
                  if (!first) ht::matmul(small, small);
                  thread_local Late late;
                  late.a = square_matrix(300);  // which needs more memory than is there
                  ht::matmul(small, small);
                }).join();
              },
              false) == 0);
}

TEST_CASE("a child forked while other threads allocate can compute") {
  std::atomic<bool> over{false};
  std::thread other([&] {
    while (!over) {
      void* const block = ht::allocate_bytes(std::size_t{3} << 20);
      ht::release_bytes(block);
    }
  });
  bool good = true;
  for (int i = 0; i < 40 && good; ++i)
    good = status_of_child([] { ht::sum(ht::Tensor::zeros({700, 700}) * 2.0); }, false) == 0;
  CHECK(good);
  over = true;
  other.join();
}

// A process can make its first call once only, so that this is run in processes of its own by the next case.
TEST_CASE("first call and fork" * doctest::skip()) {
  const char* const delay = std::getenv("HYPERTAPE_TEST_MICROSECONDS");
  REQUIRE(delay != nullptr);
  std::atomic<bool> begun{false};
  std::thread other([&] {
    begun = true;
    call_all();
  });
  while (!begun) {
  }
  const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(std::atoi(delay));
  while (std::chrono::steady_clock::now() < until) {
  }
  CHECK(status_of_child(call_all, false) == 0);
  other.join();
}

TEST_CASE("a child forked during the first call can compute") {
  bool good = true;
  for (int i = 0; i < 40 && good; ++i)
    good = status_of_child(
               [i] {
                 ::setenv("HYPERTAPE_TEST_MICROSECONDS", std::to_string(10 * i).c_str(), 1);
                 ::execl("/proc/self/exe", "hypertape_tests", "--test-case=first call and fork", "--no-skip",
                         "--minimal", nullptr);
                 _exit(2);
               },
               false) == 0;
  CHECK(good);
}
