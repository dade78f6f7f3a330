// A whole routing analysis: every statistic of this folder, of one model on several sources.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "trainer/analysis/assignments.h"
#include "trainer/analysis/excerpts.h"
#include "trainer/analysis/expert_cache.h"
#include "trainer/analysis/information.h"
#include "trainer/analysis/overlap.h"
#include "trainer/analysis/repetition.h"
#include "trainer/analysis/shares.h"
#include "trainer/analysis/token_texts.h"
#include "trainer/analysis/top_tokens.h"
#include "trainer/inference.h"

namespace smoe {

struct AnalysisOptions {
  std::int64_t tokens = 65536;  // of each source
  std::int64_t at_once = 4;     // sequences
  PermutationOptions permutation;
  TopTokenOptions top_tokens;
  std::size_t output_tokens = 256;    // on which experts' outputs are compared
  std::int64_t excerpt_tokens = 256;  // of each source, shown with their experts; 0: no text is shown
  // Called as work goes on: what is being done, how much of it is done, and how much there is.
  std::function<void(const std::string& what, std::int64_t done, std::int64_t all)> on_progress = {};
};

// What the assignments alone tell.
struct RoutingStatistics {
  std::vector<std::vector<Shares>> shares;              // [sources][L]
  std::vector<std::vector<Repetition>> repetition;      // [sources][L]
  std::vector<std::vector<CacheRates>> cache;           // [sources][L]
  std::vector<LayerInformation> domain, token;          // [L]; domain is empty of a single source
  std::vector<std::vector<TokensOfExpert>> top_tokens;  // [L][E]
  std::vector<Excerpt> excerpts;                        // [sources], or empty
};

struct Analysis {
  std::string model;           // its directory
  std::string forced_routing;  // where some of its training was a benchmark's, how; else empty
  std::size_t layers = 0, experts = 0, experts_per_token = 0, sequence_length = 0;
  std::vector<AnalysedSource> sources;
  AnalysisOptions options;
  std::size_t output_tokens = 0;
  RoutingStatistics statistics;
  std::vector<ExpertOverlap> overlap;  // [L]
};

RoutingStatistics routing_statistics(const Assignments& table, const AnalysisOptions& options);

// The sources were opened with one sequence length, that of all sequences here. Throws std::runtime_error where a source has
// not one sequence, or the model nothing to choose from.
Analysis analyse(InferenceModel& model, const std::string& directory, const std::vector<Source>& sources,
                 const AnalysisOptions& options);

// Layers that stand for all where not all are shown, as 0, 15 and 31 in the paper: first, middle, last, each once.
std::vector<std::size_t> shown_layers(std::size_t layers);

}  // namespace smoe
