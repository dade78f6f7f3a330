#include "configs/user_path.h"

#include <fmt/format.h>

#include <cstdlib>
#include <stdexcept>

#include "configs/yaml_document.h"

namespace smoe {

std::string expand_path(std::string_view path) {
  const auto refuse = [&](const std::string& why) {
    throw std::runtime_error(fmt::format("found '{}', {}", shown(path), why));
  };
  std::string expanded(path);
  if (path == "~" || path.starts_with("~/")) {
    const char* home = std::getenv("HOME");
    if (home == nullptr || *home == '\0') refuse("but HOME is not set: write the directory out in place of ~");
    if (*home != '/')
      refuse(fmt::format("but HOME is '{}', no absolute path: write the directory out in place of ~", shown(home)));
    expanded = home + expanded.substr(1);
  } else if (path.starts_with('~')) {
    refuse(
        "expected ~/ for your own home directory or a path: other users' are not looked up; write the directory out "
        "(with ./ in front where a name begins with ~)");
  }
  if (expanded.find('$') != std::string::npos)
    refuse(
        "expected a path without '$': variables are not expanded; write the path out, or begin it with ~/ for your "
        "home directory");
  return expanded;
}

}  // namespace smoe
