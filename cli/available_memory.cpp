#include "available_memory.h"

#include <algorithm>
#include <fstream>
#include <string>

#include "hypertape/core/memory.h"

namespace hypertape {
namespace {

// The number a file of the kernel's consists of; unknown_memory for "max", or where there is no such file.
std::int64_t number_in(const char* path) {
  std::ifstream file(path);
  std::int64_t number = 0;
  return file >> number ? number : unknown_memory;
}

// The number behind `key` in a file of lines "key number ..."; unknown_memory if there is none.
std::int64_t entry_of(const char* path, const std::string& key) {
  std::ifstream file(path);
  std::string name, rest;
  std::int64_t number = 0;
  while (file >> name >> number && std::getline(file, rest))
    if (name == key) return number;
  return unknown_memory;
}

std::int64_t left_in_group(const char* limit_path, const char* use_path, const char* statistics_path,
                           const char* cache_key) {
  const std::int64_t limit = number_in(limit_path), use = number_in(use_path);
  if (limit == unknown_memory || use == unknown_memory) return unknown_memory;
  // Cached files count as use, but give way.
  const std::int64_t cache = entry_of(statistics_path, cache_key);
  return std::max<std::int64_t>(0, limit - use + (cache == unknown_memory ? 0 : cache));
}

std::int64_t available_in_system() {
  const std::int64_t kibibytes = entry_of("/proc/meminfo", "MemAvailable:");
  return kibibytes == unknown_memory ? unknown_memory : kibibytes * 1024;
}

}  // namespace

std::int64_t available_memory() {
  const std::int64_t version_2 = left_in_group("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current",
                                               "/sys/fs/cgroup/memory.stat", "file");
  const std::int64_t version_1 = left_in_group("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                                               "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                                               "/sys/fs/cgroup/memory/memory.stat", "total_cache");
  const std::int64_t available = std::min({available_in_system(), version_2, version_1});
  return available == unknown_memory ? available : available + memory_statistics().cached_bytes;
}

}  // namespace hypertape
