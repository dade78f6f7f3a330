// How alike a layer's experts are: their weights, and what they make of the same tokens.
//
// Weights are compared as they lie, entry by entry: two experts that differ in nothing but the order of their hidden units
// compute the same and have a cosine near 0. What they compute shows in the outputs. Adapters (LoRA) are part of both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/lora_config.h"
#include "model/mixtral.h"
#include "trainer/corpus.h"

namespace smoe {

// [E,E] cosines of one layer's experts, row by row; not a number where one of the two is all zeros.
struct ExpertOverlap {
  std::vector<double> w1, w2, w3;  // of each matrix, flattened
  std::vector<double> weights;     // of the three as one vector
  std::vector<double> outputs;     // mean over tokens of the cosine of the two outputs, routing weight left out
};

// Over the pairs of two different experts; those that are not a number are left out, and where all are it is none.
double mean_over_pairs(const std::vector<double>& cosines, std::size_t experts);

// w1, w2, w3 and weights of every layer [L]. The whole model, on one rank. lora: its adapters, null where it has none.
std::vector<ExpertOverlap> weight_overlap(Mixtral& model, Context context, const LoraConfig* lora);

// Fills in the outputs. The sample: of each source's first sequence as many tokens, evenly spread, that all sources together
// make `tokens` or a few more; of each layer the inputs that these tokens have there, which every expert is given. Rewinds
// the context's arenas. Returns how many tokens that was. Throws std::runtime_error where an output is not finite.
std::size_t add_output_overlap(Mixtral& model, Context context, const LoraConfig* lora,
                               const std::vector<Source>& sources, std::size_t tokens,
                               std::vector<ExpertOverlap>& layers);

}  // namespace smoe
