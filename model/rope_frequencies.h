// The angles of rotary position embedding: what one position adds to each of a head's pairs (RoPE: arXiv 2104.09864).
#pragma once

#include <vector>

#include "model/model_config.h"

namespace smoe {

struct RopeFrequencies {
  std::vector<float> frequencies;  // [C/2] radians a position, for the pairs (i, i + C/2) of a head of C
  float scale = 1.0f;              // of cosines and sines
};

// As transformers computes them for sequences of up to max_position_embeddings, rounded to f32 where it rounds: plain
// (theta^(-2i/C)), linear, dynamic (the plain ones at these lengths), YaRN (arXiv 2309.00071) and Llama 3.1's.
RopeFrequencies rope_frequencies(const ModelConfig& config);

}  // namespace smoe
