// Bare ids and ids out of HDF5, as prepare takes them.
#include <gtest/gtest.h>
#include <hdf5.h>

#include <cstring>
#include <string>
#include <vector>

#include "data/import/prepare.h"
#include "data/import/raw_ids.h"
#include "data/shards/hdf5_ids.h"
#include "data/shards/manifest.h"
#include "data/shards/token_shard.h"
#include "tests/data/megatron_fixtures.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using namespace test;
namespace fs = std::filesystem;
using IdDocuments = std::vector<std::vector<std::uint32_t>>;

template <class Id>
std::string bytes_of(const std::vector<Id>& ids) {
  return {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(Id)};
}

template <class Id>
std::string with_llmc_header(std::int32_t magic, const std::vector<Id>& ids, std::int32_t count) {
  std::vector<std::int32_t> header(256);
  header[0] = magic;
  header[1] = 1;
  header[2] = count;
  return bytes_of(header) + bytes_of(ids);
}

// Creates datasets in a new HDF5 file.
class Hdf5Maker {
 public:
  explicit Hdf5Maker(const fs::path& path) : file_(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT)) {}
  ~Hdf5Maker() { H5Fclose(file_); }

  template <class Value>
  void dataset(const std::string& name, const std::vector<hsize_t>& dims, hid_t memory_type, hid_t file_type,
               const std::vector<Value>& values, const std::vector<hsize_t>& chunk = {}) {
    const hid_t links = H5Pcreate(H5P_LINK_CREATE), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    if (!chunk.empty()) {
      H5Pset_chunk(list, static_cast<int>(chunk.size()), chunk.data());
      H5Pset_deflate(list, 4);
    }
    const hid_t space = H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
    const hid_t set = H5Dcreate2(file_, name.c_str(), file_type, space, links, list, H5P_DEFAULT);
    if (!values.empty()) H5Dwrite(set, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
    H5Dclose(set);
    H5Sclose(space);
    H5Pclose(list);
    H5Pclose(links);
  }
  void soft_link(const char* target, const char* name) {
    H5Lcreate_soft(target, file_, name, H5P_DEFAULT, H5P_DEFAULT);
  }

 private:
  hid_t file_;
};

class IdFiles : public testing::Test {
 protected:
  PrepareOptions options(const std::string& input, CorpusFormat format, std::int64_t vocab_size = 70'000) {
    PrepareOptions options;
    options.inputs = {(directory_ / input).string()};
    options.out_directory = (directory_ / ("out-" + std::to_string(runs_++))).string();
    options.vocab_size = vocab_size;
    options.format = format;
    options.threads = 2;
    return options;
  }

  IdDocuments documents_of(const PrepareOptions& options) {
    summary_ = prepare(options);
    const Manifest manifest = read_manifest(options.out_directory);
    IdDocuments documents;
    for (const ShardEntry& entry : manifest.shards) {
      const TokenShard shard(fs::path(options.out_directory) / entry.file, manifest.info, entry);
      const auto offsets = shard.document_offsets();
      for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
        documents.emplace_back(offsets[i + 1] - offsets[i]);
        shard.read_tokens(static_cast<std::int64_t>(offsets[i]), documents.back());
      }
    }
    return documents;
  }

  void refused(const PrepareOptions& options, std::initializer_list<std::string_view> pieces) {
    expect_refused([&] { prepare(options); }, pieces);
    EXPECT_FALSE(fs::exists(options.out_directory));
  }

  const ScratchDir directory_;
  PrepareSummary summary_;
  int runs_ = 0;
};

