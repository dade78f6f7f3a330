#include "data/shards/token_stream.h"

#include <filesystem>

namespace smoe {

TokenStream::TokenStream(const std::string& directory, const Manifest& manifest, bool verified,
                         const std::shared_ptr<OpenShards>& open_shards)
    : directory_(directory) {
  for (const ShardEntry& entry : manifest.shards) {
    first_token_.push_back(tokens_);
    first_document_.push_back(documents_);
    shards_.emplace_back(std::filesystem::path(directory) / entry.file, manifest.info, entry, verified, open_shards);
    tokens_ += entry.tokens;
    documents_ += entry.documents;
  }
}

DocumentPlace TokenStream::document(std::int64_t index) const {
  const auto k = static_cast<std::size_t>(std::upper_bound(first_document_.begin(), first_document_.end(), index) -
                                          first_document_.begin() - 1);
  const auto at = static_cast<std::size_t>(index - first_document_[k]);
  const std::span offsets = shards_[k].document_offsets();
  return {first_token_[k] + static_cast<std::int64_t>(offsets[at]),
          first_token_[k] + static_cast<std::int64_t>(offsets[at + 1])};
}

std::size_t TokenStream::shard_of(std::int64_t token) const {
  return static_cast<std::size_t>(std::upper_bound(first_token_.begin(), first_token_.end(), token) -
                                  first_token_.begin() - 1);
}

template <class Part>
void TokenStream::by_shard(std::int64_t first, std::size_t count, const Part& part) const {
  std::size_t done = 0;
  for (std::size_t k = shard_of(first); done < count; ++k) {
    const std::int64_t offset = first + static_cast<std::int64_t>(done) - first_token_[k];
    const std::size_t here = std::min(count - done, static_cast<std::size_t>(shards_[k].tokens() - offset));
    part(shards_[k], offset, done, here);
    done += here;
  }
}

void TokenStream::read(std::int64_t first, std::span<std::uint32_t> ids, std::span<std::uint8_t> counts) const {
  by_shard(first, ids.size(), [&](const TokenShard& shard, std::int64_t offset, std::size_t done, std::size_t here) {
    shard.read_tokens(offset, ids.subspan(done, here));
  });
  read_counts(first, counts);
}

void TokenStream::read_counts(std::int64_t first, std::span<std::uint8_t> counts) const {
  by_shard(first, counts.size(), [&](const TokenShard& shard, std::int64_t offset, std::size_t done, std::size_t here) {
    const std::span part = counts.subspan(done, here);
    if (shard.has_loss_mask())
      shard.read_loss_mask(offset, part);
    else
      std::fill(part.begin(), part.end(), std::uint8_t{1});
  });
}

bool TokenStream::has_loss_mask() const {
  return std::any_of(shards_.begin(), shards_.end(), [](const TokenShard& shard) { return shard.has_loss_mask(); });
}

bool TokenStream::has_target(std::int64_t first, std::int64_t last, bool document_masking) const {
  for (std::size_t k = 0; k < shards_.size() && first_token_[k] < last; ++k) {
    const std::int64_t begin = first_token_[k];
    if (shards_[k].has_target(std::max(first - begin, std::int64_t{0}), std::min(shards_[k].tokens(), last - begin),
                              document_masking))
      return true;
  }
  return false;
}

}  // namespace smoe
