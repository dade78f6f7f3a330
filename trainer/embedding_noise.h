// How much noise each token's embedding gets (NEFTune, arXiv 2310.05914, Algorithm 1): alpha / sqrt(L D) times [-1, 1), of an
// example of L tokens, so that the noise of an example as a whole is of one size however long it is, and packed with
// whatever others. An example is a document's part of a sequence, or, where attention passes from document to document, the sequence.
#pragma once

#include <cstdint>
#include <span>

#include "trainer/step_batch.h"

namespace smoe {

// half_widths [sequences * sequence_length]: of each token alpha / sqrt(L D). Padding, whose id is below 0, gets 0 and does
// not count in L.
void embedding_noise(const StepBatch& batch, double alpha, std::int64_t hidden_size, std::span<float> half_widths);

}  // namespace smoe
