// What control groups leave of the memory, read from files as Linux shows them.
#include <doctest/doctest.h>

#include <filesystem>
#include <string>

#include "available_memory.h"
#include "temporary_folder.h"

namespace {

struct Groups {
  TemporaryFolder folder;

  void put(const std::string& file, const std::string& text) const {
    std::filesystem::create_directories((folder / file).parent_path());
    set_content(folder / file, text);
  }
  std::int64_t left(const std::string& lines) const {
    put("self", lines);
    return hypertape::memory_left_in_groups((folder / "self").string(), (folder / "mounted").string());
  }
};

constexpr std::int64_t unlimited = hypertape::unknown_memory;

}  // namespace

TEST_CASE("version 2: the least that the process's group and those around it leave, without cached files") {
  const Groups groups;
  const std::string lines = "0::/system.slice/trainer.service\n";
  CHECK(groups.left(lines) == unlimited);
  groups.put("mounted/memory.max", "9000\n");
  groups.put("mounted/memory.current", "1000\n");
  CHECK(groups.left(lines) == 8000);
  groups.put("mounted/system.slice/trainer.service/memory.max", "5000\n");
  groups.put("mounted/system.slice/trainer.service/memory.current", "2000\n");
  CHECK(groups.left(lines) == 3000);
  groups.put("mounted/system.slice/trainer.service/memory.stat", "anon 700\nfile 900\n");
  CHECK(groups.left(lines) == 3900);
  groups.put("mounted/system.slice/memory.max", "6000\n");
  groups.put("mounted/system.slice/memory.current", "5500\n");
  CHECK(groups.left(lines) == 500);
  groups.put("mounted/system.slice/memory.current", "7000\n");
  CHECK(groups.left(lines) == 0);
  groups.put("mounted/system.slice/memory.max", "max\n");
  CHECK(groups.left(lines) == 3900);
  CHECK(groups.left("0::/user.slice\n") == 8000);
}

TEST_CASE("version 1: the controller memory, alone or mounted with others") {
  const Groups groups;
  const std::string lines = "4:cpu,cpuacct:/a\n3:memory:/a/b\n";
  groups.put("mounted/memory/a/memory.limit_in_bytes", "4000\n");
  groups.put("mounted/memory/a/memory.usage_in_bytes", "1000\n");
  groups.put("mounted/memory/a/memory.stat", "cache 9\ntotal_cache 20\n");
  CHECK(groups.left(lines) == 3020);
  CHECK(groups.left("4:cpu,cpuacct:/a\n") == unlimited);
  groups.put("mounted/hugetlb,memory/a/memory.limit_in_bytes", "100\n");
  groups.put("mounted/hugetlb,memory/a/memory.usage_in_bytes", "40\n");
  CHECK(groups.left("3:hugetlb,memory:/a/b\n") == 60);
}

TEST_CASE("there is some memory for the tests themselves") { CHECK(hypertape::available_memory() > 0); }
