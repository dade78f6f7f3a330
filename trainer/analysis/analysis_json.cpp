#include "trainer/analysis/analysis_json.h"

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "data/files/printable.h"

namespace smoe {
namespace {

OrderedJson finite_or_null(double value) { return std::isfinite(value) ? OrderedJson(value) : OrderedJson(nullptr); }

OrderedJson finite_list(const std::vector<double>& values) {
  OrderedJson list = OrderedJson::array();
  for (const double value : values) list.push_back(finite_or_null(value));
  return list;
}

// [E,E] as E lists.
OrderedJson square_lists(const std::vector<double>& values, std::size_t experts) {
  OrderedJson rows = OrderedJson::array();
  for (std::size_t e = 0; e < experts; ++e) {
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(e * experts);
    rows.push_back(finite_list({first, first + static_cast<std::ptrdiff_t>(experts)}));
  }
  return rows;
}

template <class Values, class Function>
OrderedJson list_of(const Values& values, Function&& json_of) {
  OrderedJson list = OrderedJson::array();
  for (const auto& value : values) list.push_back(json_of(value));
  return list;
}

OrderedJson json_of_source(const AnalysedSource& source, std::size_t sequence_length) {
  return {{"name", printable(source.name)},
          {"directory", printable(source.directory)},
          {"tokens", source.tokens},
          {"sequences", source.tokens / sequence_length}};
}

OrderedJson json_of_shares(const Shares& shares) {
  return {{"choices", list_of(shares.choices, finite_list)}, {"assignments", finite_list(shares.assignments)}};
}

OrderedJson json_of_rate(const RepetitionRate& rate) {
  return {{"rate", finite_or_null(rate.rate)},
          {"standard_error", finite_or_null(rate.standard_error)},
          {"independent", finite_or_null(rate.independent)}};
}

OrderedJson json_of_repetition(const Repetition& repetition) {
  return {{"pairs", repetition.pairs},
          {"first_choice", json_of_rate(repetition.first_choice)},
          {"top_k", json_of_rate(repetition.top_k)}};
}

OrderedJson json_of_information(const Information& information) {
  return {{"bits", finite_or_null(information.bits)},
          {"permuted", finite_or_null(information.permuted)},
          {"corrected", finite_or_null(information.corrected)},
          {"entropy", finite_or_null(information.entropy)},
          {"of_entropy", finite_or_null(information.of_entropy)},
          {"p", finite_or_null(information.p)}};
}

OrderedJson json_of_layer_information(const LayerInformation& information) {
  return {{"first_choice", json_of_information(information.first_choice)},
          {"assignments", json_of_information(information.assignments)}};
}

OrderedJson json_of_overlap(const ExpertOverlap& overlap, std::size_t experts) {
  OrderedJson layer = OrderedJson::object();
  for (const auto& [name, cosines] : {std::pair{"w1", &overlap.w1},
                                      {"w2", &overlap.w2},
                                      {"w3", &overlap.w3},
                                      {"weights", &overlap.weights},
                                      {"outputs", &overlap.outputs}})
    layer[name] = {{"mean", finite_or_null(mean_over_pairs(*cosines, experts))},
                   {"cosines", square_lists(*cosines, experts)}};
  return layer;
}

OrderedJson json_of_cache(const CacheRates& rates) {
  return {{"lru", finite_list(rates.lru)}, {"fixed", finite_list(rates.fixed)}};
}

OrderedJson json_of_tokens(const std::vector<TokenOfExpert>& tokens, const TokenTexts& texts) {
  return list_of(tokens, [&](const TokenOfExpert& token) {
    return OrderedJson{{"id", token.id},
                       {"text", texts.of(token.id)},
                       {"count", token.count},
                       {"occurrences", token.occurrences},
                       {"share", finite_or_null(token.share)}};
  });
}

OrderedJson json_of_excerpt(const Excerpt& excerpt, const TokenTexts& texts) {
  return {{"ids", excerpt.ids},
          {"texts", list_of(excerpt.ids, [&](std::int32_t id) { return texts.of(id); })},
          {"first_choice", excerpt.first_choice}};
}

template <class Statistic, class Function>
OrderedJson by_source_and_layer(const std::vector<std::vector<Statistic>>& statistics, Function&& json_of) {
  return list_of(statistics, [&](const std::vector<Statistic>& layers) { return list_of(layers, json_of); });
}

}  // namespace

OrderedJson analysis_json(const Analysis& analysis, const TokenTexts& texts) {
  const std::size_t experts = analysis.experts, per_token = analysis.experts_per_token;
  const RoutingStatistics& found = analysis.statistics;
  std::vector<double> even;
  for (std::size_t c = per_token; c <= experts; ++c)
    even.push_back(static_cast<double>(c) / static_cast<double>(experts));
  OrderedJson json = {
      {"format", analysis_format},
      {"format_version", analysis_format_version},
      {"model", printable(analysis.model)},
      {"layers", analysis.layers},
      {"experts", experts},
      {"experts_per_token", per_token},
      {"tokenizer", texts.kind().empty() ? OrderedJson(nullptr) : OrderedJson(texts.kind())},
      {"sequence_length", analysis.sequence_length},
      {"seed", analysis.options.permutation.seed},
      {"permutations", analysis.options.permutation.permutations},
      {"sources",
       list_of(analysis.sources,
               [&](const AnalysedSource& source) { return json_of_source(source, analysis.sequence_length); })},
      {"shares", by_source_and_layer(found.shares, json_of_shares)},
      {"repetition",
       {{"uniform", {{"first_choice", uniform_first_choice(experts)}, {"top_k", uniform_top_k(experts, per_token)}}},
        {"sources", by_source_and_layer(found.repetition, json_of_repetition)}}},
      {"information",
       {{"domain", list_of(found.domain, json_of_layer_information)},
        {"token", list_of(found.token, json_of_layer_information)}}},
      {"overlap",
       {{"output_tokens", analysis.output_tokens},
        {"layers",
         list_of(analysis.overlap, [&](const ExpertOverlap& overlap) { return json_of_overlap(overlap, experts); })}}},
      {"cache",
       {{"least", per_token},
        {"even", finite_list(even)},
        {"sources", by_source_and_layer(found.cache, json_of_cache)}}},
      {"top_tokens",
       {{"least_occurrences", analysis.options.top_tokens.least_occurrences},
        {"layers", by_source_and_layer(found.top_tokens,
                                       [&](const TokensOfExpert& tokens) {
                                         return OrderedJson{{"specific", json_of_tokens(tokens.specific, texts)},
                                                            {"frequent", json_of_tokens(tokens.frequent, texts)}};
                                       })}}},
      {"excerpts", list_of(found.excerpts, [&](const Excerpt& excerpt) { return json_of_excerpt(excerpt, texts); })}};
  if (!analysis.forced_routing.empty()) json["forced_routing"] = printable(analysis.forced_routing);
  return json;
}

}  // namespace smoe
