// smoe analyze --model DIR --data DIR... --out DIR [--tokens N] [--seq N] [--batch N] [--permutations N] [--seed s] [--json]
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "data/files/printable.h"
#include "launch/commands.h"
#include "trainer/analysis/analysis.h"
#include "trainer/analysis/analysis_directory.h"
#include "trainer/analysis/analysis_json.h"
#include "trainer/analysis/analysis_page.h"
#include "trainer/analysis/analysis_table.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/corpus.h"
#include "trainer/inference.h"
#include "trainer/record/progress.h"

namespace smoe {
namespace {

struct AnalyzeArguments {
  std::string model, adapter, out;
  std::vector<std::string> data;
  AnalysisOptions options;
  std::int64_t sequence_length = 512, threads = 0;
  std::string device = "auto", precision = "auto";
  bool json = false;
};

// All of them, or none: what is told of a domain depends on the others. Each that cannot be used is told.
std::vector<Source> open_domains(const AnalyzeArguments& arguments, const std::filesystem::path& directory,
                                 const ModelConfig& shape) {
  std::vector<DataSource> wanted;
  for (const auto& path : arguments.data) {
    if (std::count(arguments.data.begin(), arguments.data.end(), path) > 1)
      throw UsageError(fmt::format("--data names {} more than once: once is enough", path));
    wanted.push_back({.path = path});
  }
  const std::int64_t length = std::min(arguments.sequence_length, shape.max_position_embeddings);
  auto [sources, refused] = open_usable_sources(
      wanted, length, true, {.vocab_size = shape.vocab_size, .model_directory = directory, .tail = Tail::keep});
  for (const Source& source : sources) try {
      sequences_to_collect(*source.dataset, arguments.options.tokens);
    } catch (const std::runtime_error& error) {
      refused.push_back({source.dataset->directory(), error.what()});
    }
  for (const RefusedSource& source : refused) fmt::print(stderr, "smoe: error: {}\n", printable(source.reason));
  if (!refused.empty()) throw EndsWith(1);
  return std::move(sources);
}

void analyze(const AnalyzeArguments& arguments) {
  require_analysis_directory(arguments.out);
  const auto directory = find_model_directory(arguments.model);
  const HfConfig config = read_hf_config(directory);
  empty_assignments(config.model, arguments.sequence_length);  // refuses a model without a choice
  const std::vector<Source> sources = open_domains(arguments, directory, config.model);
  const TokenTexts texts = texts_of(sources, directory);
  const Mesh mesh = Mesh::single();
  InferenceModel model(directory, mesh, sources.front().dataset->sequence_length(),
                       backend_of(arguments.device, arguments.threads), config, precision_named(arguments.precision),
                       adapter_of(arguments.adapter));
  std::optional<Progress> progress;
  std::string shown;
  AnalysisOptions options = arguments.options;
  options.on_progress = [&](const std::string& what, std::int64_t done, std::int64_t all) {
    if (what != shown) progress.emplace(ProgressOptions{.label = "analyze " + what, .total = all});
    shown = what;
    progress->update(done);
  };
  const Analysis analysis = analyse(model, arguments.model, sources, options);
  progress.reset();
  const OrderedJson json = analysis_json(analysis, texts);
  const std::string text = dump_json(json) + "\n";
  write_analysis(arguments.out, text, analysis_page(json));
  if (arguments.json)
    fmt::print("{}", text);
  else
    fmt::print("{}\n{}\n", analysis_table(analysis),
               printable((std::filesystem::path(arguments.out) / "analysis.html").string()));
}

}  // namespace

void add_analyze_command(CommandLine& line) {
  const auto arguments = std::make_shared<AnalyzeArguments>();
  const Command command =
      line.command("analyze", "which experts tokens choose, by domain, layer and token: JSON and one HTML page");
  command.path("--model", arguments->model, "Hugging Face directory, checkpoint, or run directory").required();
  command.path("--adapter", arguments->adapter, adapter_help);
  command.path("--data", arguments->data, "directories of token shards, each a domain").required();
  command
      .path("--out", arguments->out,
            "directory for analysis.json and analysis.html: a new one, an empty one, or that of a former analysis")
      .required();
  AnalysisOptions& options = arguments->options;
  command.option("--tokens", options.tokens, "tokens of each source, cut to whole sequences")
      .show_default()
      .range(1, 1 << 28);
  command.option("--seq", arguments->sequence_length, "tokens a sequence (at most what the model has positions for)")
      .show_default()
      .range(2, 1 << 24);
  command.option("--batch", options.at_once, "sequences computed at once").show_default().range(1, 1 << 20);
  command
      .option("--permutations", options.permutation.permutations,
              "of the tests of mutual information; 0: none are made, and no bias is corrected")
      .show_default()
      .range(0, 1'000'000);
  command.option("--seed", options.permutation.seed, "of the permutations").show_default();
  command
      .option(
          "--excerpt", options.excerpt_tokens,
          "tokens of text of each source that are shown with their experts; 0: none, for texts that may not be passed on")
      .show_default()
      .range(0, 1 << 20);
  command.option("--threads", arguments->threads, threads_help).show_default().range(0, 4096);
  command.option("--device", arguments->device, device_help).show_default().one_of({"auto", "cpu", "cuda", "check"});
  command.option("--precision", arguments->precision, precision_help).show_default().one_of({"auto", "fp32", "bf16"});
  command.flag("--json", arguments->json, "the object of analysis.json on stdout, in place of a table");
  command.runs([arguments] { analyze(*arguments); });
}

}  // namespace smoe
