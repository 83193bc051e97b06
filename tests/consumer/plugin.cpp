// A plugin that holds the static library.
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/parallel.h>

// The number of threads, after a product that is shared between them; negative if that is wrong.
extern "C" int use_hypertape() {
  using namespace hypertape;
  const Tensor a = Tensor::ones({400, 400});
  return sum(matmul(a, a)).item() == 400.0 * 400 * 400 ? thread_count() : -1;
}
