// smoe upcycle --dense DIR [--dense DIR2 ...] --out DIR --experts 8 [--top-k 2] [--router-std 0.02] [--drop 0.0] [--granularity 1]
//   [--scale exact|cube-root] [--attention average|first] [--seed s] [--dtype keep|fp32|bf16]
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "data/files/printable.h"
#include "launch/commands.h"
#include "trainer/convert/upcycle.h"
#include "trainer/convert/stored_type.h"
#include "trainer/record/progress.h"

namespace smoe {
namespace {

struct UpcycleArguments {
  UpcycleOptions options;
  std::vector<std::string> dense;
  std::string out, scale = "exact", attention = "average", type = "keep";
};

// "experts 0, 2 of A; 1, 3 of B"
std::string experts_by_parent(const UpcycleArguments& arguments) {
  const std::int64_t parents = static_cast<std::int64_t>(arguments.dense.size()),
                     granularity = arguments.options.granularity;
  std::string text;
  for (std::int64_t p = 0; p < parents; ++p) {
    std::vector<std::int64_t> experts;
    for (std::int64_t e = 0; e < arguments.options.experts; ++e)
      if (e / granularity % parents == p) experts.push_back(e);
    text += fmt::format("{}{} of {}", p == 0 ? "experts " : "; ", fmt::join(experts, ", "),
                        arguments.dense[static_cast<std::size_t>(p)]);
  }
  return text;
}

void run_upcycle(UpcycleArguments& arguments) {
  UpcycleOptions& options = arguments.options;
  options.dense.assign(arguments.dense.begin(), arguments.dense.end());
  options.out = arguments.out;
  options.scale = arguments.scale == "exact" ? SplitScale::exact : SplitScale::cube_root;
  options.shared = arguments.attention == "average" ? SharedWeights::average : SharedWeights::first;
  options.type = stored_type_of(arguments.type);
  if (const std::string problem = problem_with(options); !problem.empty()) throw UsageError(problem);
  std::unique_ptr<Progress> progress;
  options.on_progress = [&](std::uint64_t done, std::uint64_t all) {
    if (!progress)
      progress = std::make_unique<Progress>(
          ProgressOptions{.label = "upcycle", .unit = "B", .total = static_cast<std::int64_t>(all)});
    progress->update(static_cast<std::int64_t>(done));
  };
  const Upcycled result = upcycle(options);
  progress.reset();
  for (const std::string& warning : result.warnings) fmt::print(stderr, "smoe: warning: {}\n", printable(warning));
  const ParameterCounts counts = count_parameters(result.shape);
  fmt::print("{}: a Mixtral of {} experts, {} a token; {} parameters, {} active; {} bytes of weights\n",
             printable(arguments.out), result.shape.num_local_experts, result.shape.num_experts_per_tok,
             format_count(static_cast<double>(counts.total)), format_count(static_cast<double>(counts.active)),
             format_count(static_cast<double>(result.bytes)));
  if (arguments.dense.size() > 1) fmt::print("{}\n", printable(experts_by_parent(arguments)));
}

}  // namespace

void add_upcycle_command(CommandLine& line) {
  const auto arguments = std::make_shared<UpcycleArguments>();
  UpcycleOptions& options = arguments->options;
  const Command command = line.command("upcycle", "makes a Mixtral out of a dense Llama or Mistral, or of several");
  command
      .path("--dense", arguments->dense,
            "Hugging Face directory of a dense model; several of one shape become one, their copies dealt in turn")
      .required();
  command.path("--out", arguments->out, "directory for the Mixtral: a new or an empty one").required();
  command.option("--experts", options.experts, "experts a layer").required().range(1, 4096);
  command.option("--top-k", options.top_k, "experts a token").show_default().range(1, 4096);
  command.option("--router-std", options.router_std, "standard deviation of the routers' weights").show_default();
  command
      .option(
          "--drop", options.drop,
          "share of each expert's intermediate dims that are drawn anew (drop-upcycling; its paper: 0.5). 0: the model "
          "begins as its parent")
      .show_default();
  command
      .option(
          "--granularity", options.granularity,
          "cut each copy into so many experts, which are chosen together: --experts and --top-k are multiples of it")
      .show_default()
      .range(1, 4096);
  command
      .option(
          "--scale", arguments->scale,
          "what makes up for the cut. exact: w3 and w2 alone, and the model begins as its parent; cube-root: all three "
          "alike, as in arXiv 2410.07524, and it does not")
      .show_default()
      .one_of({"exact", "cube-root"});
  command
      .option("--attention", arguments->attention,
              "of several parents: attention, norms, embeddings and head are their average, or the first's")
      .show_default()
      .one_of({"average", "first"});
  command.option("--seed", options.seed, "of the routers, and of what --drop draws").show_default();
  command.option("--dtype", arguments->type, "of the weights; keep: the parent's, bit for bit")
      .show_default()
      .one_of({stored_type_names.begin(), stored_type_names.end()});
  command.runs([arguments] { run_upcycle(*arguments); });
}

}  // namespace smoe
