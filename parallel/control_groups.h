// The control groups (cgroups, version 2 or 1) that a process belongs to: where a container or a job scheduler says how much
// of the machine it may use.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace smoe {

struct ControlGroup {
  std::filesystem::path directory;
  bool version_2 = true;
};

// Those of one controller ("cpu", "memory"), each with the groups above it up to the root; what all of them grant holds.
// They need not exist: a container may see itself as the root, whatever its path is outside. membership: /proc/PID/cgroup.
std::vector<ControlGroup> control_groups(std::string_view controller, const std::filesystem::path& membership,
                                         const std::filesystem::path& groups);

// A file's content without the blanks and line ends behind it; empty where it cannot be read.
std::string content_of(const std::filesystem::path& path);

}  // namespace smoe
