// What a program may do once at its start, and what the library found on this machine.
#pragma once

#include <string>

#include <hypertape/core/abi.h>
#include <hypertape/core/export.h>

namespace hypertape {

/// Optional; for `main`, before any other thread uses BLAS. OpenBLAS releases that do not know the CPU run
/// kernels for a much older one; this re-selects the kernels that fit. An OPENBLAS_CORETYPE that the user has
/// set wins. Sets and restores that environment variable meanwhile. Later calls do nothing. A library must
/// not call it on its user's behalf: re-selection crashes a product that runs at the same time.
/// Error: HYPERTAPE_ISA names no level of this CPU.
HYPERTAPE_API void initialize();

/// What the library runs on; each `reason` is a sentence for a person.
struct RuntimeInfo {
  std::string cpu_model;
  std::string cpu_features;  ///< space-separated
  std::string isa;           ///< level of the kernels: "baseline", "avx2" or "avx512"
  std::string isa_reason;
  std::string blas_name;
  std::string blas_core;  ///< CPU that the BLAS library's kernels are for; empty when it does not say
  std::string blas_core_reason;
  std::string product_kernels_reason;  ///< which matrix products run on which kernels
  int threads = 1;                     ///< thread_count()
  int cpus = 1;                        ///< available_cpus()
};

/// Error: HYPERTAPE_ISA names no level of this CPU.
HYPERTAPE_API RuntimeInfo runtime_info();

}  // namespace hypertape
