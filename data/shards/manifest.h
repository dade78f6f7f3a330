// manifest.json: what a directory of token shards holds. It is written after the shards and read before them, so that
// a directory without one is not a corpus yet, and a shard whose SHA-256 differs is never opened.
//
//   {"format": "smoe-token-shards", "format_version": 1, "tokenizer_sha256": ..., "tokenizer_name": ...,
//    "vocab_size": V, "bos": -1 or id, "eos": -1 or id, "source": ..., "tokens": N, "documents": N,
//    "shards": [{"file": "shard-00000.h5", "tokens": N, "documents": N, "sha256": 64 hex digits}]}
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace smoe {

inline constexpr std::int64_t shard_format_version = 1;

// What holds for every shard of a directory.
struct ShardSetInfo {
  std::string tokenizer_sha256;  // of the tokenizer's file; empty where the ids came ready-made, with no tokenizer
  std::string tokenizer_name;
  std::int64_t vocab_size = 0;      // every id is in [0, vocab_size)
  std::int32_t bos = -1, eos = -1;  // -1: none
  std::string source;               // where the documents came from, in words

  bool operator==(const ShardSetInfo&) const = default;
};

// Throws std::runtime_error, naming the field: vocab_size in [1, 2^31 - 1], bos and eos -1 or below it.
void validate(const ShardSetInfo& info, const std::string& where);

struct ShardEntry {
  std::string file;  // a plain name in the manifest's directory
  std::int64_t tokens = 0, documents = 0;
  std::string sha256;

  bool operator==(const ShardEntry&) const = default;
};

struct Manifest {
  ShardSetInfo info;
  std::vector<ShardEntry> shards;

  std::int64_t tokens() const;
  std::int64_t documents() const;
};

std::filesystem::path manifest_path(const std::filesystem::path& directory);

// Throws std::runtime_error with the file, what was found and what was expected: unreadable, not JSON, an unknown or
// mistyped key, totals that are not the sums, a shard's name that is a path, is hidden or comes twice.
Manifest read_manifest(const std::filesystem::path& directory);

// In place of what was there, atomically.
void write_manifest(const std::filesystem::path& directory, const Manifest& manifest);

}  // namespace smoe
