#include "trainer/analysis/analysis_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "data/files/printable.h"

namespace smoe {
namespace {

std::string percent_text(double share) { return std::isfinite(share) ? fmt::format("{:.1f}", 100 * share) : "-"; }

std::string rate_text(const RepetitionRate& rate) {
  return fmt::format("{} ({})", percent_text(rate.rate), percent_text(rate.independent));
}

std::string bits_text(const Information& information) {
  const double shown = std::isfinite(information.corrected) ? information.corrected : information.bits;
  const std::string p = std::isfinite(information.p) ? fmt::format("p {:.2g}", information.p) : "no test";
  return fmt::format("{:.4f} bits ({})", shown, p);
}

// Table 5: a row a source; of each of two rates a column a layer.
std::string repetition_table(const Analysis& analysis) {
  const std::vector<std::size_t> layers = shown_layers(analysis.layers);
  std::size_t width = 6;
  for (const AnalysedSource& source : analysis.sources) width = std::max(width, printable(source.name).size());
  std::string text = fmt::format(
      "Neighbouring tokens at the same expert, % of pairs; in brackets, were they independent at the same load\n{:<{}}",
      "", width);
  constexpr std::size_t column = 14;
  text += fmt::format("  {:<{}}{}\n", "first choice", column * layers.size(),
                      fmt::format("  an expert of the top {} in common", analysis.experts_per_token));
  const auto row = [&](const std::string& name, auto&& cell) {
    text += fmt::format("{:<{}}", name, width);
    for (const bool top_k : {false, true}) {
      for (const std::size_t l : layers) text += fmt::format("{:>{}}", cell(l, top_k), column);
      text += "  ";
    }
    while (text.ends_with(' ')) text.pop_back();
    text += '\n';
  };
  row("source", [](std::size_t l, bool) { return fmt::format("layer {}", l); });
  for (std::size_t s = 0; s < analysis.sources.size(); ++s)
    row(printable(analysis.sources[s].name), [&](std::size_t l, bool top_k) {
      const Repetition& found = analysis.statistics.repetition[s][l];
      return rate_text(top_k ? found.top_k : found.first_choice);
    });
  row("even", [&](std::size_t, bool top_k) {
    return percent_text(top_k ? uniform_top_k(analysis.experts, analysis.experts_per_token)
                              : uniform_first_choice(analysis.experts)) +
           std::string(7, ' ');
  });
  return text;
}

// What each of the shown layers has in one number.
std::string layer_lines(const Analysis& analysis) {
  std::string text;
  for (const std::size_t l : shown_layers(analysis.layers)) {
    const RoutingStatistics& found = analysis.statistics;
    const Information& token = found.token[l].first_choice;
    double hits = 0;
    const std::size_t half = (analysis.experts + 1) / 2, kept = std::max(half, analysis.experts_per_token);
    for (const auto& layers : found.cache) hits += layers[l].lru[kept - analysis.experts_per_token];
    text += fmt::format(
        "layer {}: I(domain; first choice) {}; I(token; first choice) {}, {}% of its entropy; cosines of experts' weights {:.3f}, "
        "of their outputs {:.3f}; {} of {} experts cached serve {}% of assignments\n",
        l, found.domain.empty() ? "not there of one source" : bits_text(found.domain[l].first_choice), bits_text(token),
        percent_text(token.of_entropy), mean_over_pairs(analysis.overlap[l].weights, analysis.experts),
        mean_over_pairs(analysis.overlap[l].outputs, analysis.experts), kept, analysis.experts,
        percent_text(hits / static_cast<double>(found.cache.size())));
  }
  return text;
}

}  // namespace

std::string analysis_table(const Analysis& analysis) {
  std::size_t tokens = 0;
  for (const AnalysedSource& source : analysis.sources) tokens += source.tokens;
  return fmt::format("{} layers of {} experts, top {}; {} tokens of {} sources in sequences of {}\n\n{}\n{}",
                     analysis.layers, analysis.experts, analysis.experts_per_token, tokens, analysis.sources.size(),
                     analysis.sequence_length, repetition_table(analysis), layer_lines(analysis));
}

}  // namespace smoe
