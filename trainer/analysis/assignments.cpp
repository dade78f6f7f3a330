#include "trainer/analysis/assignments.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "trainer/sample_columns.h"

namespace smoe {

Assignments empty_assignments(const ModelConfig& model, std::int64_t sequence_length) {
  constexpr std::int64_t most = std::numeric_limits<ExpertId>::max();
  if (model.num_local_experts < 2)
    throw std::runtime_error(
        "the model has one expert a layer (num_local_experts in config.json): no router of it has "
        "anything to choose from, and there is nothing to analyse");
  if (model.num_local_experts > most)
    throw std::runtime_error(
        fmt::format("the model has {} experts a layer, expected at most {}", model.num_local_experts, most));
  Assignments table;
  table.experts = static_cast<std::size_t>(model.num_local_experts);
  table.experts_per_token = static_cast<std::size_t>(model.num_experts_per_tok);
  table.sequence_length = static_cast<std::size_t>(sequence_length);
  table.choices.resize(static_cast<std::size_t>(model.num_hidden_layers));
  return table;
}

std::int64_t sequences_to_collect(const Dataset& dataset, std::int64_t tokens) {
  if (dataset.samples() == 0)
    throw std::runtime_error(fmt::format(
        "{} holds {} tokens, too few for one sequence: one of {} needs {}. Prepare more text, or lower --seq to at most {}",
        dataset.directory(), dataset.tokens(), dataset.sequence_length(), dataset.sequence_length() + 1,
        std::max<std::int64_t>(dataset.tokens() - 1, 1)));
  return std::clamp<std::int64_t>(tokens / dataset.sequence_length(), 1, dataset.samples());
}

void collect_assignments(Mixtral& model, Context context, const Source& source, const CollectOptions& options,
                         Assignments& table) {
  const Dataset& dataset = *source.dataset;
  const std::int64_t length = dataset.sequence_length(), all = sequences_to_collect(dataset, options.tokens);
  const std::size_t layers = table.layers();
  AnalysedSource added{source.name, dataset.directory(), table.tokens(), static_cast<std::size_t>(all * length)};
  SampleColumns columns;
  Mixtral::Saved saved;
  std::vector<std::int32_t> chosen;
  for (std::int64_t done = 0; done < all; done += options.at_once) {
    const std::int64_t count = std::min(options.at_once, all - done);
    columns.read(dataset, done, count, length);
    context.activations.rewind({});
    context.scratch.rewind({});
    TokenBatch batch = columns.batch(context.backend, context.activations);
    batch.dropless = true;
    saved.choices = context.activations.take(
        DType::i32, {model.config().num_hidden_layers, batch.tokens(), model.config().num_experts_per_tok});
    model.forward(context, batch, Keep::nothing, saved);
    chosen.resize(static_cast<std::size_t>(saved.choices.elements()));
    context.backend.copy_to_host(chosen.data(), saved.choices);
    const std::size_t of_layer = chosen.size() / layers;
    for (std::size_t l = 0; l < layers; ++l)
      for (std::size_t i = 0; i < of_layer; ++i)
        table.choices[l].push_back(static_cast<ExpertId>(chosen[l * of_layer + i]));
    table.ids.insert(table.ids.end(), columns.ids.begin(), columns.ids.end());
    for (std::int64_t t = 0; t < count * length; ++t)  // a sequence's first token is where its document starts for it
      table.follows.push_back(columns.document_start[static_cast<std::size_t>(t)] == t % length ? 0 : 1);
    if (options.on_progress) options.on_progress(done + count, all);
  }
  context.activations.rewind({});
  context.scratch.rewind({});
  table.sources.push_back(std::move(added));
}

}  // namespace smoe
