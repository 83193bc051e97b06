// bench_instructions <work> <dtype> <repetitions>: repeats one row of bench/peers inside a function of its
// own, to which callgrind's collection is limited. bench_instructions --about: what decides the counts
// besides the sources, as JSON.
#include <gnu/libc-version.h>

#include <cstdio>
#include <cstring>
#include <exception>

#include "work.h"

namespace {

peers::Work build(const std::string& work, hypertape::Dtype dtype) {
  using namespace hypertape::peers_worker;
  const std::string kind = work.substr(0, work.find('/'));
  if (kind == "chain") return chain(work, dtype);
  if (kind == "step") return training_step(work, dtype);
  if (kind == "hvp") return hessian_product(work, dtype);
  if (kind == "implicit") return implicit_hypergradient(work, dtype);
  if (kind == "hypergradient") return run_hypergradient(work, dtype);
  throw std::invalid_argument("unknown work " + work);
}

}  // namespace

// Named for --toggle-collect.
extern "C" __attribute__((noinline, used)) void hypertape_counted_repetitions(
    const std::function<void()>& call, long repetitions) {
  for (long i = 0; i < repetitions; ++i) call();
  // Keeps this frame: a tail call would leave the function before the work.
  __asm__ volatile("" ::: "memory");
}

int main(int argc, char** argv) {
  try {
    hypertape::set_thread_count(1);
    if (argc == 2 && std::strcmp(argv[1], "--about") == 0) {
      const hypertape::RuntimeInfo info = hypertape::runtime_info();
      std::printf("{\"compiler\": \"%s\", \"libc\": \"%s\", \"blas\": \"%s\", \"kernels\": \"%s\"}\n",
#ifdef __clang__
                  __VERSION__,
#else
                  "gcc " __VERSION__,
#endif
                  gnu_get_libc_version(), info.blas_name.c_str(), info.isa.c_str());
      return 0;
    }
    if (argc == 4) {
      const hypertape::Dtype dtype =
          std::strcmp(argv[2], "float32") == 0 ? hypertape::Dtype::float32 : hypertape::Dtype::float64;
      const peers::Work work = build(argv[1], dtype);
      work.variants.front().call();  // fills the caches
      hypertape_counted_repetitions(work.variants.front().call, std::stol(argv[3]));
      return 0;
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  std::fprintf(stderr, "usage: %s --about | <work> <dtype> <repetitions>\n", argv[0]);
  return 2;
}
