// What a step trains on, as this rank has it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/philox.h"
#include "model/context.h"

namespace smoe {

// This rank's sequences of a step, on the host, sequence by sequence: [sequences * sequence_length] each. The ranks of a
// tp group have the same ones.
struct StepBatch {
  std::int64_t sequences = 0, sequence_length = 0;
  std::span<const std::int32_t> ids, targets, document_start;  // document_start may be empty
  std::optional<std::uint64_t> noise_key{};  // of what layers draw in this step, the same on every rank; none: nothing
  Positions positions = Positions::of_sequence;

  // Sequences [first, first + count).
  StepBatch part(std::int64_t first, std::int64_t count) const {
    const auto of = [&](std::span<const std::int32_t> column) {
      return column.empty() ? column
                            : column.subspan(static_cast<std::size_t>(first * sequence_length),
                                             static_cast<std::size_t>(count * sequence_length));
    };
    return {count, sequence_length, of(ids), of(targets), of(document_start), noise_key, positions};
  }
  // Of one sequence, without its padding.
  std::int64_t length_of(std::int64_t sequence) const { return tokens_before_padding(part(sequence, 1).ids); }
};

// Tokens without sense, for steps whose time alone is of interest: a pure function of the key.
inline std::vector<std::int32_t> random_ids(std::int64_t count, std::int64_t vocabulary, std::uint64_t key) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<std::int32_t>(philox(key, i)[0] % static_cast<std::uint64_t>(vocabulary));
  return ids;
}

}  // namespace smoe
