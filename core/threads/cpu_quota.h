// How much CPU time the system's control groups leave to this process.
#pragma once

#include <string>

namespace hypertape::detail {

/// CPUs whose time the control groups of the process allow it, rounded up, or 0 where they limit nothing: a
/// container on 64 CPUs that may use the time of two is stopped for the rest of each period when it runs 64
/// threads. `groups` is a file as /proc/self/cgroup, `mounted` where the hierarchies are (Linux, versions 1
/// and 2). What cannot be read limits nothing.
int cpu_quota(const std::string& groups = "/proc/self/cgroup", const std::string& mounted = "/sys/fs/cgroup");

/// The default number of threads: of `cpus`, no more than the quota.
constexpr int threads_for(int quota, int cpus) { return quota == 0 || quota > cpus ? cpus : quota; }

}  // namespace hypertape::detail
