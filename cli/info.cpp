#include "info.h"

#include <sstream>

#include <hypertape/core/error.h>
#include <hypertape/core/initialize.h>
#include <hypertape/core/memory.h>
#include <hypertape/core/version.h>
#include "available_memory.h"
#include "readable.h"

namespace hypertape {

std::string info_report() {
  const RuntimeInfo info = runtime_info();
  std::ostringstream out = detail::text_stream();
  out << "version   " << version() << '\n'
      << "CPU       " << info.cpu_model << '\n'
      << "features  " << (info.cpu_features.empty() ? "none that matter" : info.cpu_features) << '\n'
      << "kernels   " << info.isa << ": " << info.isa_reason << '\n'
      << "BLAS      " << info.blas_name;
  if (!info.blas_core.empty()) out << ", core " << info.blas_core;
  out << ": " << info.blas_core_reason << '\n'
      << "products  " << info.product_kernels_reason << '\n'
      << "threads   " << info.threads << " of " << info.cpus << (info.cpus == 1 ? " CPU" : " CPUs")
      << " that this process may run on\n";
  // What compare plans with, and what the library itself holds.
  const std::int64_t available = available_memory();
  const MemoryStatistics memory = memory_statistics();
  out << "memory    " << (available == unknown_memory ? "unknown" : readable_bytes(available))
      << " available; the allocator holds " << readable_bytes(memory.live_bytes) << " in use and "
      << readable_bytes(memory.cached_bytes) << " cached, from "
      << counted(memory.system_allocations, "request") << " to the system\n";
  return out.str();
}

}  // namespace hypertape
