// smoe train CONFIG.yaml [key=value ...] [--print-config | --dry-run]
#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "configs/validate.h"
#include "configs/yaml_printer.h"
#include "configs/yaml_reader.h"
#include "data/files/printable.h"
#include "launch/commands.h"
#include "trainer/signals.h"

namespace smoe {
namespace {

struct TrainArguments {
  std::string config;
  std::vector<std::string> overrides;
  bool print_config = false;
  bool dry_run = false;
};

void train(const TrainArguments& arguments, Job& job) {
  RunConfig config;
  job.agree("launch.configuration", [&] { config = read_config(arguments.config, arguments.overrides); });
  // First of all, because ranks that were given something else would take other ways from here.
  job.require_same_everywhere(fmt::format("train\n{}print_config: {}\ndry_run: {}\n", print_yaml(config),
                                          arguments.print_config, arguments.dry_run));
  if (job.is_root()) {
    for (const std::string& warning : find_warnings(config))
      fmt::print(stderr, "smoe: warning: {}\n", printable(warning));
  }
  if (arguments.print_config) {
    if (job.is_root()) fmt::print("{}", print_yaml(config));
    return;
  }
  // Until the process ends: a signal that comes twice, or late, must not turn the end of a saved run into a death.
  [[maybe_unused]] static const auto* const signals = new StopSignals;
  const int status = run_training(config, {.dry_run = arguments.dry_run}, job);
  if (status != 0) throw EndsWith(status);
}

}  // namespace

void add_train_command(CommandLine& line, Job& job) {
  const auto arguments = std::make_shared<TrainArguments>();
  const Command command = line.command("train", "trains the model that a configuration describes");
  command.path("CONFIG", arguments->config, "YAML file").required();
  command.option("key=value", arguments->overrides, "overrides, as in optimizer.learning_rate=1e-3");
  const Option print_config =
      command.flag("--print-config", arguments->print_config, "print every option as YAML and exit");
  command.flag("--dry-run", arguments->dry_run, "describe the run (parameters, tokens, memory) and exit")
      .excludes(print_config);
  command.runs([arguments, &job] { train(*arguments, job); });
}

}  // namespace smoe
