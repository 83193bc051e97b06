// How much memory there is to take.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

namespace hypertape {

inline constexpr std::int64_t unknown_memory = std::numeric_limits<std::int64_t>::max();

/// Bytes that this process can still take without swapping: what Linux calls available, or less where a
/// control group (a container, a unit of systemd) limits it, and what the library holds unused.
/// `unknown_memory` where nothing can be found out.
std::int64_t available_memory();

/// Bytes that the control groups of the process leave it: the least of its own group and of all those around
/// it (Linux, versions 1 and 2). `groups` is a file as /proc/self/cgroup, `mounted` where the hierarchies
/// are. `unknown_memory` where nothing limits it, or nothing can be read.
std::int64_t memory_left_in_groups(const std::string& groups = "/proc/self/cgroup",
                                   const std::string& mounted = "/sys/fs/cgroup");

}  // namespace hypertape
