// One HDF5 file of a directory of token shards.
//
//   tokens            u16 (vocabulary up to 65536) or u32, chunked, Fletcher-32
//   document_offsets  u64: where each document starts, then the token count; the first is 0
//   loss_mask         u8, one a token, 0 where the token does not count as a target; absent where all count
//   attributes        format_version, vocab_size, bos, eos (i64); tokenizer_sha256, tokenizer_name, source (text)
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "data/hdf5_file.h"
#include "data/manifest.h"

namespace smoe {

// A shard being read. Opening compares the file's SHA-256 with the manifest's before HDF5 sees the file, and then all
// that the file says of itself with the manifest.
//
// Errors: std::runtime_error with the file, what was found, what was expected. Reading is thread-safe.
class TokenShard {
 public:
  // verified: another process of this job on this node has compared the SHA-256 just now, so it is not done again.
  TokenShard(const std::filesystem::path& path, const ShardSetInfo& info, const ShardEntry& entry, bool verified = false);

  std::int64_t tokens() const { return tokens_.size(); }
  // [documents + 1], non-decreasing, from 0 to tokens().
  std::span<const std::uint64_t> document_offsets() const { return document_offsets_; }

  // Tokens [offset, offset + ids.size()); throws on one outside the vocabulary, naming row and value.
  void read_tokens(std::int64_t offset, std::span<std::uint32_t> ids) const;
  bool has_loss_mask() const { return loss_mask_.size() > 0; }
  void read_loss_mask(std::int64_t offset, std::span<std::uint8_t> mask) const { loss_mask_.read(offset, mask); }

 private:
  void read_document_offsets(const ShardEntry& entry);

  Hdf5File file_;
  std::int64_t vocab_size_;
  Hdf5Column tokens_, loss_mask_;
  std::vector<std::uint64_t> document_offsets_;
};

ColumnType token_type(std::int64_t vocab_size);
void write_shard_attributes(Hdf5File& file, const ShardSetInfo& info);

}  // namespace smoe
