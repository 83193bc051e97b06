// A child that is forked while other threads compute has nothing half initialised, and the allocator's lock
// is not held by a thread that the child does not have.
#include "fork.h"

#include <pthread.h>

#include "backend.h"
#include "cpu_features.h"
#include "hypertape/core/parallel.h"
#include "loops.h"
#include "memory_process.h"
#include "products.h"
#include "products_own.h"

namespace hypertape::detail {
namespace {

// What the first calls initialise: whoever is at it is waited for.
bool initialise() {
  cpu_backend();
  hardware_isa();
  wide_multiply_adds_per_cycle();
  thread_count();
  available_cpus();
  loops<float>();
  transposes_keep_bits();
  const float one = 1;
  const double one_more = 1;
  float result;
  double another;
  own_product<float>(false, false, 1, 1, 1, &one, 1, &one, 1, &result, 1, false);
  own_product<double>(false, false, 1, 1, 1, &one_more, 1, &one_more, 1, &another, 1, false);
  return true;
}

void before_fork() noexcept {
  try {
    [[maybe_unused]] static const bool once = initialise();
  } catch (...) {  // a setting that is refused, which the next call says
  }
  memory::process.mutex.lock();
}
void after_fork() noexcept { memory::process.mutex.unlock(); }

}  // namespace

bool prepare_forks() noexcept { return pthread_atfork(before_fork, after_fork, after_fork) == 0; }

}  // namespace hypertape::detail
