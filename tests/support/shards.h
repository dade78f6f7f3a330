// Token shards for tests: made-up documents, and a directory of shards that holds them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <random>
#include <vector>

#include "data/files/sha256.h"
#include "data/shards/token_shard_writer.h"

namespace smoe::test {

inline ShardSetInfo corpus_info(std::int64_t vocab_size = 300) {
  return {sha256_hex("a tokenizer"), "bytes", vocab_size, 1, 2, "a test"};
}

struct Corpus {
  std::vector<std::vector<std::int32_t>> documents;
  std::vector<std::vector<std::uint8_t>> masks;  // empty, or one a document, which may be empty too

  std::int64_t tokens() const {
    std::size_t sum = 0;
    for (const auto& document : documents) sum += document.size();
    return static_cast<std::int64_t>(sum);
  }
};

inline Corpus random_corpus(std::uint32_t seed, int documents, int longest, std::int64_t vocab_size, bool masked) {
  std::mt19937 random(seed);
  Corpus corpus;
  for (int i = 0; i < documents; ++i) {
    const auto length = 1 + random() % static_cast<unsigned>(longest);
    auto& ids = corpus.documents.emplace_back(length);
    for (auto& id : ids) id = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(vocab_size));
    if (!masked) continue;
    auto& mask = corpus.masks.emplace_back();
    if (i % 3 == 0) continue;
    mask.resize(length);
    for (auto& counts : mask) counts = random() % 4 != 0;
  }
  return corpus;
}

inline ShardSetSummary write_corpus(const std::filesystem::path& directory, const Corpus& corpus,
                                    const ShardSetInfo& info, std::int64_t shard_tokens = default_shard_tokens) {
  ShardWriter writer(directory.string(), info, shard_tokens);
  for (std::size_t i = 0; i < corpus.documents.size(); ++i) {
    if (corpus.masks.empty())
      writer.add_document(corpus.documents[i]);
    else
      writer.add_document(corpus.documents[i], corpus.masks[i]);
  }
  return writer.finish();
}

}  // namespace smoe::test
