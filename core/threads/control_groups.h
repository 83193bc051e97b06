// The control groups that a process is in, from its own to the root: Linux, versions 1 and 2.
//
// In the header alone, so that the program reads memory limits by what the library reads CPU limits by.
#pragma once

#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace hypertape::detail {

struct ControlGroup {
  int version;
  std::string folder;  ///< of its files, which may not be there
};

/// Where the limits of a controller ("cpu", "memory") may stand. `groups` is a file as /proc/self/cgroup,
/// `mounted` where the hierarchies are. Inside a container the paths may be the host's, which are not there;
/// then the root, which is always among them, is the container's own group.
inline std::vector<ControlGroup> control_groups(std::string_view controller, const std::string& groups,
                                                const std::string& mounted) {
  std::vector<ControlGroup> found;
  std::ifstream file(groups);
  // number:controllers:path, where version 2 has no controllers.
  std::string number, controllers, path;
  while (std::getline(file, number, ':') && std::getline(file, controllers, ':') &&
         std::getline(file, path)) {
    bool is_here = controllers.empty();
    std::istringstream words(controllers);
    for (std::string word; std::getline(words, word, ',');) is_here = is_here || word == controller;
    if (!is_here) continue;
    while (!path.empty() && path.back() == '/') path.pop_back();
    while (true) {
      if (controllers.empty()) {
        found.push_back({2, mounted + path});
      } else {
        found.push_back({1, mounted + '/' + std::string(controller) + path});
        // A hierarchy of several controllers may be mounted by all their names only.
        if (controllers != controller) found.push_back({1, mounted + '/' + controllers + path});
      }
      if (path.empty()) break;
      path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
    }
  }
  return found;
}

}  // namespace hypertape::detail
