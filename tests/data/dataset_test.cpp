#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "data/shards/dataset.h"
#include "tests/data/shard_fixtures.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "tests/support/shards.h"

namespace smoe {
namespace {

using test::Corpus;
using test::expect_refused;
using test::ScratchDir;

struct Sample {
  std::vector<std::int32_t> inputs, targets, document_start;

  explicit Sample(std::int64_t length) : inputs(length), targets(length), document_start(length) {}
  bool operator==(const Sample&) const = default;
};

Sample read(const Dataset& dataset, std::int64_t sample) {
  Sample result(sample < dataset.samples() ? dataset.sequence_length() : dataset.tail());
  dataset.read(sample, result.inputs, result.targets, result.document_start);
  return result;
}

// The definition, token by token, over the corpus in memory; of the tail where the tokens end before the sample does.
Sample expected_sample(const Corpus& corpus, std::int64_t sample, std::int64_t length, bool document_masking) {
  std::vector<std::int32_t> ids, document_first;  // of the stream
  std::vector<std::uint8_t> counts;
  for (std::size_t d = 0; d < corpus.documents.size(); ++d) {
    const auto first = static_cast<std::int32_t>(ids.size());
    for (std::size_t i = 0; i < corpus.documents[d].size(); ++i) {
      ids.push_back(corpus.documents[d][i]);
      document_first.push_back(first);
      counts.push_back(corpus.masks.empty() || corpus.masks[d].empty() ? 1 : corpus.masks[d][i]);
    }
  }
  const std::int64_t positions = std::min(length, corpus.tokens() - 1 - sample * length);
  Sample result(positions);
  for (std::int64_t t = 0; t < positions; ++t) {
    const std::int64_t at = sample * length + t;
    const bool opens_document = document_first[at + 1] == at + 1;
    result.inputs[t] = ids[at];
    result.targets[t] = counts[at + 1] == 0 || (document_masking && opens_document) ? -100 : ids[at + 1];
    const std::int64_t start = document_first[at] - sample * length;
    result.document_start[t] = document_masking ? static_cast<std::int32_t>(std::max<std::int64_t>(start, 0)) : 0;
  }
  return result;
}

struct DatasetCase {
  const char* name;
  int documents, longest;
  std::int64_t vocab_size, shard_tokens, length;
  bool masked, document_masking;
};

class DatasetSamples : public testing::TestWithParam<DatasetCase> {};

TEST_P(DatasetSamples, FollowTheDefinition) {
  const DatasetCase& c = GetParam();
  const ScratchDir scratch;
  const Corpus corpus = test::random_corpus(11, c.documents, c.longest, c.vocab_size, c.masked);
  test::write_corpus(scratch / "set", corpus, test::corpus_info(c.vocab_size), c.shard_tokens);
  const Dataset dataset(scratch / "set", c.length, c.document_masking);
  EXPECT_EQ(dataset.tokens(), corpus.tokens());
  EXPECT_EQ(dataset.documents(), c.documents);
  ASSERT_EQ(dataset.samples(), (corpus.tokens() - 1) / c.length);
  EXPECT_EQ(dataset.tail(), 0);
  for (std::int64_t i = 0; i < dataset.samples(); ++i)
    ASSERT_EQ(read(dataset, i), expected_sample(corpus, i, c.length, c.document_masking)) << "sample " << i;

  const Dataset whole(scratch / "set", c.length, c.document_masking, {}, Tail::keep);
  EXPECT_EQ(whole.samples(), dataset.samples());
  ASSERT_EQ(whole.tail(), (corpus.tokens() - 1) % c.length);
  for (std::int64_t i = 0; i < whole.samples() + (whole.tail() > 0); ++i)
    ASSERT_EQ(read(whole, i), expected_sample(corpus, i, c.length, c.document_masking)) << "sample " << i;
}

INSTANTIATE_TEST_SUITE_P(
    , DatasetSamples,
    testing::Values(DatasetCase{"one_shard", 40, 60, 300, 1 << 27, 16, false, true},
                    DatasetCase{"one_shard_across_documents", 40, 60, 300, 1 << 27, 16, false, false},
                    DatasetCase{"samples_across_shards", 20, 60, 300, 50, 64, false, true},
                    DatasetCase{"samples_across_several_shards", 20, 20, 300, 20, 64, true, true},
                    DatasetCase{"samples_across_shards_and_documents", 20, 60, 300, 50, 64, true, false},
                    DatasetCase{"loss_mask", 40, 60, 300, 1 << 27, 16, true, true},
                    DatasetCase{"loss_mask_across_documents", 40, 60, 300, 1 << 27, 16, true, false},
                    DatasetCase{"one_token_documents", 50, 1, 300, 1 << 27, 7, false, false},
                    DatasetCase{"documents_of_one_token_and_two", 50, 2, 300, 1 << 27, 7, false, true},
                    DatasetCase{"one_token_samples", 12, 9, 300, 1 << 27, 1, true, true},
                    DatasetCase{"u32_ids", 40, 60, 200000, 1 << 27, 16, true, true},
                    DatasetCase{"samples_across_chunks", 6, 30000, 300, 1 << 27, 5000, true, true}),
    [](const auto& info) { return info.param.name; });

TEST(Dataset, WorkedExample) {
  const ScratchDir scratch;
  test::write_corpus(scratch / "set", {{{10, 11, 12}, {20, 21, 22, 23}, {30, 31}}, {}}, test::corpus_info());
  const Dataset dataset(scratch / "set", 4, true);
  ASSERT_EQ(dataset.samples(), 2);
  const Sample first = read(dataset, 0), second = read(dataset, 1);
  EXPECT_EQ(first.inputs, (std::vector<std::int32_t>{10, 11, 12, 20}));
  EXPECT_EQ(first.targets, (std::vector<std::int32_t>{11, 12, -100, 21}));
  EXPECT_EQ(first.document_start, (std::vector<std::int32_t>{0, 0, 0, 3}));
  EXPECT_EQ(second.inputs, (std::vector<std::int32_t>{21, 22, 23, 30}));
  EXPECT_EQ(second.targets, (std::vector<std::int32_t>{22, 23, -100, 31}));
  EXPECT_EQ(second.document_start, (std::vector<std::int32_t>{0, 0, 0, 3}));
}

TEST(Dataset, SampleCountAtItsEdges) {
  const ScratchDir scratch;
  test::write_corpus(scratch / "set", {{std::vector<std::int32_t>(17, 5)}, {}}, test::corpus_info());
  EXPECT_EQ(Dataset(scratch / "set", 16, true).samples(), 1);
  EXPECT_EQ(Dataset(scratch / "set", 8, true).samples(), 2);
  EXPECT_EQ(Dataset(scratch / "set", 9, true).samples(), 1);
  EXPECT_EQ(Dataset(scratch / "set", 1, true).samples(), 16);
}

TEST(Dataset, ATailThatIsKeptMakesAShortSourceReadable) {
  const ScratchDir scratch;
  test::write_corpus(scratch / "set", {{{10, 11, 12}, {20, 21}}, {}}, test::corpus_info());
  expect_refused([&] { Dataset(scratch / "set", 8, true); }, {"5 tokens", "needs 9"});
  const Dataset dataset(scratch / "set", 8, true, {}, Tail::keep);
  EXPECT_EQ(dataset.samples(), 0);
  ASSERT_EQ(dataset.tail(), 4);
  const Sample tail = read(dataset, 0);
  EXPECT_EQ(tail.inputs, (std::vector<std::int32_t>{10, 11, 12, 20}));
  EXPECT_EQ(tail.targets, (std::vector<std::int32_t>{11, 12, -100, 21}));
  EXPECT_EQ(tail.document_start, (std::vector<std::int32_t>{0, 0, 0, 3}));
  EXPECT_THROW(read(dataset, 1), std::logic_error);
  EXPECT_EQ(Dataset(scratch / "set", 4, true, {}, Tail::keep).tail(), 0);
  test::write_corpus(scratch / "one", {{{10}}, {}}, test::corpus_info());
  expect_refused([&] { Dataset(scratch / "one", 8, true, {}, Tail::keep); }, {"one token", "nothing to predict"});
}

TEST(Dataset, AcceptsCompressedShardsOfOtherWriters) {
  const ScratchDir scratch;
  const Corpus corpus = test::random_corpus(2, 10, 60, 300, false);
  test::write_corpus(scratch / "set", corpus, test::corpus_info());
  test::tamper(scratch / "set", [&](hid_t file) {
    std::vector<std::int32_t> ids;
    for (const auto& document : corpus.documents) ids.insert(ids.end(), document.begin(), document.end());
    ASSERT_GE(H5Ldelete(file, "tokens", H5P_DEFAULT), 0);
    const hsize_t extent = ids.size(), chunk = 64;
    const hid_t space = H5Screate_simple(1, &extent, nullptr), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, 1, &chunk);
    ASSERT_GE(H5Pset_shuffle(list), 0);
    ASSERT_GE(H5Pset_deflate(list, 6), 0);
    ASSERT_GE(H5Pset_fletcher32(list), 0);
    const hid_t column = H5Dcreate2(file, "tokens", H5T_STD_U32LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    ASSERT_GE(H5Dwrite(column, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, ids.data()), 0);
    H5Dclose(column);
    H5Pclose(list);
    H5Sclose(space);
  });
  const Dataset dataset(scratch / "set", 16, true);
  for (std::int64_t i = 0; i < dataset.samples(); ++i)
    ASSERT_EQ(read(dataset, i), expected_sample(corpus, i, 16, true)) << "sample " << i;
}

TEST(Dataset, ReadsFromSeveralThreads) {
  const ScratchDir scratch;
  const Corpus corpus = test::random_corpus(4, 60, 60, 300, true);
  test::write_corpus(scratch / "set", corpus, test::corpus_info(), 500);
  const Dataset dataset(scratch / "set", 16, true);
  std::vector<Sample> expected;
  for (std::int64_t i = 0; i < dataset.samples(); ++i) expected.push_back(expected_sample(corpus, i, 16, true));
  std::vector<int> wrong(4, 0);
  {
    std::vector<std::jthread> threads;
    for (std::size_t k = 0; k < wrong.size(); ++k)
      threads.emplace_back([&, k] {
        for (int round = 0; round < 20; ++round) {
          for (std::int64_t i = 0; i < dataset.samples(); ++i)
            wrong[k] += read(dataset, i) != expected[static_cast<std::size_t>(i)];
        }
      });
  }
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST(Dataset, MisuseIsALogicError) {
  const ScratchDir scratch;
  test::write_corpus(scratch / "set", {{std::vector<std::int32_t>(17, 5)}, {}}, test::corpus_info());
  const Dataset dataset(scratch / "set", 8, true);
  EXPECT_THROW(read(dataset, -1), std::logic_error);
  EXPECT_THROW(read(dataset, 2), std::logic_error);
  std::vector<std::int32_t> right(8), wrong(7);
  EXPECT_THROW(dataset.read(0, right, wrong, right), std::logic_error);
}

class DatasetBadInput : public testing::Test {
 protected:
  void SetUp() override { test::write_corpus(set_, {{std::vector<std::int32_t>(17, 5)}, {}}, test::corpus_info()); }

  ScratchDir scratch_;
  std::string set_ = scratch_ / "set";
};

TEST_F(DatasetBadInput, OtherTokenizer) {
  const std::string others = sha256_hex("another tokenizer");
  expect_refused(
      [&] {
        Dataset(set_, 8, true, {others, 300});
      },
      {set_, "another tokenizer", sha256_hex("a tokenizer"), others, "Prepare the data again"});
  EXPECT_NO_THROW(Dataset(set_, 8, true, {sha256_hex("a tokenizer"), 300}));
}

TEST_F(DatasetBadInput, IdsWithoutATokenizerSuitEveryModel) {
  ShardSetInfo info = test::corpus_info();
  info.tokenizer_sha256 = "";
  test::write_corpus(scratch_ / "bare", {{std::vector<std::int32_t>(17, 5)}, {}}, info);
  EXPECT_NO_THROW(Dataset(scratch_ / "bare", 8, true, {sha256_hex("any"), 300}));
}

TEST_F(DatasetBadInput, VocabularyLargerThanTheModels) {
  expect_refused([&] { Dataset(set_, 8, true, {"", 299}); }, {set_, "vocabulary of 300", "299", "model.vocab_size"});
  EXPECT_NO_THROW(Dataset(set_, 8, true, {"", 301}));
}

TEST_F(DatasetBadInput, TooFewTokens) {
  expect_refused([&] { Dataset(set_, 17, true); },
                 {set_, "17 tokens", "needs 18", "data.sequence_length to at most 16"});
}

// Ids saved as a column: a document each.
TEST_F(DatasetBadInput, NoTargetBecauseEveryTokenIsADocument) {
  const std::string column = scratch_ / "column";
  test::write_corpus(column, {std::vector<std::vector<std::int32_t>>(40, {7}), {}}, test::corpus_info(), 13);
  for (const Tail tail : {Tail::drop, Tail::keep})
    expect_refused([&] { Dataset(column, 8, true, {}, tail); },
                   {column + " has no target in its 40 tokens of 40 documents", "column", "a.ravel()",
                    "data.document_masking: false"});
  EXPECT_NO_THROW(Dataset(column, 8, false));
}

// What decides is what a sample holds: a target in the tail that is dropped helps nobody.
TEST_F(DatasetBadInput, NoTargetButInTheTailThatIsDropped) {
  std::vector<std::vector<std::int32_t>> documents(17, {7});
  documents.push_back({7, 7});
  const std::string set = scratch_ / "late";
  test::write_corpus(set, {documents, {}}, test::corpus_info());
  expect_refused([&] { Dataset(set, 8, true); }, {"no target"});
  EXPECT_NO_THROW(Dataset(set, 9, true));
  EXPECT_NO_THROW(Dataset(set, 8, true, {}, Tail::keep));
}

TEST_F(DatasetBadInput, NoTargetBecauseTheLossMaskIsZero) {
  const std::string set = scratch_ / "masked";
  const Corpus corpus{{std::vector<std::int32_t>(100000, 5), {6, 6}}, {std::vector<std::uint8_t>(100000, 0), {0, 0}}};
  test::write_corpus(set, corpus, test::corpus_info(), 100000);
  for (const bool document_masking : {true, false})
    expect_refused([&] { Dataset(set, 8, document_masking); }, {set + " has no target", "loss_mask", "is 0"});
  Corpus with_one = corpus;
  with_one.masks[0][99990] = 1;
  test::write_corpus(scratch_ / "one", with_one, test::corpus_info(), 100000);
  EXPECT_NO_THROW(Dataset(scratch_ / "one", 8, true));
  // A mask that is 1 on what opens a document alone.
  Corpus opening = corpus;
  opening.masks[1][0] = 1;
  test::write_corpus(scratch_ / "opening", opening, test::corpus_info(), 100000);
  expect_refused([&] { Dataset(scratch_ / "opening", 1, true); }, {"no target"});
  EXPECT_NO_THROW(Dataset(scratch_ / "opening", 1, false));
}

TEST_F(DatasetBadInput, SequenceLengthOutOfRange) {
  for (const std::int64_t length : {std::int64_t{0}, std::int64_t{-5}, std::numeric_limits<std::int64_t>::max()})
    expect_refused([&] { Dataset(set_, length, true); }, {"sequence_length", std::to_string(length)});
}

TEST_F(DatasetBadInput, NoSuchDirectory) {
  expect_refused([&] { Dataset(scratch_ / "nowhere", 8, true); }, {"nowhere", "smoe prepare"});
}

// A manifest that tells of its shards what they do not say of themselves.
TEST_F(DatasetBadInput, ManifestOfOtherShards) {
  const Manifest right = read_manifest(set_);
  const auto refused = [&](const std::function<void(Manifest&)>& change,
                           std::initializer_list<std::string_view> pieces) {
    Manifest manifest = right;
    change(manifest);
    write_manifest(set_, manifest);
    expect_refused([&] { Dataset(set_, 8, true); }, pieces);
  };
  refused([](Manifest& m) { m.shards[0].sha256 = sha256_hex("x"); }, {"shard-00000.h5", "SHA-256", sha256_hex("x")});
  refused([](Manifest& m) { m.shards[0].file = "shard-00001.h5"; }, {"shard-00001.h5", "missing"});
  refused([](Manifest& m) { m.shards[0].tokens = 18; }, {"shard-00000.h5", "tokens is 17", "18"});
  refused([](Manifest& m) { m.shards[0].documents = 2; }, {"shard-00000.h5", "documents is 1", "2"});
  refused([](Manifest& m) { m.info.vocab_size = 301; }, {"shard-00000.h5", "vocab_size is 300", "301"});
  refused([](Manifest& m) { m.info.tokenizer_name = "other"; }, {"tokenizer_name", "bytes", "other"});
  refused([](Manifest& m) { m.info.tokenizer_sha256 = sha256_hex("x"); }, {"tokenizer_sha256", sha256_hex("x")});
  refused([](Manifest& m) { m.info.eos = 3; }, {"eos is 2", "3"});
  refused([](Manifest& m) { m.info.bos = -1; }, {"bos is 1", "-1"});
  refused([](Manifest& m) { m.info.source = "elsewhere"; }, {"source", "a test", "elsewhere"});
  write_manifest(set_, right);
  EXPECT_NO_THROW(Dataset(set_, 8, true));
}

}  // namespace
}  // namespace smoe
