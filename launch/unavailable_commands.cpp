#include <fmt/format.h>

#include "launch/commands.h"

namespace smoe {

void add_unavailable_commands(CommandLine& line) {
  static constexpr struct {
    const char* name;
    const char* does;
  } commands[] = {
      {"plan", "memory, step time and best layouts for a configuration"},
  };
  for (const auto& [name, does] : commands) {
    const Command command = line.command(name, fmt::format("{} (not available yet)", does));
    command.takes_anything();  // its arguments are not known yet: the refusal is about the command
    command.runs([name = name] { throw UsageError(fmt::format("the command '{}' is not available yet", name)); });
  }
}

}  // namespace smoe
