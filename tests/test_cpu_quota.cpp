// The CPU time that control groups leave, read from files as Linux shows them.
#include <doctest/doctest.h>

#include <filesystem>
#include <string>

#include <hypertape/core/parallel.h>
#include "core/threads/cpu_quota.h"
#include "temporary_folder.h"

namespace {

// A hierarchy of groups, and the file that tells which ones the process is in.
struct Groups {
  TemporaryFolder folder;

  void put(const std::string& file, const std::string& text) const {
    std::filesystem::create_directories((folder / file).parent_path());
    set_content(folder / file, text);
  }
  int quota(const std::string& lines) const {
    put("self", lines);
    return hypertape::detail::cpu_quota((folder / "self").string(), (folder / "mounted").string());
  }
};

}  // namespace

TEST_CASE("version 2: the narrowest limit from the process's group up to the root counts, rounded up") {
  const Groups groups;
  const std::string lines = "0::/system.slice/trainer.service\n";
  CHECK(groups.quota(lines) == 0);
  groups.put("mounted/system.slice/trainer.service/cpu.max", "max 100000\n");
  CHECK(groups.quota(lines) == 0);
  groups.put("mounted/system.slice/trainer.service/cpu.max", "250000 100000\n");
  CHECK(groups.quota(lines) == 3);
  groups.put("mounted/system.slice/cpu.max", "50000 25000\n");
  CHECK(groups.quota(lines) == 2);
  groups.put("mounted/cpu.max", "1000 100000\n");
  CHECK(groups.quota(lines) == 1);
  // A group beside it is none of its own.
  groups.put("mounted/cpu.max", "max 100000\n");
  CHECK(groups.quota("0::/system.slice\n") == 2);
  CHECK(groups.quota("0::/user.slice\n") == 0);
  groups.put("mounted/a:b/cpu.max", "700000 100000\n");
  CHECK(groups.quota("0::/a:b\n") == 7);
}

TEST_CASE("version 2: a container that is shown its host's path finds its limit at the root") {
  const Groups groups;
  groups.put("mounted/cpu.max", "400000 100000\n");
  CHECK(groups.quota("0::/docker/0123456789abcdef\n") == 4);
  CHECK(groups.quota("0::/\n") == 4);
}

TEST_CASE("version 1: the controller cpu, alone or mounted with others") {
  const Groups groups;
  const std::string lines = "7:memory:/a\n4:cpu,cpuacct:/a/b\n2:cpuset:/c\n";
  groups.put("mounted/cpuset/c/cpu.cfs_quota_us", "100000\n");  // not where a limit stands
  groups.put("mounted/cpuset/c/cpu.cfs_period_us", "100000\n");
  CHECK(groups.quota(lines) == 0);
  groups.put("mounted/cpu,cpuacct/a/cpu.cfs_quota_us", "600000\n");
  groups.put("mounted/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
  CHECK(groups.quota(lines) == 6);
  groups.put("mounted/cpu/a/b/cpu.cfs_quota_us", "-1\n");
  groups.put("mounted/cpu/a/b/cpu.cfs_period_us", "100000\n");
  CHECK(groups.quota(lines) == 6);
  groups.put("mounted/cpu/a/b/cpu.cfs_quota_us", "130000\n");
  CHECK(groups.quota(lines) == 2);
}

TEST_CASE("what is not there or makes no sense limits nothing") {
  const Groups groups;
  CHECK(hypertape::detail::cpu_quota("/nowhere/self", "/nowhere") == 0);
  for (const char* text : {"", "\n", "100000\n", "many 100000\n", "100000 0\n", "-5 100000\n", "0 100000\n",
                           "9000000000000000000 1\n"}) {
    INFO("cpu.max: ", text);
    groups.put("mounted/cpu.max", text);
    CHECK(groups.quota("0::/\n") == 0);
  }
  groups.put("mounted/cpu.max", "100000 100000\n");
  CHECK(groups.quota("") == 0);
  CHECK(groups.quota("0::") == 0);
  CHECK(groups.quota("no colons\n") == 0);
}

TEST_CASE("threads are no more than the quota by default") {
  using hypertape::detail::threads_for;
  CHECK(threads_for(0, 8) == 8);
  CHECK(threads_for(3, 8) == 3);
  CHECK(threads_for(9, 8) == 8);
  CHECK(hypertape::thread_count() ==
        threads_for(hypertape::detail::cpu_quota(), hypertape::available_cpus()));
}
