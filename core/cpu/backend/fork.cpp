// A child that is forked while other threads compute has nothing half initialised, and no lock is held by a
// thread that the child does not have: neither the allocator's, nor those of BLAS's threads, of warnings, and
// (tape.cpp) of tangents that are differentiated. What those threads were about to end themselves is gone.
#include "core/cpu/backend/fork.h"

#include <pthread.h>

#include <hypertape/core/memory.h>
#include <hypertape/core/named_tensors.h>
#include <hypertape/core/parallel.h>
#include "core/backend/backend.h"
#include "core/backend/fixed_point.h"
#include "core/base/texts.h"
#include "core/base/warn_once.h"
#include "core/cpu/isa/features.h"
#include "core/cpu/isa/loops.h"
#include "core/cpu/products/blas.h"
#include "core/cpu/products/own.h"
#include "core/cpu/products/product.h"
#include "core/memory/process.h"
#include "core/threads/helper_threads.h"

namespace hypertape::detail {
namespace {

// What the first calls initialise: whoever is at it is waited for.
bool initialise() {
  cpu_backend();
  text_locale();
  end_helpers_at_exit();
  NamedTensors().names();
  cpu_model();
  cpu_feature_list();
  blas_state();
  available_cpus();
  // From here on a setting of the environment may be refused.
  thread_count();
  hardware_isa();
  wide_multiply_adds_per_cycle();
  loops<float>();
  product_kernels_reason();
  from_fixed<float>({}, {});
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
  lock_warnings_for_fork();
  lock_blas_for_fork();
  memory::process.mutex.lock();
}

void after_fork() noexcept {
  memory::process.mutex.unlock();
  unlock_blas_after_fork(false);
  unlock_warnings_after_fork(false);
}

void after_fork_in_child() noexcept {
  keep_own_peak_scopes();
  memory::process.mutex.unlock();
  unlock_blas_after_fork(true);
  unlock_warnings_after_fork(true);
}

}  // namespace

bool prepare_forks() noexcept { return pthread_atfork(before_fork, after_fork, after_fork_in_child) == 0; }

}  // namespace hypertape::detail
