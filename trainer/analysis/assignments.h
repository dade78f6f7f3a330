// Which experts tokens of real text choose: the table that every figure of a routing analysis is made of ("Mixtral of
// Experts", arXiv 2401.04088, section 5).
//
// T tokens of all sources, one source behind the other, L layers, E experts of a layer, K chosen by a token. Tokens are
// read as `smoe eval` reads them: sequence i of a source is tokens [i*S, i*S + S) of its stream, whole sequences alone, from
// its beginning on. So a sequence may begin inside a document, and attention stays inside documents. The choice is that of
// inference: no noise, no capacity.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "model/mixtral.h"
#include "trainer/corpus.h"

namespace smoe {

using ExpertId = std::uint16_t;

// A domain, in the paper's words: its tokens are [first, first + tokens) of the table.
struct AnalysedSource {
  std::string name, directory;
  std::size_t first = 0, tokens = 0;

  bool operator==(const AnalysedSource&) const = default;
};

struct Assignments {
  std::size_t experts = 0, experts_per_token = 0, sequence_length = 0;
  std::vector<AnalysedSource> sources;
  std::vector<std::int32_t> ids;      // [T]
  std::vector<std::uint8_t> follows;  // [T] 1: the token before it is of the same sequence and of the same document
  // [L], each [T,K], a token's experts in the order of its router's scores (with the selection bias, where there is one), of
  // two alike the lower first.
  std::vector<std::vector<ExpertId>> choices;

  std::size_t layers() const { return choices.size(); }
  std::size_t tokens() const { return ids.size(); }
  std::size_t sequences() const { return tokens() / sequence_length; }
  std::span<const ExpertId> chosen(std::size_t layer, std::size_t token) const {
    return std::span(choices[layer]).subspan(token * experts_per_token, experts_per_token);
  }
  ExpertId first_choice(std::size_t layer, std::size_t token) const {
    return choices[layer][token * experts_per_token];
  }
};

// The table of a model's shape, without tokens. Throws std::runtime_error where it has one expert, and so nothing to choose
// from, or more than an ExpertId tells apart.
Assignments empty_assignments(const ModelConfig& model, std::int64_t sequence_length);

struct CollectOptions {
  std::int64_t tokens = 0;   // at most so many, cut to whole sequences, but no less than one sequence
  std::int64_t at_once = 4;  // sequences in one forward
  std::function<void(std::int64_t done, std::int64_t all)> on_progress = {};  // in sequences
};

// How many sequences of a source that is: throws std::runtime_error, naming it, where it has not one.
std::int64_t sequences_to_collect(const Dataset& dataset, std::int64_t tokens);

// Sends a source's text through the model, of one rank, and appends what its tokens choose. Rewinds the context's arenas.
void collect_assignments(Mixtral& model, Context context, const Source& source, const CollectOptions& options,
                         Assignments& table);

}  // namespace smoe
