#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <optional>

#include "data/shards/token_shard.h"
#include "tests/support/scratch_dir.h"
#include "tests/support/shards.h"

namespace smoe {
namespace {

using test::Corpus;
using test::ScratchDir;

// Everything in the shards of a directory, read back document by document.
Corpus read_back(const std::filesystem::path& directory) {
  const Manifest manifest = read_manifest(directory);
  Corpus corpus;
  for (const ShardEntry& entry : manifest.shards) {
    const TokenShard shard(directory / entry.file, manifest.info, entry);
    const auto offsets = shard.document_offsets();
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      std::vector<std::uint32_t> ids(offsets[i + 1] - offsets[i]);
      shard.read_tokens(static_cast<std::int64_t>(offsets[i]), ids);
      corpus.documents.emplace_back(ids.begin(), ids.end());
      auto& mask = corpus.masks.emplace_back(ids.size(), std::uint8_t{1});
      if (shard.has_loss_mask()) shard.read_loss_mask(static_cast<std::int64_t>(offsets[i]), mask);
    }
  }
  return corpus;
}

Corpus with_whole_masks(Corpus corpus) {
  corpus.masks.resize(corpus.documents.size());
  for (std::size_t i = 0; i < corpus.documents.size(); ++i) {
    if (corpus.masks[i].empty()) corpus.masks[i].assign(corpus.documents[i].size(), 1);
  }
  return corpus;
}

struct RoundTripCase {
  const char* name;
  int documents, longest;
  std::int64_t vocab_size, shard_tokens;
  bool masked;
};

class ShardRoundTrip : public testing::TestWithParam<RoundTripCase> {};

TEST_P(ShardRoundTrip, GivesBackEveryDocumentAndMask) {
  const RoundTripCase& c = GetParam();
  const ScratchDir scratch;
  const Corpus corpus = test::random_corpus(7, c.documents, c.longest, c.vocab_size, c.masked);
  const ShardSetInfo info = test::corpus_info(c.vocab_size);
  const ShardSetSummary summary = test::write_corpus(scratch / "set", corpus, info, c.shard_tokens);

  const Manifest manifest = read_manifest(scratch / "set");
  EXPECT_EQ(manifest.info, info);
  EXPECT_EQ(manifest.tokens(), corpus.tokens());
  EXPECT_EQ(summary.tokens, corpus.tokens());
  EXPECT_EQ(summary.documents, c.documents);
  EXPECT_EQ(summary.shards, static_cast<std::int64_t>(manifest.shards.size()));

  const Corpus expected = with_whole_masks(corpus), found = read_back(scratch / "set");
  EXPECT_EQ(found.documents, expected.documents);
  EXPECT_EQ(found.masks, expected.masks);
}

INSTANTIATE_TEST_SUITE_P(, ShardRoundTrip,
                         testing::Values(RoundTripCase{"one_short_document", 1, 5, 300, 1000, false},
                                         RoundTripCase{"u16", 200, 90, 32000, 1 << 27, false},
                                         RoundTripCase{"u16_at_its_limit", 40, 90, 65536, 1 << 27, false},
                                         RoundTripCase{"u32", 40, 90, 65537, 1 << 27, true},
                                         RoundTripCase{"u32_at_its_limit", 40, 90, 0x7fffffff, 1 << 27, false},
                                         RoundTripCase{"many_shards", 50, 90, 300, 100, true},
                                         RoundTripCase{"a_document_a_shard", 12, 90, 300, 1, false},
                                         RoundTripCase{"longer_than_chunks_and_buffers", 3, 400000, 300, 1 << 27,
                                                       true}),
                         [](const auto& info) { return info.param.name; });

TEST(Shard, HasTheDocumentedLayout) {
  const ScratchDir scratch;
  test::write_corpus(scratch / "set", test::random_corpus(1, 10, 20, 300, true), test::corpus_info());
  const Hdf5File file = Hdf5File::open_to_read(scratch / "set" / "shard-00000.h5");
  EXPECT_EQ(file.members(), (std::vector<std::string>{"document_offsets", "loss_mask", "tokens"}));
  EXPECT_EQ(file.open_column("tokens", std::array{ColumnType::u16}).type(), ColumnType::u16);
  EXPECT_EQ(file.open_column("document_offsets", std::array{ColumnType::u64}).size(), 11);
  EXPECT_EQ(file.read_int_attribute("format_version"), 1);
  EXPECT_EQ(file.read_int_attribute("vocab_size"), 300);
  EXPECT_EQ(file.read_int_attribute("bos"), 1);
  EXPECT_EQ(file.read_int_attribute("eos"), 2);
  EXPECT_EQ(file.read_string_attribute("tokenizer_sha256"), sha256_hex("a tokenizer"));
  EXPECT_EQ(file.read_string_attribute("tokenizer_name"), "bytes");
  EXPECT_EQ(file.read_string_attribute("source"), "a test");
}

TEST(Shard, TokensAreChunkedWithFletcher32) {
  const ScratchDir scratch;
  test::write_corpus(scratch / "set", test::random_corpus(1, 10, 20, 300, false), test::corpus_info());
  const hid_t file = H5Fopen((scratch / "set" / "shard-00000.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t tokens = H5Dopen2(file, "tokens", H5P_DEFAULT);
  const hid_t list = H5Dget_create_plist(tokens);
  EXPECT_EQ(H5Pget_layout(list), H5D_CHUNKED);
  ASSERT_EQ(H5Pget_nfilters(list), 1);
  unsigned flags = 0;
  std::size_t values = 0;
  EXPECT_EQ(H5Pget_filter2(list, 0, &flags, &values, nullptr, 0, nullptr, nullptr), H5Z_FILTER_FLETCHER32);
  H5Pclose(list);
  H5Dclose(tokens);
  H5Fclose(file);
}

TEST(Shard, MaskThatMasksNothingIsNotStored) {
  const ScratchDir scratch;
  ShardWriter writer(scratch / "set", test::corpus_info());
  writer.add_document(std::vector<std::int32_t>{3, 4}, std::vector<std::uint8_t>{1, 1});
  writer.finish();
  EXPECT_EQ(Hdf5File::open_to_read(scratch / "set" / "shard-00000.h5").members().size(), 2u);
}

TEST(Shard, EqualDocumentsGiveEqualFiles) {
  const ScratchDir scratch;
  const Corpus corpus = test::random_corpus(5, 100, 90, 300, true);
  test::write_corpus(scratch / "a", corpus, test::corpus_info(), 1000);
  test::write_corpus(scratch / "b", corpus, test::corpus_info(), 1000);
  EXPECT_EQ(read_manifest(scratch / "a").shards, read_manifest(scratch / "b").shards);
}

TEST(Shard, DocumentsAreNotCutAndShardsKeepToTheirSize) {
  const ScratchDir scratch;
  ShardWriter writer(scratch / "set", test::corpus_info(), 10);
  for (const std::size_t length : {4, 6, 1, 25, 9, 1, 1}) writer.add_document(std::vector<std::int32_t>(length, 7));
  EXPECT_EQ(writer.finish().shards, 5);
  std::vector<std::int64_t> tokens;
  for (const ShardEntry& shard : read_manifest(scratch / "set").shards) tokens.push_back(shard.tokens);
  EXPECT_EQ(tokens, (std::vector<std::int64_t>{10, 1, 25, 10, 1}));
}

// Whatever the pieces, and wherever the document turns out to have outgrown the last shard.
TEST(Shard, DocumentsInPiecesGiveTheSameFiles) {
  std::mt19937 random(3);
  for (const std::int64_t shard_tokens : {10, 70'000, 3'000'000, 100'000'000}) {
    const ScratchDir scratch;
    ShardWriter whole(scratch / "whole", test::corpus_info(), shard_tokens);
    ShardWriter pieces(scratch / "pieces", test::corpus_info(), shard_tokens);
    for (const std::size_t length : {3, 4, 3, 5, 6, 0, 69'990, 1, 0, 80'000, 2'600'000, 7, 1'200'000, 3'100'000, 2}) {
      std::vector<std::int32_t> ids(length);
      for (std::int32_t& id : ids) id = static_cast<std::int32_t>(random() % 300);
      const std::vector<std::uint8_t> mask(length == 7 ? 7 : 0, 0);
      whole.add_document(ids, mask);
      if (length == 7 || length == 1) {  // between others
        pieces.add_document(ids, mask);
        continue;
      }
      for (std::size_t done = 0; done < length;) {
        const std::size_t size = std::min<std::size_t>(length - done, random() % (2 + length / 3));
        pieces.append(std::span(ids).subspan(done, size));
        done += size;
      }
      EXPECT_EQ(pieces.tokens(), whole.tokens());
      pieces.end_document();
      EXPECT_EQ(pieces.documents(), whole.documents());
    }
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch / "pieces"), {}),
              std::distance(std::filesystem::directory_iterator(scratch / "whole"), {}));
    EXPECT_EQ(pieces.finish().shards, whole.finish().shards);
    EXPECT_EQ(read_manifest(scratch / "pieces").shards, read_manifest(scratch / "whole").shards) << shard_tokens;
  }
}

TEST(Shard, DocumentsWithoutTokensAreNotCounted) {
  const ScratchDir scratch;
  ShardWriter writer(scratch / "set", test::corpus_info());
  writer.add_document({});
  writer.add_document(std::vector<std::int32_t>{5});
  writer.add_document({});
  EXPECT_EQ(writer.documents(), 1);
  EXPECT_EQ(writer.tokens(), 1);
  EXPECT_EQ(writer.finish().documents, 1);
}

TEST(Shard, WriterThatDoesNotFinishLeavesNothing) {
  const ScratchDir scratch;
  std::filesystem::create_directory(scratch / "there");
  test::spill(scratch / "there" / "notes.txt", "mine");
  for (const char* name : {"new", "there"}) {
    ShardWriter writer(scratch / name, test::corpus_info(), 10);
    for (int i = 0; i < 5; ++i) writer.add_document(std::vector<std::int32_t>(8, 7));
  }
  EXPECT_FALSE(std::filesystem::exists(scratch / "new"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch / "there"), {}), 1);
}

