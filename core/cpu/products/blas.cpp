#include "core/cpu/products/blas.h"

#include <cblas.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <string_view>

#include <hypertape/core/initialize.h>
#include <hypertape/core/parallel.h>
#include "core/cpu/isa/features.h"
#include "core/cpu/products/product.h"

namespace hypertape {
namespace detail {
namespace {

// OpenBLAS's own functions are looked up at run time: any CBLAS can stand in, and these are not in its
// headers.
template <class Function>
Function* find(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
}

struct OpenBlas {
  int (*get_threads)() = find<int()>("openblas_get_num_threads");
  void (*set_threads)(int) = find<void(int)>("openblas_set_num_threads");
  const char* (*config)() = find<const char*()>("openblas_get_config");
  const char* (*core)() = find<const char*()>("openblas_get_corename");
  void (*quit)() = find<void()>("gotoblas_dynamic_quit");
  void (*init)() = find<void()>("gotoblas_dynamic_init");
};

const OpenBlas& open_blas() {
  static const OpenBlas functions;
  return functions;
}

std::string core_name() {
  const auto core = open_blas().core;
  const char* name = core != nullptr ? core() : nullptr;
  return name != nullptr ? name : "";
}

// Level of the CPU that an OpenBLAS core is for.
Isa core_level(std::string_view core) {
  constexpr std::array<std::string_view, 3> avx512 = {"SkylakeX", "Cooperlake", "Sapphirerapids"};
  constexpr std::array<std::string_view, 2> avx2 = {"Haswell", "Zen"};
  for (const std::string_view name : avx512) {
    if (core == name) return Isa::avx512;
  }
  for (const std::string_view name : avx2) {
    if (core == name) return Isa::avx2;
  }
  return Isa::baseline;
}

const char* core_variable = "OPENBLAS_CORETYPE";

bool user_chose_core() {
  const char* value = std::getenv(core_variable);
  return value != nullptr && *value != '\0';
}

// Written by select_blas_core only.
std::string& selection_note() {
  static std::string note;
  return note;
}

constinit std::mutex blas_mutex_;
std::mutex& blas_mutex() { return blas_mutex_; }

int guards = 0;             // under blas_mutex
int embedder_threads = 1;   // under blas_mutex
bool is_left_over = false;  // under blas_mutex: the one thread is a guard's that a forked child does not have
constinit thread_local int own_guards = 0;

constinit std::mutex initialize_mutex;
bool is_initialized = false;  // under initialize_mutex

}  // namespace

BlasState blas_state() {
  BlasState state;
  const auto config = open_blas().config;
  const char* text = config != nullptr ? config() : nullptr;
  if (text != nullptr) {
    const std::string_view words = text;  // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ..."
    const std::size_t first = words.find(' ');
    state.name = words.substr(0, first == words.npos ? first : words.find(' ', first + 1));
  } else {
    state.name = "CBLAS";
  }
  state.core = core_name();
  state.below_cpu = !state.core.empty() && core_level(state.core) < hardware_isa();
  if (!selection_note().empty()) {
    state.core_reason = selection_note();
  } else if (state.core.empty()) {
    state.core_reason = "the library does not say";
  } else if (user_chose_core()) {
    state.core_reason = std::string(core_variable) + " is set by the user";
  } else if (state.below_cpu) {
    state.core_reason = "OpenBLAS does not know this CPU, which could run more: call hypertape::initialize()";
  } else {
    state.core_reason = "OpenBLAS's own choice";
  }
  return state;
}

void select_blas_core() {
  const std::string before = core_name();
  const Isa level = std::min(active_isa(), hardware_isa());
  const OpenBlas& blas = open_blas();
  if (before.empty() || user_chose_core() || core_level(before) >= level) return;
  if (blas.quit == nullptr || blas.init == nullptr) return;
  const char* present = std::getenv(core_variable);
  const std::optional<std::string> saved =
      present != nullptr ? std::optional<std::string>(present) : std::nullopt;
  ::setenv(core_variable, level == Isa::avx512 ? "SkylakeX" : "Haswell", 1);
  blas.quit();
  blas.init();
  if (saved) {
    ::setenv(core_variable, saved->c_str(), 1);
  } else {
    ::unsetenv(core_variable);
  }
  const std::string after = core_name();
  selection_note() = after == before
                         ? "OpenBLAS kept it when asked for a newer one"
                         : "selected by hypertape::initialize(); OpenBLAS's own choice was " + before;
}

SingleThreadBlas::SingleThreadBlas() {
  const OpenBlas& blas = open_blas();
  if (blas.get_threads == nullptr || blas.set_threads == nullptr) return;
  const std::lock_guard lock(blas_mutex());
  ++own_guards;
  if (guards++ > 0) return;
  const int threads = blas.get_threads();
  if (threads != 1 || !is_left_over) embedder_threads = threads;
  is_left_over = false;
  if (threads != 1) blas.set_threads(1);
}

SingleThreadBlas::~SingleThreadBlas() {
  const OpenBlas& blas = open_blas();
  if (blas.get_threads == nullptr || blas.set_threads == nullptr) return;
  const std::lock_guard lock(blas_mutex());
  --own_guards;
  if (--guards == 0 && embedder_threads != 1) blas.set_threads(embedder_threads);
}

void lock_blas_for_fork() {
  initialize_mutex.lock();
  blas_mutex().lock();
}

void unlock_blas_after_fork(bool in_child) noexcept {
  if (in_child && guards > own_guards) {
    is_left_over = own_guards == 0;
    guards = own_guards;
  }
  blas_mutex().unlock();
  initialize_mutex.unlock();
}

void blas_product(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
                  const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float* c,
                  std::int64_t ldc, bool accumulate) {
  cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans, transpose_b ? CblasTrans : CblasNoTrans,
              static_cast<blasint>(m), static_cast<blasint>(n), static_cast<blasint>(k), 1.0F, a,
              static_cast<blasint>(lda), b, static_cast<blasint>(ldb), accumulate ? 1.0F : 0.0F, c,
              static_cast<blasint>(ldc));
}

void blas_product(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
                  const double* a, std::int64_t lda, const double* b, std::int64_t ldb, double* c,
                  std::int64_t ldc, bool accumulate) {
  cblas_dgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans, transpose_b ? CblasTrans : CblasNoTrans,
              static_cast<blasint>(m), static_cast<blasint>(n), static_cast<blasint>(k), 1.0, a,
              static_cast<blasint>(lda), b, static_cast<blasint>(ldb), accumulate ? 1.0 : 0.0, c,
              static_cast<blasint>(ldc));
}

}  // namespace detail

void initialize() {
  const std::lock_guard lock(detail::initialize_mutex);
  if (detail::is_initialized) return;
  detail::select_blas_core();
  detail::is_initialized = true;
}

RuntimeInfo runtime_info() {
  const detail::BlasState blas = detail::blas_state();
  RuntimeInfo info;
  info.cpu_model = detail::cpu_model();
  info.cpu_features = detail::cpu_feature_list();
  info.isa = detail::isa_name(detail::active_isa());
  info.isa_reason = detail::isa_reason();
  info.blas_name = blas.name;
  info.blas_core = blas.core;
  info.blas_core_reason = blas.core_reason;
  info.product_kernels_reason = detail::product_kernels_reason();
  info.threads = thread_count();
  info.cpus = available_cpus();
  return info;
}

}  // namespace hypertape
