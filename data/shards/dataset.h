// A directory of token shards read as samples of fixed length.
//
// Packing::stream: the shards, in the manifest's order, are one stream of tokens. Sample i is tokens [i*S, i*S + S] of it:
// S + 1 of them, so that every input has its target and neighbours share a token. The tail that fills no sample is dropped,
// or kept as one shorter sample more, so that every target of the stream counts once.
//
// Packing::best_fit: sample i is a few whole documents and then padding, and every document is in one sample (best_fit.h).
// One of n ids takes n - 1 positions. Those without a target, or of one id, are left out.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "data/shards/batch.h"
#include "data/shards/data_config.h"
#include "data/shards/manifest.h"
#include "data/shards/open_shards.h"

namespace smoe {

// What the model demands of the shards.
struct DatasetChecks {
  std::string tokenizer_sha256;  // empty: any. Shards that name no tokenizer pass too
  std::int64_t vocab_size = 0;   // at least the shards'; 0: any
  bool verified = false;         // another process of this job on this node has compared the files' SHA-256 just now
};

enum class Tail { drop, keep };  // of a stream; best_fit has none

// What Packing::best_fit made of a data set. All 0 of a stream.
struct PackedFacts {
  std::int64_t documents = 0;                      // that samples hold
  std::int64_t positions = 0;                      // that they take, of samples() * S
  std::int64_t without_target = 0, too_short = 0;  // left out; the latter of one id, or none
};

// Opening reads every file once, to compare its SHA-256 with the manifest's before HDF5 sees it (not those that open_shards
// has compared and that have not changed since), and refuses data in which
// no sample has a target; best_fit also one with a document of more than S + 1 ids. Any number of shards will do: few files are open at a time. Token ids are compared with the vocabulary in read(): ShardWriter lets none through that is too large, so only
// shards written by other software can fail there, and a pass over all tokens at every start would pay for those.
//
// Thread-safe after construction. Errors: std::runtime_error with the file, what was found, what was expected.
class Dataset {
 public:
  // document_masking: positions know the start of their document, and a target that opens another document is masked.
  // best_fit has no other way (std::logic_error).
  // open_shards: where the files are held open, shared by the sources of a run; null: the data set's own.
  Dataset(const std::string& directory, std::int64_t sequence_length, bool document_masking,
          const DatasetChecks& checks = {}, Tail tail = Tail::drop, std::shared_ptr<OpenShards> open_shards = nullptr,
          Packing packing = Packing::stream);
  ~Dataset();
  Dataset(Dataset&&) noexcept;
  Dataset& operator=(Dataset&&) noexcept;

  std::int64_t samples() const;  // whole ones: of a stream (tokens - 1) / S, at least 1 unless the tail is kept
  std::int64_t tail() const;     // length of the kept tail, (tokens - 1) % S; 0: none, or dropped
  std::int64_t tokens() const;   // of the whole stream, the tail included
  std::int64_t documents() const;
  std::int64_t sequence_length() const;  // S
  Packing packing() const;
  PackedFacts packed() const;
  // Documents of which some target stands in another sample than the first, or in the dropped tail: of a stream, which cuts
  // them; best_fit has none.
  std::int64_t cut_documents() const;
  bool has_loss_mask() const;
  std::int64_t used(std::int64_t sample) const;  // its positions that hold a token: all of a stream's
  const ShardSetInfo& info() const;
  const std::string& directory() const;

  // Fills S entries of each span, or tail() of them where the sample is samples(), which stands for the tail. targets: masked_target where the loss mask is 0, and, with document masking, where
  // the target is the first token of another document. document_start: position in the sequence of the first token of
  // the document, 0 if it began before the sequence; all 0 without document masking. Padding: padding_id, masked_target, its own
  // position.
  void read(std::int64_t sample, std::span<std::int32_t> inputs, std::span<std::int32_t> targets,
            std::span<std::int32_t> document_start) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace smoe
