// File names by pattern, for whoever quoted one so that the shell did not: there may be more of them than a command line
// holds, and /bin/sh knows no **.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace smoe {

// Whether any of * ? [ stands in it.
bool is_pattern(std::string_view text);

// What matches, sorted, each once: * ? and [...] inside a name, and ** as a whole name for any number of directories, none
// too; as the last name, all files below. What is found may be no file: a pipe, a link to nothing. Names that begin with a dot are met only by patterns that do. Links to directories are followed but by **.
std::vector<std::filesystem::path> expand_pattern(const std::string& pattern);

}  // namespace smoe
