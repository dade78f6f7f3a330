// smoe eval --model DIR --data DIR... [--seq N] [--packing stream|best_fit] [--batch N] [--threads N] [--json]
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "data/files/json.h"
#include "data/files/printable.h"
#include "launch/commands.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/corpus.h"
#include "trainer/evaluate.h"
#include "trainer/inference.h"
#include "trainer/record/progress.h"

namespace smoe {
namespace {

struct EvalArguments {
  std::string model, adapter;
  std::vector<std::string> data;
  std::int64_t sequence_length = 512, sequences = 4, threads = 0;
  std::string device = "auto", precision = "auto", packing = "stream";
  bool json = false;
};

void print_table(const std::vector<EvalMetrics>& rows) {
  std::size_t width = 6;
  for (const auto& row : rows) width = std::max(width, printable(row.source).size());
  fmt::print("{:<{}}  {:>8}  {:>10}  {:>10}  {:>8}  {:>8}\n", "source", width, "loss", "perplexity", "tokens",
             "balance", "MaxVio");
  for (const auto& row : rows)
    fmt::print("{:<{}}  {:>8.4f}  {:>10.3f}  {:>10}  {:>8.3f}  {:>8.3f}\n", printable(row.source), width, row.loss,
               row.perplexity, row.tokens, row.aux_loss, row.max_vio);
}

// The rows, under "refused" why a source has none, and of a benchmark's weights how its routing was forced.
void print_json(const std::vector<EvalMetrics>& rows, const std::vector<RefusedSource>& refused,
                const std::string& forced_routing) {
  std::string line = rows.empty() ? "{\"step\":0,\"eval\":{}}\n" : to_json_line(rows);
  if (!refused.empty()) {
    Json reasons = Json::object();
    for (const RefusedSource& source : refused) reasons[source.path] = source.reason;
    line.insert(line.rfind('}'), ",\"refused\":" + reasons.dump(-1, ' ', false, Json::error_handler_t::replace));
  }
  if (!forced_routing.empty())
    line.insert(line.rfind('}'),
                ",\"forced_routing\":" + Json(forced_routing).dump(-1, ' ', false, Json::error_handler_t::replace));
  fmt::print("{}", line);
}

void eval(const EvalArguments& arguments) {
  const auto directory = find_model_directory(arguments.model);
  const Mesh mesh = Mesh::single();
  std::vector<DataSource> wanted;
  for (const auto& path : arguments.data) {
    if (std::count(arguments.data.begin(), arguments.data.end(), path) > 1)
      throw UsageError(fmt::format("--data names {} more than once: once is enough", path));
    wanted.push_back({.path = path});
  }
  const HfConfig config = read_hf_config(directory);
  const ModelConfig& shape = config.model;
  const std::int64_t length = std::min(arguments.sequence_length, shape.max_position_embeddings);
  auto [sources, refused] = open_usable_sources(wanted, length, true,
                                                {.vocab_size = shape.vocab_size,
                                                 .model_directory = directory,
                                                 .tail = Tail::keep,
                                                 .packing = packing_named(arguments.packing)});
  const auto tell = [](const RefusedSource& source) {
    fmt::print(stderr, "smoe: error: {}\n", printable(source.reason));
  };
  for (const RefusedSource& source : refused) tell(source);
  for (const Source& source : sources)
    if (const std::string cut = describe_cut_examples(source); !cut.empty())
      fmt::print(stderr, "smoe: {}\n", printable(cut));
  std::vector<EvalMetrics> rows;
  const auto measure = [&](InferenceModel& model, const Source& source) {
    const Dataset& dataset = *source.dataset;
    Progress progress(
        {.label = "eval " + source.name, .unit = "sample", .total = dataset.samples() + (dataset.tail() > 0)});
    rows.push_back(evaluate(model.model(), model.fresh_context(), dataset,
                            {.batches = 0,
                             .sequences = arguments.sequences,
                             .name = source.name,
                             .on_progress = [&](std::int64_t done, std::int64_t) { progress.update(done); }},
                            0));
    if (!std::isfinite(rows.back().loss))
      throw std::runtime_error(
          fmt::format("the loss on {} is not finite: the weights in {} are damaged or their training diverged",
                      source.name, directory.string()));
  };
  if (!sources.empty()) {
    InferenceModel model(directory, mesh, length, backend_of(arguments.device, arguments.threads), config,
                         precision_named(arguments.precision), adapter_of(arguments.adapter));
    for (const Source& source : sources) try {
        measure(model, source);
      } catch (
          const std::runtime_error& error) {  // a shard that fails while it is read, say: the others are not its fault
        refused.push_back({source.dataset->directory(), error.what()});
        tell(refused.back());
      }
  }
  if (arguments.json)
    print_json(rows, refused, config.forced_routing);
  else if (!rows.empty())
    print_table(rows);
  if (!refused.empty()) throw EndsWith(1);  // each has been told
}

}  // namespace

void add_eval_command(CommandLine& line) {
  const auto arguments = std::make_shared<EvalArguments>();
  const Command command = line.command("eval", "loss, perplexity and routing balance on token shards, by source");
  command.path("--model", arguments->model, "Hugging Face directory, checkpoint, or run directory").required();
  command.path("--adapter", arguments->adapter, adapter_help);
  command
      .path("--data", arguments->data,
            "directories of token shards; one that cannot be used does not keep the others from being evaluated")
      .required();
  command
      .option("--seq", arguments->sequence_length,
              "tokens a sample (at most what the model has positions for); a source's last sample may be shorter")
      .show_default()
      .range(1, 1 << 24);
  command
      .option(
          "--packing", arguments->packing,
          "stream cuts documents where a sample ends; best_fit keeps each whole, as a run with data.packing: best_fit "
          "has its examples. Every target counts once, either way")
      .show_default()
      .one_of({"stream", "best_fit"});
  command.option("--batch", arguments->sequences, "samples computed at once").show_default().range(1, 1 << 20);
  command.option("--threads", arguments->threads, threads_help).show_default().range(0, 4096);
  command.option("--device", arguments->device, device_help).show_default().one_of({"auto", "cpu", "cuda", "check"});
  command.option("--precision", arguments->precision, precision_help).show_default().one_of({"auto", "fp32", "bf16"});
  command.flag("--json", arguments->json, "one JSON object on stdout");
  command.runs([arguments] { eval(*arguments); });
}

}  // namespace smoe
