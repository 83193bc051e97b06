#include "available_memory.h"

#include <algorithm>
#include <fstream>
#include <string>

#include <hypertape/core/memory.h>
#include "core/threads/control_groups.h"

namespace hypertape {
namespace {

// The number a file of the kernel's consists of; unknown_memory for "max", or where there is no such file.
std::int64_t number_in(const std::string& path) {
  std::ifstream file(path);
  std::int64_t number = 0;
  return file >> number ? number : unknown_memory;
}

// The number behind `key` in a file of lines "key number ..."; unknown_memory if there is none.
std::int64_t entry_of(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string name, rest;
  std::int64_t number = 0;
  while (file >> name >> number && std::getline(file, rest))
    if (name == key) return number;
  return unknown_memory;
}

// What a group's files are called in each version.
struct GroupFiles {
  const char *limit, *use, *cache;
};
constexpr GroupFiles version_2 = {"/memory.max", "/memory.current", "file"};
constexpr GroupFiles version_1 = {"/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_cache"};

std::int64_t left_in_group(const std::string& folder, const GroupFiles& files) {
  const std::int64_t limit = number_in(folder + files.limit), use = number_in(folder + files.use);
  if (limit == unknown_memory || use == unknown_memory) return unknown_memory;
  // Cached files count as use, but give way.
  const std::int64_t cache = entry_of(folder + "/memory.stat", files.cache);
  return std::max<std::int64_t>(0, limit - use + (cache == unknown_memory ? 0 : cache));
}

std::int64_t available_in_system() {
  const std::int64_t kibibytes = entry_of("/proc/meminfo", "MemAvailable:");
  return kibibytes == unknown_memory ? unknown_memory : kibibytes * 1024;
}

}  // namespace

std::int64_t memory_left_in_groups(const std::string& groups, const std::string& mounted) {
  std::int64_t least = unknown_memory;
  for (const detail::ControlGroup& group : detail::control_groups("memory", groups, mounted))
    least = std::min(least, left_in_group(group.folder, group.version == 2 ? version_2 : version_1));
  return least;
}

std::int64_t available_memory() {
  const std::int64_t available = std::min(available_in_system(), memory_left_in_groups());
  return available == unknown_memory ? available : available + memory_statistics().cached_bytes;
}

}  // namespace hypertape
