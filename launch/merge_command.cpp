// smoe merge --model DIR --adapter DIR [--adapter DIR2:0.5 ...] --out DIR [--dtype keep|fp32|bf16]
#include <fmt/format.h>

#include <charconv>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/files/printable.h"
#include "launch/commands.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/convert/merge.h"
#include "trainer/convert/stored_type.h"
#include "trainer/record/progress.h"

namespace smoe {
namespace {

struct MergeArguments {
  std::string model, out, type = "keep";
  std::vector<std::string> adapters;
};

// "DIR:0.5"; a directory that has such a name is one.
WeightedAdapter weighted_adapter(const std::string& argument) {
  WeightedAdapter adapter{argument, 1};
  const auto colon = argument.rfind(':');
  if (colon == std::string::npos || std::filesystem::exists(argument)) {
    adapter.directory = find_adapter_directory(argument);
    return adapter;
  }
  const char *begin = argument.data() + colon + 1, *end = argument.data() + argument.size();
  const auto [read, error] = std::from_chars(begin, end, adapter.weight);
  if (error != std::errc() || read != end)
    throw UsageError(fmt::format("--adapter {}: found the weight '{}', expected a number, as in DIR:0.5",
                                 printable(argument), printable(std::string(begin, end))));
  adapter.directory = find_adapter_directory(argument.substr(0, colon));
  return adapter;
}

void run_merge(const MergeArguments& arguments) {
  MergeOptions options;
  options.model = find_model_directory(arguments.model);
  for (const std::string& adapter : arguments.adapters) options.adapters.push_back(weighted_adapter(adapter));
  options.out = arguments.out;
  options.type = stored_type_of(arguments.type);
  std::unique_ptr<Progress> progress;
  options.on_progress = [&](std::uint64_t done, std::uint64_t all) {
    if (!progress)
      progress = std::make_unique<Progress>(
          ProgressOptions{.label = "merge", .unit = "B", .total = static_cast<std::int64_t>(all)});
    progress->update(static_cast<std::int64_t>(done));
  };
  const Merged merged = merge(options);
  progress.reset();
  for (const std::string& warning : merged.warnings) fmt::print(stderr, "smoe: warning: {}\n", printable(warning));
  fmt::print("{}: {} of {} tensors changed; {} bytes of weights\n", printable(arguments.out), merged.changed,
             merged.tensors, format_count(static_cast<double>(merged.bytes)));
}

}  // namespace

void add_merge_command(CommandLine& line) {
  const auto arguments = std::make_shared<MergeArguments>();
  const Command command = line.command("merge", "folds LoRA adapters into the weights");
  command.path("--model", arguments->model, "Hugging Face directory, checkpoint, or run directory").required();
  command
      .path(
          "--adapter", arguments->adapters,
          "PEFT directory, checkpoint or run directory of adapters, DIR or DIR:WEIGHT; several are added up, each times its weight")
      .required();
  command.path("--out", arguments->out, "directory for the merged model: a new or an empty one").required();
  command.option("--dtype", arguments->type, "of the weights; keep: the model's own")
      .show_default()
      .one_of({stored_type_names.begin(), stored_type_names.end()});
  command.runs([arguments] { run_merge(*arguments); });
}

}  // namespace smoe
