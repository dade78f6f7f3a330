// Continues a sequence of ids, one token at a time, from a key-value cache.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "trainer/inference.h"
#include "trainer/kept_sequence.h"

namespace smoe {

struct GenerateOptions {
  std::int64_t max_tokens = 128;
  bool greedy = false;                   // the most probable token, the lowest id among equals
  double temperature = 1.0;              // logits are divided by it
  double top_p = 1.0;                    // only the fewest tokens whose probabilities reach this sum are drawn from
  std::uint64_t seed = 1;                // token i of the sequence is a pure function of (seed, i, logits)
  std::vector<std::int32_t> stops = {};  // each of them ends the text and is not returned
  // Ids from here on are never drawn, but for stops: the tokenizer's size, where the model's is padded. 0: all are.
  std::int64_t vocabulary = 0;
  bool use_cache = true;  // false: the whole sequence is computed again for each token, as a check
};

// The choice of one token from logits [V].
std::int32_t choose_token(std::span<const float> logits, const GenerateOptions& options, std::int64_t position);

// on_token is called with each new id as it is chosen; returning false ends the generation. kept: of an earlier text of the
// same model, which this one goes on from as far as it begins with the same ids; it needs options.use_cache.
std::vector<std::int32_t> generate(InferenceModel& model, std::span<const std::int32_t> prompt,
                                   const GenerateOptions& options,
                                   const std::function<bool(std::int32_t)>& on_token = {},
                                   KeptSequence* kept = nullptr);

}  // namespace smoe
