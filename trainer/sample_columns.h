// Samples of a data set as the columns of a micro-batch, on the host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "data/shards/dataset.h"
#include "model/context.h"

namespace smoe {

// Whole documents have the positions that they have alone.
constexpr Positions positions_of(bool whole_documents) {
  return whole_documents ? Positions::of_document : Positions::of_sequence;
}

struct SampleColumns {
  std::vector<std::int32_t> ids, targets, document_start;  // [samples * length]

  // Samples first, first + 1, ..., each of `length` tokens. The memory is used again.
  void read(const Dataset& dataset, std::int64_t first, std::int64_t samples, std::int64_t length) {
    for (auto* column : {&ids, &targets, &document_start}) column->resize(static_cast<std::size_t>(samples * length));
    for (std::int64_t s = 0; s < samples; ++s) {
      const auto row = [&](std::vector<std::int32_t>& column) {
        return std::span(column).subspan(static_cast<std::size_t>(s * length), static_cast<std::size_t>(length));
      };
      dataset.read(first + s, row(ids), row(targets), row(document_start));
    }
    samples_ = samples, length_ = length;
    positions_ = positions_of(dataset.packing() == Packing::best_fit);
  }

  // Of what was read last, which outlives it.
  TokenBatch batch(Backend& backend, Arena& arena) const {
    return make_token_batch(backend, arena, samples_, length_, ids, targets, document_start, 0, positions_);
  }

 private:
  std::int64_t samples_ = 0, length_ = 0;
  Positions positions_ = Positions::of_sequence;
};

// Of `count` samples that all dp ranks take `at_once` each of, in order: where a rank's begin, and how many it has, perhaps none.
struct SampleShare {
  std::int64_t before = 0, samples = 0;
};
constexpr SampleShare share_of_rank(std::int64_t count, std::int64_t at_once, std::int64_t rank) {
  const std::int64_t before = count < rank * at_once ? count : rank * at_once, left = count - before;
  return {before, left < at_once ? left : at_once};
}

}  // namespace smoe
