// Paths as people write them, in a configuration or on the command line.
#pragma once

#include <string>
#include <string_view>

namespace smoe {

// "~/runs" (or "~") under $HOME; any other path as it is. Nothing else is expanded.
// Throws std::runtime_error that says what was found and what to write: for another user's home ("~ann/runs"), for a '$',
// because it would become part of a name, and where HOME is needed and names no absolute directory.
std::string expand_path(std::string_view path);

}  // namespace smoe
