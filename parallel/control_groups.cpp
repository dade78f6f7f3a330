#include "parallel/control_groups.h"

#include <cstddef>
#include <fstream>
#include <iterator>
#include <sstream>

namespace smoe {
namespace fs = std::filesystem;

std::string content_of(const fs::path& path) {
  std::ifstream file(path);
  std::string text(std::istreambuf_iterator<char>(file), {});
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

std::vector<ControlGroup> control_groups(std::string_view controller, const fs::path& membership,
                                         const fs::path& groups) {
  std::vector<ControlGroup> found;
  std::istringstream lines(content_of(membership));
  for (std::string line; std::getline(lines, line);) {  // "0::/path", or of version 1 "4:cpu,cpuacct:/path"
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool version_2 = controllers.empty();
    if (!version_2 && ("," + controllers + ",").find("," + std::string(controller) + ",") == std::string::npos)
      continue;
    const fs::path mount = version_2 ? groups : groups / controllers;
    for (fs::path group = fs::path(line.substr(second + 1)).relative_path(); !group.empty();
         group = group.parent_path())
      found.push_back({mount / group, version_2});
    found.push_back({mount, version_2});
  }
  return found;
}

}  // namespace smoe
