// How a stream of tokens becomes samples of fixed length: one class a value of data.packing. Dataset is who asks.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "data/shards/dataset.h"
#include "data/shards/token_stream.h"

namespace smoe {

class Samples {
 public:
  virtual ~Samples() = default;
  virtual std::int64_t count() const = 0;
  virtual std::int64_t tail() const = 0;                     // length of one shorter sample more; 0: none
  virtual std::int64_t used(std::int64_t sample) const = 0;  // its positions that hold a token
  virtual PackedFacts facts() const = 0;
  // As Dataset::read, which has checked the sample and the spans. Thread-safe.
  virtual void read(std::int64_t sample, std::span<std::int32_t> inputs, std::span<std::int32_t> targets,
                    std::span<std::int32_t> document_start) const = 0;
};

// Both refuse a stream without a target in any sample, and keep a reference to it.
std::unique_ptr<Samples> samples_of_stream(const TokenStream& stream, std::int64_t sequence_length,
                                           bool document_masking, Tail tail);
std::unique_ptr<Samples> samples_of_whole_documents(const TokenStream& stream, std::int64_t sequence_length);

// Where no sample has one because a loss mask leaves out all there are.
[[noreturn]] void refuse_masked_targets(const TokenStream& stream);

}  // namespace smoe
