// ctest labels: kernels levels
//
// What the library finds and changes around it: the BLAS library's threads, runtime_info, warnings.
#include <dlfcn.h>
#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

#include <hypertape/core/initialize.h>
#include <hypertape/core/parallel.h>
#include <hypertape/core/warning.h>
#include "core/base/warn_once.h"
#include "core/cpu/isa/features.h"
#include "core/cpu/products/blas.h"

using namespace hypertape;

TEST_CASE("the BLAS guard sets one thread and restores the embedder's number, nested or not") {
  const auto get = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "openblas_get_num_threads"));
  const auto set = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads"));
  if (get == nullptr || set == nullptr) return;  // another CBLAS
  const int before = get();
  for (const int embedder : {1, 2}) {
    set(embedder);
    {
      const detail::SingleThreadBlas outer;
      CHECK(get() == 1);
      { const detail::SingleThreadBlas inner; }
      CHECK(get() == 1);
    }
    CHECK(get() == embedder);
  }
  set(before);
}

TEST_CASE("runtime_info names what was found and why") {
  initialize();
  initialize();
  const RuntimeInfo info = runtime_info();
  CHECK(info.isa == detail::isa_name(detail::active_isa()));
  CHECK(detail::active_isa() <= detail::hardware_isa());
  CHECK(!info.cpu_model.empty());
  CHECK(!info.isa_reason.empty());
  CHECK(!info.blas_name.empty());
  CHECK(!info.blas_core_reason.empty());
  CHECK(!info.product_kernels_reason.empty());
  CHECK(info.threads == thread_count());
  CHECK(info.cpus == available_cpus());
}

TEST_CASE("a warning is given once, and not lost while there is no sink") {
  std::vector<std::string> given;
  detail::warn_once("test_runtime", "[test] nobody hears this");
  set_warning_sink([&](std::string_view text) { given.emplace_back(text); });
  detail::warn_once("test_runtime", "[test] first");
  detail::warn_once("test_runtime", "[test] second");
  set_warning_sink({});
  CHECK(given == std::vector<std::string>{"[test] first"});
}
