// smoe eval --model DIR --data DIR... [--seq N] [--batch N] [--threads N] [--json]
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "launch/commands.h"
#include "parallel/cores.h"
#include "trainer/checkpoint.h"
#include "trainer/corpus.h"
#include "trainer/evaluate.h"
#include "trainer/inference.h"
#include "trainer/progress.h"

namespace smoe {
namespace {

struct EvalArguments {
  std::string model;
  std::vector<std::string> data;
  std::int64_t sequence_length = 512, sequences = 4, threads = 0;
  bool json = false;
};

void print_table(const std::vector<EvalMetrics>& rows) {
  std::size_t width = 6;
  for (const auto& row : rows) width = std::max(width, row.source.size());
  fmt::print("{:<{}}  {:>8}  {:>10}  {:>10}  {:>8}  {:>8}\n", "source", width, "loss", "perplexity", "tokens", "balance", "MaxVio");
  for (const auto& row : rows)
    fmt::print("{:<{}}  {:>8.4f}  {:>10.3f}  {:>10}  {:>8.3f}  {:>8.3f}\n", row.source, width, row.loss, row.perplexity, row.tokens, row.aux_loss, row.max_vio);
}

void eval(const EvalArguments& arguments) {
  const auto directory = find_model_directory(arguments.model);
  const Mesh mesh = Mesh::single();
  std::vector<DataSource> wanted;
  for (const auto& path : arguments.data) wanted.push_back({.path = path});
  const auto shape = read_hf_config(directory).model;
  const std::int64_t length = std::min(arguments.sequence_length, shape.max_position_embeddings);
  const auto sources = open_sources(wanted, length, true, {.vocab_size = shape.vocab_size, .model_directory = directory});
  InferenceModel model(directory, mesh, length, claim_threads(arguments.threads));
  std::vector<EvalMetrics> rows;
  for (const Source& source : sources) {
    Progress progress({.label = "eval " + source.name, .unit = "sample", .total = source.dataset->samples()});
    rows.push_back(evaluate(model.model(), model.fresh_context(), *source.dataset,
                            {.batches = 0, .sequences = arguments.sequences, .name = source.name,
                             .on_progress = [&](std::int64_t done, std::int64_t) { progress.update(done); }},
                            0));
  }
  if (arguments.json)
    fmt::print("{}", to_json_line(rows));
  else
    print_table(rows);
  for (const EvalMetrics& row : rows)
    if (!std::isfinite(row.loss))
      throw std::runtime_error(fmt::format("the loss on {} is not finite: the weights in {} are damaged or their training diverged", row.source, directory.string()));
}

}  // namespace

void add_eval_command(CommandLine& line) {
  const auto arguments = std::make_shared<EvalArguments>();
  const Command command = line.command("eval", "loss, perplexity and routing balance on token shards, by source");
  command.option("--model", arguments->model, "Hugging Face directory, checkpoint, or run directory").required();
  command.option("--data", arguments->data, "directories of token shards").required();
  command.option("--seq", arguments->sequence_length, "tokens a sample (at most what the model has positions for)")
      .show_default().range(1, 1 << 24);
  command.option("--batch", arguments->sequences, "samples computed at once").show_default().range(1, 1 << 20);
  command.option("--threads", arguments->threads, threads_help).show_default().range(0, 4096);
  command.flag("--json", arguments->json, "one JSON object on stdout");
  command.runs([arguments] { eval(*arguments); });
}

}  // namespace smoe
