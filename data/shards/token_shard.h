// One HDF5 file of a directory of token shards.
//
//   tokens            u16 (vocabulary up to 65536) or u32, chunked, Fletcher-32
//   document_offsets  u64: where each document starts, then the token count; the first is 0
//   loss_mask         u8, one a token, 0 where the token does not count as a target; absent where all count
//   attributes        format_version, vocab_size, bos, eos (i64); tokenizer_sha256, tokenizer_name, source (text)
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/shards/hdf5_file.h"
#include "data/shards/manifest.h"
#include "data/shards/open_shards.h"

namespace smoe {

// A shard being read. Opening compares the file's SHA-256 with the manifest's before HDF5 sees the file, and then all
// that the file says of itself with the manifest. The file is open only while it is among the shards used last
// (open_shards.h); one that has changed when it is opened again has its SHA-256 compared again.
//
// Errors: std::runtime_error with the file, what was found, what was expected. Reading is thread-safe.
class TokenShard {
 public:
  // verified: another process of this job on this node has compared the SHA-256 just now, so it is not done again.
  // open: where the file is held open, with others, and whether its content was compared is known; null: by itself.
  TokenShard(const std::filesystem::path& path, const ShardSetInfo& info, const ShardEntry& entry,
             bool verified = false, std::shared_ptr<OpenShards> open = nullptr);

  std::int64_t tokens() const { return tokens_; }
  // [documents + 1], non-decreasing, from 0 to tokens().
  std::span<const std::uint64_t> document_offsets() const { return document_offsets_; }

  // Tokens [offset, offset + ids.size()); throws on one outside the vocabulary, naming row and value.
  void read_tokens(std::int64_t offset, std::span<std::uint32_t> ids) const;
  bool has_loss_mask() const { return has_loss_mask_; }
  void read_loss_mask(std::int64_t offset, std::span<std::uint8_t> mask) const {
    columns()->loss_mask.read(offset, mask);
  }

  // Whether one of tokens [first, last) counts as a target: its loss mask is not 0 and, with document masking, it does not
  // open a document. Reads until it finds one.
  bool has_target(std::int64_t first, std::int64_t last, bool document_masking) const;

 private:
  std::shared_ptr<const OpenShard> columns() const;
  std::shared_ptr<const OpenShard> open_columns() const;
  void read_document_offsets(const Hdf5File& file, const ShardEntry& entry);

  std::string path_, sha256_;
  std::int64_t vocab_size_, tokens_ = 0;
  bool has_loss_mask_ = false;
  FileIdentity identity_;  // of the file when its content was compared
  std::shared_ptr<OpenShards> open_;
  std::vector<std::uint64_t> document_offsets_;
};

ColumnType token_type(std::int64_t vocab_size);
void write_shard_attributes(Hdf5File& file, const ShardSetInfo& info);

}  // namespace smoe
