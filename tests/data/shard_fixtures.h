// What the tests of shards, datasets and loaders share: small random corpora, and shards changed behind the manifest's
// back and then sealed again, so that a refusal comes from the reader and not from the checksum.
#pragma once

#include <hdf5.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "data/shards/manifest.h"
#include "data/files/sha256.h"
#include "data/shards/token_shard_writer.h"
#include "tests/data/scratch_files.h"

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

// The manifest's checksums become those of the files as they are now.
inline void reseal(const std::filesystem::path& directory) {
  Manifest manifest = read_manifest(directory);
  for (ShardEntry& shard : manifest.shards) shard.sha256 = sha256_file(directory / shard.file);
  write_manifest(directory, manifest);
}

// Runs `change` on the open HDF5 file of the directory's only shard, then seals the directory again.
template <class Change>
void tamper(const std::filesystem::path& directory, Change&& change) {
  const hid_t file = H5Fopen((directory / "shard-00000.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  change(file);
  ASSERT_GE(H5Fclose(file), 0);
  reseal(directory);
}

// Puts a chunked column with the values in place of the one of that name.
template <class T>
void replace_column(hid_t file, const char* name, hid_t file_type, hid_t memory_type, const std::vector<T>& values) {
  if (H5Lexists(file, name, H5P_DEFAULT) > 0) H5Ldelete(file, name, H5P_DEFAULT);
  const hsize_t extent = values.size(), chunk = std::min<hsize_t>(extent, 16);
  const hid_t space = H5Screate_simple(1, &extent, nullptr);
  const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(list, 1, &chunk);
  const hid_t column = H5Dcreate2(file, name, file_type, space, H5P_DEFAULT, list, H5P_DEFAULT);
  ASSERT_GE(column, 0);
  ASSERT_GE(H5Dwrite(column, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
  H5Dclose(column);
  H5Pclose(list);
  H5Sclose(space);
}

}  // namespace smoe::test
