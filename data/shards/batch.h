// One rank's part of a training step, as the loader hands it over and the model consumes it.
#pragma once

#include <cstdint>
#include <vector>

namespace smoe {

// A target that does not count in the loss: the first token of another document, or one that a loss mask leaves out.
inline constexpr std::int32_t masked_target = -100;

// What stands where a sequence has no token: at its end alone, behind its last document.
inline constexpr std::int32_t padding_id = -1;

// B sequences of S tokens, row-major: entry b * S + t is position t of sequence b.
struct Batch {
  std::int64_t step = 0;              // of the run; the first is 1
  std::int64_t sequences = 0;         // B
  std::int64_t sequence_length = 0;   // S
  bool whole_documents = false;       // data.packing is best_fit: no document is cut, and sequences may have padding
  std::vector<std::int32_t> ids;      // [B * S] tokens, or padding_id
  std::vector<std::int32_t> targets;  // [B * S] the token after each, or masked_target
  std::vector<std::int32_t>
      document_start;  // [B * S] position in the sequence of the first token of t's document; its own, of padding
};

}  // namespace smoe
