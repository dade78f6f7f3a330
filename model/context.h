// What every layer is handed: where to compute, with whom, and where to take memory from.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "parallel/mesh.h"

namespace smoe {

// Keys and values of one growing sequence, a pair of [capacity, G, C] tensors a layer.
struct KvCache {
  std::vector<Tensor> keys, values;
  std::int64_t length = 0;    // positions filled
  std::int64_t capacity = 0;  // positions there is room for
};

struct Context {
  Backend& backend;
  const Mesh& mesh;
  Arena& activations;  // lives from forward to backward
  Arena& scratch;      // lives inside one layer
};

// What the noise of a training step is drawn from: the same numbers for a token on every layout.
struct BatchNoise {
  std::uint64_t key = 0;         // of the step
  std::int64_t first_token = 0;  // of this micro-batch, among the tokens of the step over all ranks
};

// One micro-batch on the device. T = sequences * sequence_length tokens, sequence by sequence. The ranks of a tp group
// have the same micro-batch, and each works on T/tp of its tokens (parallel/token_split.h).
struct TokenBatch {
  std::int64_t sequences = 0, sequence_length = 0;
  Tensor ids;             // [T] i32
  Tensor targets;         // [T] i32, negative: no target; empty at inference
  Tensor document_start;  // [T] i32: first position of the same sequence that the token may attend to; empty: 0
  Tensor positions;       // [T] i32: position inside the sequence
  std::optional<BatchNoise> noise{};  // none: no layer draws any
  Tensor
      embedding_noise{};  // [T] f32: half the width of what is added to each token's embedding (NEFTune); empty: nothing
  bool dropless = false;  // evaluation: no expert's capacity holds
  Tensor
      forced{};  // [T/tp,E] of this rank's tokens, in place of a selection bias (model/forced_routing.h); empty: none

  std::int64_t tokens() const { return sequences * sequence_length; }
};

// Copies host ids into `arena`. targets and document_start may be empty. Positions count from first_position.
TokenBatch make_token_batch(Backend& backend, Arena& arena, std::int64_t sequences, std::int64_t sequence_length,
                            std::span<const std::int32_t> ids, std::span<const std::int32_t> targets = {},
                            std::span<const std::int32_t> document_start = {}, std::int64_t first_position = 0);

}  // namespace smoe
