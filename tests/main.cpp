// The tests' main: settles the BLAS kernels first, as every program of ours does. HYPERTAPE_TEST_STACK is the
// size of the stack that the tests run on, in KiB: what the library needs must fit into a small thread's.
#define DOCTEST_CONFIG_IMPLEMENT
#include <dlfcn.h>
#include <doctest/doctest.h>
#include <pthread.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <iostream>

#include <hypertape/core/initialize.h>

namespace {

struct Tests {
  doctest::Context context;
  int code = 1;
};

// glibc takes static thread-local storage and the guard page out of a thread's stack; OpenBLAS has 60 KiB of
// the former.
std::size_t taken_by_system(const pthread_attr_t& attributes) {
  using Function = std::size_t (*)(const pthread_attr_t*);
  const auto minimum = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, "__pthread_get_minstack"));
  return minimum != nullptr ? minimum(&attributes) : 0;
}

int run_on_stack(Tests& tests, std::size_t size) {
  const auto run = [](void* all) -> void* {
    auto& [context, code] = *static_cast<Tests*>(all);
    code = context.run();
    return nullptr;
  };
  pthread_attr_t attributes;
  pthread_t thread;
  if (pthread_attr_init(&attributes) != 0) return 1;
  size = std::max(size + taken_by_system(attributes), static_cast<std::size_t>(PTHREAD_STACK_MIN));
  if (pthread_attr_setstacksize(&attributes, size) != 0 ||
      pthread_create(&thread, &attributes, run, &tests) != 0) {
    std::cerr << "no thread with a stack of " << size << " bytes\n";
    return 1;
  }
  pthread_join(thread, nullptr);
  return tests.code;
}

}  // namespace

int main(int argc, char** argv) {
  hypertape::initialize();
  Tests tests{doctest::Context(argc, argv)};
  if (const char* const size = std::getenv("HYPERTAPE_TEST_STACK"))
    return run_on_stack(tests, std::strtoull(size, nullptr, 10) << 10);
  return tests.context.run();
}
