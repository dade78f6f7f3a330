#include "model/context.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>

#include "parallel/token_split.h"

namespace smoe {
namespace {
Tensor upload(Backend& backend, Arena& arena, std::span<const std::int32_t> values, std::int64_t tokens) {
  if (values.empty() && tokens > 0) return {};
  if (static_cast<std::int64_t>(values.size()) != tokens)
    throw std::logic_error("a micro-batch's columns differ in length");
  Tensor t = arena.take(DType::i32, {tokens});
  backend.copy_from_host(t, values.data());
  return t;
}

// [sequences, length]: each sequence's last.
bool any_padding(std::span<const std::int32_t> ids, std::int64_t length) {
  for (std::int64_t last = length - 1; last < static_cast<std::int64_t>(ids.size()); last += length)
    if (ids[static_cast<std::size_t>(last)] < 0) return true;
  return false;
}
}  // namespace

std::int64_t tokens_before_padding(std::span<const std::int32_t> ids) {
  return std::partition_point(ids.begin(), ids.end(), [](std::int32_t id) { return id >= 0; }) - ids.begin();
}

TokenBatch make_token_batch(Backend& backend, Arena& arena, std::int64_t sequences, std::int64_t sequence_length,
                            std::span<const std::int32_t> ids, std::span<const std::int32_t> targets,
                            std::span<const std::int32_t> document_start, std::int64_t first_position,
                            Positions positions) {
  TokenBatch batch{.sequences = sequences,
                   .sequence_length = sequence_length,
                   .ids = {},
                   .targets = {},
                   .document_start = {},
                   .positions = {}};
  const std::int64_t tokens = batch.tokens();
  batch.ids = upload(backend, arena, ids, tokens);
  batch.targets = upload(backend, arena, targets, tokens);
  // Where every token may attend from its sequence's first on, as without documents, attention has quicker ways. The memory is
  // taken all the same: what a step needs does not depend on its data.
  const Tensor starts = upload(backend, arena, document_start, tokens);
  if (std::any_of(document_start.begin(), document_start.end(), [](std::int32_t start) { return start != 0; }))
    batch.document_start = starts;
  if (sequence_length > 0 && any_padding(ids, sequence_length)) batch.padded_ids = ids;
  batch.positions = arena.take(DType::i32, {tokens});
  thread_local std::vector<std::int32_t> numbers;
  if (positions == Positions::of_document && !document_start.empty()) {
    numbers.resize(static_cast<std::size_t>(tokens));
    for (std::int64_t t = 0; t < tokens; ++t)
      numbers[static_cast<std::size_t>(t)] =
          static_cast<std::int32_t>(t % sequence_length) - document_start[static_cast<std::size_t>(t)];
    backend.copy_from_host(batch.positions, numbers.data());
    return batch;
  }
  // A sequence's row of positions is written once on the host and copied per sequence.
  numbers.resize(static_cast<std::size_t>(sequence_length));
  for (std::int64_t i = 0; i < sequence_length; ++i)
    numbers[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(first_position + i);
  for (std::int64_t b = 0; b < sequences; ++b)
    backend.copy_from_host(batch.positions.rows(b * sequence_length, sequence_length), numbers.data());
  return batch;
}

Tensor number_assignments(Context& context, const TokenBatch& batch, std::int64_t experts_per_token) {
  const TokenSplit split(context.mesh);
  const std::int64_t tokens = split.local(batch.tokens()), K = experts_per_token,
                     first = (batch.noise.value().first_token + split.first(batch.tokens())) * K, count = tokens * K;
  if (first + count > std::numeric_limits<std::int32_t>::max())
    throw std::logic_error("a step has " + std::to_string(first + count) + " assignments, more than an i32 can count");
  thread_local std::vector<std::int32_t> numbers;
  numbers.resize(static_cast<std::size_t>(count));
  std::iota(numbers.begin(), numbers.end(), static_cast<std::int32_t>(first));
  const Tensor assignments = context.activations.take(DType::i32, {tokens, K});
  context.backend.copy_from_host(assignments, numbers.data());
  return assignments;
}

}  // namespace smoe