TEST(Shard, NothingHasItsNameBeforeFinish) {
  const ScratchDir scratch;
  ShardWriter writer(scratch / "set", test::corpus_info(), 10);
  for (int i = 0; i < 5; ++i) writer.add_document(std::vector<std::int32_t>(8, 7));
  for (const auto& entry : std::filesystem::directory_iterator(scratch / "set"))
    EXPECT_TRUE(entry.path().filename().string().starts_with(".")) << entry.path();
  writer.finish();
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch / "set"), {}), 6);  // five shards, the manifest
}

TEST(Shard, OverwritingReplacesTheWholeSet) {
  const ScratchDir scratch;
  test::write_corpus(scratch / "set", test::random_corpus(1, 50, 20, 300, false), test::corpus_info(), 50);
  ShardWriter writer(scratch / "set", test::corpus_info(), 1000, true);
  writer.add_document(std::vector<std::int32_t>{9, 8, 7});
  writer.finish();
  EXPECT_EQ(read_back(scratch / "set").documents, (std::vector<std::vector<std::int32_t>>{{9, 8, 7}}));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch / "set"), {}), 2);
}

TEST(Shard, WriterMoves) {
  const ScratchDir scratch;
  std::optional<ShardWriter> writer(std::in_place, scratch / "set", test::corpus_info());
  writer->add_document(std::vector<std::int32_t>{5, 6});
  ShardWriter moved = std::move(*writer);
  writer.reset();
  moved.add_document(std::vector<std::int32_t>{7});
  EXPECT_EQ(moved.finish().tokens, 3);
}

TEST(Shard, MisuseOfTheWriterIsALogicError) {
  const ScratchDir scratch;
  ShardWriter writer(scratch / "set", test::corpus_info());
  EXPECT_THROW(writer.add_document(std::vector<std::int32_t>{5}, std::vector<std::uint8_t>{1, 1}), std::logic_error);
  writer.append(std::vector<std::int32_t>{5});
  EXPECT_THROW(writer.add_document(std::vector<std::int32_t>{5}), std::logic_error);
  EXPECT_THROW(writer.finish(), std::logic_error);
  writer.end_document();
  writer.finish();
  EXPECT_THROW(writer.append(std::vector<std::int32_t>{5}), std::logic_error);
  EXPECT_THROW(writer.finish(), std::logic_error);
  EXPECT_THROW(writer.add_document(std::vector<std::int32_t>{5}), std::logic_error);
}

}  // namespace
}  // namespace smoe
