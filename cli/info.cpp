#include "info.h"

#include <sstream>

#include "hypertape/core/initialize.h"
#include "hypertape/core/version.h"

namespace hypertape {

std::string info_report() {
  const RuntimeInfo info = runtime_info();
  std::ostringstream out;
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
  return out.str();
}

}  // namespace hypertape
