// The shards of a directory, in the manifest's order, as one stream of tokens and of documents.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/shards/manifest.h"
#include "data/shards/open_shards.h"
#include "data/shards/token_shard.h"

namespace smoe {

// Tokens [begin, end) of the stream.
struct DocumentPlace {
  std::int64_t begin = 0, end = 0;
  std::int64_t tokens() const { return end - begin; }
};

// Reading is thread-safe. Errors: std::runtime_error with the file, what was found, what was expected.
class TokenStream {
 public:
  // verified, open_shards: as TokenShard takes them.
  TokenStream(const std::string& directory, const Manifest& manifest, bool verified,
              const std::shared_ptr<OpenShards>& open_shards);

  const std::string& directory() const { return directory_; }
  std::int64_t tokens() const { return tokens_; }
  std::int64_t documents() const { return documents_; }
  DocumentPlace document(std::int64_t index) const;

  // Tokens [first, first + ids.size()), and of each whether it counts as a target: not 0.
  void read(std::int64_t first, std::span<std::uint32_t> ids, std::span<std::uint8_t> counts) const;
  // The latter alone.
  void read_counts(std::int64_t first, std::span<std::uint8_t> counts) const;
  bool has_loss_mask() const;
  // Whether one of tokens [first, last) counts (TokenShard::has_target).
  bool has_target(std::int64_t first, std::int64_t last, bool document_masking) const;

  // Calls see(start) for the documents that start at tokens [first, last], in order.
  template <class See>
  void for_document_starts(std::int64_t first, std::int64_t last, const See& see) const;

 private:
  std::size_t shard_of(std::int64_t token) const;
  // Calls part(shard, offset in it, done before, count) for each shard's part of tokens [first, first + count).
  template <class Part>
  void by_shard(std::int64_t first, std::size_t count, const Part& part) const;

  std::string directory_;
  std::vector<TokenShard> shards_;
  std::vector<std::int64_t> first_token_, first_document_;  // of each shard, in the stream
  std::int64_t tokens_ = 0, documents_ = 0;
};

template <class See>
void TokenStream::for_document_starts(std::int64_t first, std::int64_t last, const See& see) const {
  for (std::size_t k = shard_of(first); k < shards_.size() && first_token_[k] <= last; ++k) {
    const std::span starts = shards_[k].document_offsets().first(shards_[k].document_offsets().size() - 1);
    const auto begin = static_cast<std::uint64_t>(std::max<std::int64_t>(first - first_token_[k], 0));
    const auto end = static_cast<std::uint64_t>(last - first_token_[k]);
    for (auto start = std::lower_bound(starts.begin(), starts.end(), begin); start != starts.end() && *start <= end;
         ++start)
      see(first_token_[k] + static_cast<std::int64_t>(*start));
  }
}

}  // namespace smoe
