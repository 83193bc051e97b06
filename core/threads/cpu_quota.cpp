#include "core/threads/cpu_quota.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

#include "core/threads/control_groups.h"

namespace hypertape::detail {
namespace {

constexpr double unlimited = std::numeric_limits<double>::infinity();

// Microseconds of CPU time in each period of so many microseconds. "max" (version 2) and -1 (version 1) are
// no limit.
double allowed_cpus(std::istream&& quota, std::istream&& period) {
  double time = 0, out_of = 0;
  return quota >> time && period >> out_of && time > 0 && out_of > 0 ? time / out_of : unlimited;
}

double version_2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  std::string quota, period;
  file >> quota >> period;
  return allowed_cpus(std::istringstream(quota), std::istringstream(period));
}

double version_1(const std::string& folder) {
  return allowed_cpus(std::ifstream(folder + "/cpu.cfs_quota_us"),
                      std::ifstream(folder + "/cpu.cfs_period_us"));
}

}  // namespace

int cpu_quota(const std::string& groups, const std::string& mounted) {
  double least = unlimited;
  for (const ControlGroup& group : control_groups("cpu", groups, mounted))
    least = std::min(least, group.version == 2 ? version_2(group.folder) : version_1(group.folder));
  return least < 1e6 ? static_cast<int>(std::ceil(least)) : 0;
}

}  // namespace hypertape::detail
