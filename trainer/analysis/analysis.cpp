#include "trainer/analysis/analysis.h"

#include <algorithm>

namespace smoe {

RoutingStatistics routing_statistics(const Assignments& table, const AnalysisOptions& options) {
  RoutingStatistics found;
  const auto of_layers = [&](auto&& statistic, const AnalysedSource& source, auto& results) {
    auto& row = results.emplace_back();
    for (std::size_t l = 0; l < table.layers(); ++l) row.push_back(statistic(table, source, l));
  };
  for (const AnalysedSource& source : table.sources) {
    of_layers(shares_of, source, found.shares);
    of_layers(repetition_of, source, found.repetition);
    of_layers(cache_rates, source, found.cache);
    if (options.excerpt_tokens > 0)
      found.excerpts.push_back(excerpt_of(table, source, static_cast<std::size_t>(options.excerpt_tokens)));
  }
  const auto tell = [&](const char* what, std::int64_t done) {
    if (options.on_progress) options.on_progress(what, done, 2);
  };
  found.domain = domain_information(table, options.permutation);
  tell("permutations", 1);
  found.token = token_information(table, options.permutation);
  tell("permutations", 2);
  for (std::size_t l = 0; l < table.layers(); ++l) found.top_tokens.push_back(top_tokens(table, l, options.top_tokens));
  return found;
}

Analysis analyse(InferenceModel& model, const std::string& directory, const std::vector<Source>& sources,
                 const AnalysisOptions& options) {
  const std::int64_t length = sources.front().dataset->sequence_length();
  Assignments table = empty_assignments(model.shape(), length);
  for (const Source& source : sources) sequences_to_collect(*source.dataset, options.tokens);
  const auto tell = [&](const std::string& what, std::int64_t done, std::int64_t all) {
    if (options.on_progress) options.on_progress(what, done, all);
  };
  Analysis found;
  found.model = directory;
  found.forced_routing = model.config().forced_routing;
  found.layers = table.layers();
  found.experts = table.experts;
  found.experts_per_token = table.experts_per_token;
  found.sequence_length = table.sequence_length;
  found.options = options;
  // First, because it finds weights that are of no use.
  found.overlap = weight_overlap(model.model(), model.fresh_context(), model.lora());
  tell("overlap", 1, 2);
  found.output_tokens = add_output_overlap(model.model(), model.fresh_context(), model.lora(), sources,
                                           options.output_tokens, found.overlap);
  tell("overlap", 2, 2);
  for (const Source& source : sources)
    collect_assignments(model.model(), model.fresh_context(), source,
                        {.tokens = options.tokens,
                         .at_once = options.at_once,
                         .on_progress = [&](std::int64_t done, std::int64_t all) { tell(source.name, done, all); }},
                        table);
  found.statistics = routing_statistics(table, options);
  found.sources = std::move(table.sources);
  return found;
}

std::vector<std::size_t> shown_layers(std::size_t layers) {
  std::vector<std::size_t> shown{0, (layers - 1) / 2, layers - 1};
  shown.erase(std::unique(shown.begin(), shown.end()), shown.end());
  return shown;
}

}  // namespace smoe
