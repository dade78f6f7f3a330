// The adapter that a command's --adapter asks for.
#include <filesystem>
#include <string>

#include "launch/commands.h"
#include "trainer/checkpoint/directories.h"

namespace smoe {

std::filesystem::path adapter_of(const std::string& argument) {
  return argument.empty() ? std::filesystem::path() : find_adapter_directory(argument);
}

}  // namespace smoe