TEST_F(IdFiles, BareOnesAreOneDocumentOrManyByAnId) {
  const std::vector<std::uint16_t> nanogpt{5, 6, 0, 0, 7, 65535, 0, 8};
  spill(directory_ / "train.bin", bytes_of(nanogpt));
  EXPECT_EQ(documents_of(options("train.bin", CorpusFormat::u16)), (IdDocuments{{5, 6, 0, 0, 7, 65535, 0, 8}}));
  EXPECT_EQ(summary_.bytes_done, 16u);
  PrepareOptions split = options("train.bin", CorpusFormat::u16);
  split.document_end = 0;
  EXPECT_EQ(documents_of(split), (IdDocuments{{5, 6, 0}, {0}, {7, 65535, 0}, {8}}));
  split = options("train.bin", CorpusFormat::u16);
  split.document_begin = 0;
  EXPECT_EQ(documents_of(split), (IdDocuments{{5, 6}, {0}, {0, 7, 65535}, {0, 8}}));
  spill(directory_ / "wide.bin", bytes_of(std::vector<std::uint32_t>{0, 69'999, 0, 3}));
  split = options("wide.bin", CorpusFormat::u32);
  split.document_begin = 0;
  EXPECT_EQ(documents_of(split), (IdDocuments{{0, 69'999}, {0, 3}}));
  split = options("wide.bin", CorpusFormat::u32);
  split.document_end = 3;
  EXPECT_EQ(documents_of(split), (IdDocuments{{0, 69'999, 0, 3}}));
}

// Where batches of half a million ids meet, a document neither ends nor loses an id.
TEST_F(IdFiles, BareOnesAreCutTheSameAcrossBatches) {
  constexpr std::uint32_t border = 1 << 19;
  for (const std::uint32_t place : {border - 1, border, border + 1}) {
    std::vector<std::uint32_t> ids(2 * border + 3, 7);
    ids[place] = 1;
    spill(directory_ / "a.bin", bytes_of(ids));
    PrepareOptions split = options("a.bin", CorpusFormat::u32);
    split.document_end = 1;
    IdDocuments documents = documents_of(split);
    ASSERT_EQ(documents.size(), 2u);
    EXPECT_EQ(documents[0].size(), place + 1);
    split = options("a.bin", CorpusFormat::u32);
    split.document_begin = 1;
    documents = documents_of(split);
    ASSERT_EQ(documents.size(), 2u);
    EXPECT_EQ(documents[0].size(), place);
    EXPECT_EQ(documents[1].size(), ids.size() - place);
  }
  spill(directory_ / "a.bin", bytes_of(std::vector<std::uint16_t>(3 << 20, 1)));
  documents_of(options("a.bin", CorpusFormat::u16));
  ASSERT_EQ(summary_.warnings.size(), 1u);
  mentions(summary_.warnings[0], {"a.bin is stored as one document", "--document-end 50256"});
}

TEST_F(IdFiles, TheHeaderOfLlmcIsPassedOverAndCompared) {
  const std::vector<std::uint16_t> ids{9, 5, 6, 9, 7};
  spill(directory_ / "a.bin", with_llmc_header(20240520, ids, 5));
  PrepareOptions split = options("a.bin", CorpusFormat::u16);
  split.document_begin = 9;
  EXPECT_EQ(documents_of(split), (IdDocuments{{9, 5, 6}, {9, 7}}));
  refused(options("a.bin", CorpusFormat::u32), {"a.bin", "says ids of 16 bits", "--format u16"});
  spill(directory_ / "b.bin", with_llmc_header(20240801, std::vector<std::uint32_t>{1, 2}, 2));
  EXPECT_EQ(documents_of(options("b.bin", CorpusFormat::u32)), (IdDocuments{{1, 2}}));
  spill(directory_ / "c.bin", with_llmc_header(20240520, ids, 6));
  refused(options("c.bin", CorpusFormat::u16), {"c.bin", "says 6 ids of 16 bits, and 10 bytes follow"});
}

TEST_F(IdFiles, BareOnesThatDoNotFitAreRefused) {
  spill(directory_ / "odd.bin", "abc");
  refused(options("odd.bin", CorpusFormat::u16), {"odd.bin: 3 bytes are no whole number of ids of 16 bits"});
  refused(options("odd.bin", CorpusFormat::u32), {"odd.bin: 3 bytes are no whole number of ids of 32 bits"});
  spill(directory_ / "a.bin", bytes_of(std::vector<std::uint16_t>{1, 2, 300}));
  refused(options("a.bin", CorpusFormat::u16, 300), {"a.bin: element 2 is 300", "vocabulary of 300"});
  spill(directory_ / "empty.bin", "");
  refused(options("empty.bin", CorpusFormat::u16), {"no document to store"});
  refused(options("nowhere.bin", CorpusFormat::u16), {"nowhere.bin", "No such file"});
  spill(directory_ / "a.txt", "text");
  PrepareOptions useless = options("a.txt", CorpusFormat::text, 0);
  useless.tokenizer = "bytes";
  useless.document_end = 1;
  refused(useless, {"--document-end"});
  useless.document_end = -1;
  useless.dataset = "ids";
  refused(useless, {"--dataset"});
}

// Of any length: those of more than a batch go over several.
TEST_F(IdFiles, OutOfMegatronAreTheSameAcrossBatches) {
  std::vector<std::vector<std::int64_t>> expected;
  IdDocuments stored;
  for (const std::size_t length : {3, 1 << 19, 0, (1 << 20) + 5, 2, (1 << 19) + 1, 0}) {
    std::vector<std::int64_t> ids(length);
    for (std::size_t i = 0; i < length; ++i) ids[i] = static_cast<std::int64_t>(i % 97);
    if (length > 0) stored.emplace_back(ids.begin(), ids.end());
    expected.push_back(std::move(ids));
  }
  write_megatron(directory_ / "ids", 4, expected);
  EXPECT_TRUE(documents_of(options("ids.idx", CorpusFormat::megatron)) == stored);
  EXPECT_EQ(summary_.empty_documents, 2);
}

TEST_F(IdFiles, OutOfHdf5AreRowsOrOneDocument) {
  {
    Hdf5Maker file(directory_ / "a.h5");
    file.dataset<int>("flat", {4}, H5T_NATIVE_INT, H5T_STD_I16BE, {3, 1, 4, 1});
    file.dataset<int>("deep/er/rows", {3, 2}, H5T_NATIVE_INT, H5T_STD_U32LE, {1, 2, 3, 4, 5, 6}, {2, 1});
    file.dataset<std::int64_t>("wide", {2}, H5T_NATIVE_INT64, H5T_STD_I64LE, {7, 8}, {2});
  }
  const auto documents = [&](const std::string& dataset, CorpusFormat format = CorpusFormat::automatic) {
    PrepareOptions run = options("a.h5", format);
    run.dataset = dataset;
    return documents_of(run);
  };
  EXPECT_EQ(documents("flat"), (IdDocuments{{3, 1, 4, 1}}));
  EXPECT_EQ(documents("/deep/er/rows"), (IdDocuments{{1, 2}, {3, 4}, {5, 6}}));
  EXPECT_EQ(documents("wide", CorpusFormat::hdf5), (IdDocuments{{7, 8}}));
  PrepareOptions split = options("a.h5", CorpusFormat::hdf5);
  split.dataset = "flat";
  split.document_end = 1;
  EXPECT_EQ(documents_of(split), (IdDocuments{{3, 1}, {4, 1}}));
}

TEST_F(IdFiles, OutOfHdf5AreReadInAnyPieces) {
  std::vector<int> values(35);
  for (int i = 0; i < 35; ++i) values[static_cast<std::size_t>(i)] = i;
  {
    Hdf5Maker file(directory_ / "a.h5");
    file.dataset("rows", {5, 7}, H5T_NATIVE_INT, H5T_STD_I32LE, values, {2, 3});
  }
  const Hdf5Ids ids(directory_ / "a.h5", "rows");
  for (std::int64_t first = 0; first < 35; ++first)
    for (std::int64_t count = 0; first + count <= 35; ++count) {
      std::vector<std::int64_t> read(static_cast<std::size_t>(count));
      ids.read(first, count, read.data());
      for (std::int64_t i = 0; i < count; ++i) ASSERT_EQ(read[static_cast<std::size_t>(i)], first + i);
    }
  EXPECT_THROW(ids.read(30, 6, nullptr), std::logic_error);
}

TEST_F(IdFiles, OutOfATokenShardKeepTheirDocuments) {
  spill(directory_ / "a.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two words\"}\n");
  PrepareOptions first = options("a.jsonl", CorpusFormat::automatic, 0);
  first.tokenizer = "bytes";
  const IdDocuments documents = documents_of(first);
  fs::rename(fs::path(first.out_directory) / "shard-00000.h5", directory_ / "shard.h5");
  EXPECT_EQ(documents_of(options("shard.h5", CorpusFormat::automatic)), documents);
  {
    Hdf5Maker file(directory_ / "masked.h5");
    for (const char* name : {"tokens", "document_offsets", "loss_mask"})
      file.dataset<int>(name, {1}, H5T_NATIVE_INT, H5T_STD_U8LE, {1});
  }
  refused(options("masked.h5", CorpusFormat::automatic), {"masked.h5", "loss_mask, which would be lost"});
}

TEST_F(IdFiles, OutOfHdf5ThatAreNoneAreRefused) {
  {
    Hdf5Maker file(directory_ / "a.h5");
    file.dataset<int>("ids", {2}, H5T_NATIVE_INT, H5T_STD_I32LE, {1, 2});
    file.dataset<double>("meta/scores", {2}, H5T_NATIVE_DOUBLE, H5T_IEEE_F32LE, {1, 2});
    file.dataset<int>("cube", {1, 1, 2}, H5T_NATIVE_INT, H5T_STD_I32LE, {1, 2});
    file.dataset<int>("holes", {9}, H5T_NATIVE_INT, H5T_STD_I32LE, {}, {3});
    file.dataset<int>("negative", {2}, H5T_NATIVE_INT, H5T_STD_I32LE, {1, -2});
    file.dataset<std::uint64_t>("unsigned", {3}, H5T_NATIVE_UINT64, H5T_STD_U64LE, {1, 7, std::uint64_t{1} << 63});
    file.soft_link("/ids", "soft");
  }
  const auto refuses = [&](const std::string& dataset, std::initializer_list<std::string_view> pieces) {
    PrepareOptions run = options("a.h5", CorpusFormat::hdf5);
    run.dataset = dataset;
    refused(run, pieces);
  };
  refuses("", {"a.h5", "--dataset", "cube, holes, ids, meta/scores, negative"});
  refuses("tokens", {"a.h5: has no dataset 'tokens'", "the file has cube, holes, ids, meta/scores, negative"});
  refuses("meta/nothing", {"has no dataset 'meta/nothing'"});
  refuses("ids/deeper", {"has no dataset 'ids/deeper'"});
  refuses("meta", {"'meta' is no dataset"});
  refuses("meta/scores", {"a.h5: 'meta/scores': holds floating-point numbers, expected integers"});
  refuses("cube", {"'cube': has 3 dims, expected 1", "or 2"});
  refuses("holes", {"'holes': was not written in full"});
  refuses("negative", {"'negative': element 1 is -2"});
  refuses("unsigned", {"'unsigned': holds 9223372036854775808"});
  refuses("soft", {"'soft' is a soft or external link"});
  spill(directory_ / "a.h5", slurp(directory_ / "a.h5").substr(0, 900));
  refuses("ids", {"a.h5: cannot open the HDF5 file"});
  spill(directory_ / "a.h5", "no HDF5");
  refuses("ids", {"a.h5: cannot open the HDF5 file"});
}

}  // namespace
}  // namespace smoe
