#include "cpu_quota.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

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

bool names(const std::string& controllers, const std::string& wanted) {
  std::istringstream words(controllers);
  for (std::string word; std::getline(words, word, ',');)
    if (word == wanted) return true;
  return false;
}

}  // namespace

int cpu_quota(const std::string& groups, const std::string& mounted) {
  double least = unlimited;
  std::ifstream file(groups);
  // number:controllers:path, where version 2 has no controllers. Inside a container the path may be the
  // host's, which is not there; then the root is the container's own group.
  std::string number, controllers, path;
  while (std::getline(file, number, ':') && std::getline(file, controllers, ':') &&
         std::getline(file, path)) {
    if (!controllers.empty() && !names(controllers, "cpu")) continue;
    while (!path.empty() && path.back() == '/') path.pop_back();
    while (true) {
      const double here = controllers.empty() ? version_2(mounted + path)
                                              : std::min(version_1(mounted + "/cpu" + path),
                                                         version_1(mounted + "/" + controllers + path));
      least = std::min(least, here);
      if (path.empty()) break;
      path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
    }
  }
  return least < 1e6 ? static_cast<int>(std::ceil(least)) : 0;
}

}  // namespace hypertape::detail
