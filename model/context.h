// What every layer is handed: where to compute, with whom, and where to take memory from.
#pragma once

#include <cstddef>
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

// From where a position counts: rotations tell distances alone, so that both give one function. From the document's own first
// token it also has the roundings that the document has in a sequence by itself.
enum class Positions : std::uint8_t { of_sequence, of_document };

// How many tokens a sequence has before its padding, which stands at its end alone: ids below 0.
std::int64_t tokens_before_padding(std::span<const std::int32_t> ids);

// One micro-batch on the device. T = sequences * sequence_length tokens, sequence by sequence. The ranks of a tp group
// have the same micro-batch, and each works on T/tp of its tokens (parallel/token_split.h).
//
// Padding, of id -1, fills up sequences. It takes no part in anything: its row of every layer is zero, it has no expert, no
// target and no share in what is measured. Nothing attends to it, for it comes last, and it has nothing to attend to but zeros.
struct TokenBatch {
  std::int64_t sequences = 0, sequence_length = 0;
  Tensor ids;             // [T] i32
  Tensor targets;         // [T] i32, negative: no target; empty at inference
  Tensor document_start;  // [T] i32: first position of the same sequence that the token may attend to; empty: 0
  Tensor positions;       // [T] i32: position inside the sequence
  std::optional<BatchNoise> noise{};  // none: no layer draws any
  Tensor
      embedding_noise{};  // [T] f32: half the width of what is added to each token's embedding (NEFTune); empty: nothing
  Tensor
      assignments{};  // [T/tp,K] i32: the number in the whole step of each assignment of this rank's tokens, for what the experts'
                      // adapters drop; empty: nothing
  bool dropless = false;  // evaluation: no expert's capacity holds
  Tensor
      forced{};  // [T/tp,E] of this rank's tokens, in place of a selection bias (model/forced_routing.h); empty: none
  std::span<const std::int32_t> padded_ids{};  // [T] the ids, the caller's; empty: none of them is padding

  std::int64_t tokens() const { return sequences * sequence_length; }
  bool has_padding() const { return !padded_ids.empty(); }
  // Of one sequence, without its padding.
  std::int64_t length_of(std::int64_t sequence) const {
    if (!has_padding()) return sequence_length;
    return tokens_before_padding(padded_ids.subspan(static_cast<std::size_t>(sequence * sequence_length),
                                                    static_cast<std::size_t>(sequence_length)));
  }
};

// TokenBatch::assignments of a batch with noise: assignment k of a token is number (its place in the step) * K + k. In
// context.activations. Throws std::logic_error where a step has more than an i32 can count.
Tensor number_assignments(Context& context, const TokenBatch& batch, std::int64_t experts_per_token);

// Copies host ids into `arena`. targets and document_start may be empty. Positions count from first_position, or of each
// document from 0. Where some are padding, ids outlive the batch.
TokenBatch make_token_batch(Backend& backend, Arena& arena, std::int64_t sequences, std::int64_t sequence_length,
                            std::span<const std::int32_t> ids, std::span<const std::int32_t> targets = {},
                            std::span<const std::int32_t> document_start = {}, std::int64_t first_position = 0,
                            Positions positions = Positions::of_sequence);

}  // namespace smoe
