#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <limits>
#include <random>

#include "data/shards/dataset.h"
#include "tests/data/shard_fixtures.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "tests/support/shards.h"

namespace smoe {
namespace {

using test::expect_refused;
using test::ScratchDir;
using test::tamper;

// A directory with one shard of 16-token documents, which the tests then damage.
class ShardBadInput : public testing::Test {
 protected:
  void SetUp() override {
    corpus_.documents.assign(10, std::vector<std::int32_t>(16, 7));
    test::write_corpus(set_, corpus_, test::corpus_info());
  }

  void expect_open_refused(std::initializer_list<std::string_view> pieces) {
    testing::internal::CaptureStderr();
    expect_refused([&] { Dataset(set_.string(), 8, true); }, pieces);
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << "HDF5 must not print";
  }

  ScratchDir scratch_;
  std::filesystem::path set_ = scratch_ / "set";
  std::filesystem::path shard_ = set_ / "shard-00000.h5";
  test::Corpus corpus_;
};

TEST_F(ShardBadInput, OneFlippedBitAnywhereIsRefused) {
  const std::string whole = test::slurp(shard_);
  std::mt19937_64 random(3);
  for (int i = 0; i < 200; ++i) {
    std::string damaged = whole;
    const std::size_t position = i == 0 ? 0 : i == 1 ? whole.size() - 1 : random() % whole.size();
    damaged[position] = static_cast<char>(damaged[position] ^ (1 << (random() % 8)));
    test::spill(shard_, damaged);
    expect_refused([&] { Dataset(set_.string(), 8, true); }, {"shard-00000.h5", "SHA-256"});
  }
  test::spill(shard_, whole);
  EXPECT_NO_THROW(Dataset(set_.string(), 8, true));
}

// Nothing guards the manifest but what it says: every statement in it is checked against the shards or the format.
TEST_F(ShardBadInput, OneFlippedBitInTheManifestIsRefused) {
  const std::filesystem::path path = set_ / "manifest.json";
  const std::string whole = test::slurp(path);
  std::mt19937_64 random(4);
  for (std::size_t position = 0; position < whole.size(); ++position) {
    std::string damaged = whole;
    damaged[position] = static_cast<char>(damaged[position] ^ (1 << (random() % 8)));
    test::spill(path, damaged);
    EXPECT_THROW(Dataset(set_.string(), 8, true), std::runtime_error) << position << ": " << damaged[position];
  }
}

// What is left when the checksum agrees with the damage: HDF5's own checksum of the tokens.
TEST_F(ShardBadInput, FlippedTokenFailsFletcher32WhereTheManifestAgrees) {
  std::string bytes = test::slurp(shard_);
  std::string token_bytes;
  for (int i = 0; i < 16; ++i) token_bytes += std::string("\x07\x00", 2);
  const std::size_t at = bytes.find(token_bytes);
  ASSERT_NE(at, std::string::npos);
  bytes[at + 4] ^= 1;
  test::spill(shard_, bytes);
  test::reseal(set_);
  const Dataset dataset(set_.string(), 8, true);
  std::vector<std::int32_t> inputs(8), targets(8), starts(8);
  expect_refused([&] { dataset.read(0, inputs, targets, starts); }, {"shard-00000.h5", "tokens", "Fletcher32"});
}

TEST_F(ShardBadInput, TruncatedFile) {
  const std::string whole = test::slurp(shard_);
  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, whole.size() / 2, whole.size() - 1}) {
    test::spill(shard_, std::string_view(whole).substr(0, size));
    expect_open_refused({"shard-00000.h5", "SHA-256"});
    test::reseal(set_);  // and HDF5 refuses it too
    if (size < whole.size() / 2 + 1) expect_open_refused({"shard-00000.h5", "cannot open the HDF5 file"});
  }
}

TEST_F(ShardBadInput, MissingShard) {
  std::filesystem::remove(shard_);
  expect_open_refused({"shard-00000.h5", "missing"});
}

TEST_F(ShardBadInput, ShardThatIsADirectory) {
  std::filesystem::remove(shard_);
  std::filesystem::create_directory(shard_);
  expect_open_refused({"shard-00000.h5"});
}

TEST_F(ShardBadInput, NotHdf5) {
  test::spill(shard_, "plain text");
  test::reseal(set_);
  expect_open_refused({"shard-00000.h5", "cannot open the HDF5 file", "file signature not found"});
}

TEST_F(ShardBadInput, ExternalLink) {
  std::filesystem::copy_file(shard_, scratch_ / "other.h5");
  tamper(set_, [&](hid_t file) {
    ASSERT_GE(H5Ldelete(file, "tokens", H5P_DEFAULT), 0);
    const std::filesystem::path other = scratch_ / "other.h5";
    ASSERT_GE(H5Lcreate_external(other.c_str(), "/tokens", file, "tokens", H5P_DEFAULT, H5P_DEFAULT), 0);
  });
  expect_open_refused({"shard-00000.h5", "'tokens'", "link"});
}

TEST_F(ShardBadInput, SoftLink) {
  tamper(set_, [](hid_t file) {
    ASSERT_GE(H5Lmove(file, "tokens", file, "kept", H5P_DEFAULT, H5P_DEFAULT), 0);
    ASSERT_GE(H5Lcreate_soft("/kept", file, "tokens", H5P_DEFAULT, H5P_DEFAULT), 0);
  });
  expect_open_refused({"shard-00000.h5", "'tokens'", "link"});
}

TEST_F(ShardBadInput, ExternalStorage) {
  tamper(set_, [](hid_t file) {
    ASSERT_GE(H5Ldelete(file, "tokens", H5P_DEFAULT), 0);
    const hsize_t extent = 160;
    const hid_t space = H5Screate_simple(1, &extent, nullptr), list = H5Pcreate(H5P_DATASET_CREATE);
    ASSERT_GE(H5Pset_external(list, "/etc/passwd", 0, 320), 0);
    const hid_t column = H5Dcreate2(file, "tokens", H5T_STD_U16LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    ASSERT_GE(column, 0);
    H5Dclose(column);
    H5Pclose(list);
    H5Sclose(space);
  });
  expect_open_refused({"shard-00000.h5", "'tokens'", "another file"});
}

TEST_F(ShardBadInput, VirtualDataset) {
  std::filesystem::copy_file(shard_, scratch_ / "other.h5");
  tamper(set_, [&](hid_t file) {
    ASSERT_GE(H5Ldelete(file, "tokens", H5P_DEFAULT), 0);
    const hsize_t extent = 160;
    const hid_t space = H5Screate_simple(1, &extent, nullptr), list = H5Pcreate(H5P_DATASET_CREATE);
    ASSERT_GE(H5Pset_virtual(list, space, (scratch_ / "other.h5").c_str(), "/tokens", space), 0);
    const hid_t column = H5Dcreate2(file, "tokens", H5T_STD_U16LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    ASSERT_GE(column, 0);
    H5Dclose(column);
    H5Pclose(list);
    H5Sclose(space);
  });
  expect_open_refused({"shard-00000.h5", "'tokens'", "virtual"});
}

TEST_F(ShardBadInput, FilterOutsideTheList) {
  tamper(set_, [](hid_t file) {
    ASSERT_GE(H5Ldelete(file, "tokens", H5P_DEFAULT), 0);
    const hsize_t extent = 160, chunk = 160;
    const hid_t space = H5Screate_simple(1, &extent, nullptr), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, 1, &chunk);
    ASSERT_GE(H5Pset_nbit(list), 0);
    const hid_t column = H5Dcreate2(file, "tokens", H5T_STD_U16LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    ASSERT_GE(column, 0);
    const std::vector<std::uint16_t> values(160, 7);
    ASSERT_GE(H5Dwrite(column, H5T_NATIVE_UINT16, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
    H5Dclose(column);
    H5Pclose(list);
    H5Sclose(space);
  });
  expect_open_refused({"shard-00000.h5", "'tokens'", "filter"});
}

// A file of a few bytes that declares a terabyte of tokens.
TEST_F(ShardBadInput, DeclaredSizeThatWasNeverWritten) {
  tamper(set_, [](hid_t file) {
    const hid_t column = H5Dopen2(file, "tokens", H5P_DEFAULT);
    const hsize_t extent = hsize_t{1} << 39;
    ASSERT_GE(H5Dset_extent(column, &extent), 0);
    H5Dclose(column);
  });
  expect_open_refused({"shard-00000.h5", "'tokens'", "chunks stored"});
}

// Deflate over deflate over deflate: a few KB that were written, and would be 256 MiB of offsets.
TEST_F(ShardBadInput, ColumnsLargerThanDeflateCanMakeThem) {
  const hsize_t entries = 1 << 25, chunk = 1 << 22;
  Manifest manifest = read_manifest(set_);
  manifest.shards[0].documents = static_cast<std::int64_t>(entries) - 1;
  write_manifest(set_, manifest);
  const auto bytes_before = std::filesystem::file_size(shard_);
  tamper(set_, [&](hid_t file) {
    ASSERT_GE(H5Ldelete(file, "document_offsets", H5P_DEFAULT), 0);
    const hid_t space = H5Screate_simple(1, &entries, nullptr), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, 1, &chunk);
    for (int i = 0; i < 3; ++i) ASSERT_GE(H5Pset_deflate(list, 1), 0);
    H5Pset_alloc_time(list, H5D_ALLOC_TIME_EARLY);  // every chunk is written, with zeros
    const hid_t column = H5Dcreate2(file, "document_offsets", H5T_STD_U64LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    ASSERT_GE(column, 0);
    H5Dclose(column);
    H5Pclose(list);
    H5Sclose(space);
  });
  ASSERT_LT(std::filesystem::file_size(shard_), bytes_before + 16'000);
  expect_open_refused({"shard-00000.h5", "'document_offsets'", "33554432 entries", "1032 times the file's size"});
}

TEST_F(ShardBadInput, GroupInPlaceOfADataset) {
  tamper(set_, [](hid_t file) {
    ASSERT_GE(H5Ldelete(file, "tokens", H5P_DEFAULT), 0);
    H5Gclose(H5Gcreate2(file, "tokens", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  });
  expect_open_refused({"shard-00000.h5", "'tokens'", "not a dataset"});
}

TEST_F(ShardBadInput, MissingDatasets) {
  tamper(set_, [](hid_t file) { ASSERT_GE(H5Ldelete(file, "document_offsets", H5P_DEFAULT), 0); });
  expect_open_refused({"shard-00000.h5", "document_offsets", "doesn't exist"});
  tamper(set_, [](hid_t file) { ASSERT_GE(H5Ldelete(file, "tokens", H5P_DEFAULT), 0); });
  expect_open_refused({"shard-00000.h5", "tokens", "doesn't exist"});
}

TEST_F(ShardBadInput, MissingAttribute) {
  tamper(set_, [](hid_t file) { ASSERT_GE(H5Adelete(file, "vocab_size"), 0); });
  expect_open_refused({"shard-00000.h5", "vocab_size"});
}

TEST_F(ShardBadInput, WrongTypesAndShapes) {
  tamper(set_, [](hid_t file) {
    test::replace_column(file, "tokens", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, std::vector<float>(160, 7.0f));
  });
  expect_open_refused({"shard-00000.h5", "'tokens'", "another type", "u16 or u32"});
  tamper(set_, [](hid_t file) {
    test::replace_column(file, "tokens", H5T_STD_I32LE, H5T_NATIVE_INT32, std::vector<std::int32_t>(160, 7));
  });
  expect_open_refused({"shard-00000.h5", "'tokens'", "another type"});
  tamper(set_, [](hid_t file) {
    ASSERT_GE(H5Ldelete(file, "tokens", H5P_DEFAULT), 0);
    const hsize_t extent[2] = {16, 10}, chunk[2] = {16, 10};
    const hid_t space = H5Screate_simple(2, extent, nullptr), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, 2, chunk);
    H5Dclose(H5Dcreate2(file, "tokens", H5T_STD_U16LE, space, H5P_DEFAULT, list, H5P_DEFAULT));
    H5Pclose(list);
    H5Sclose(space);
  });
  expect_open_refused({"shard-00000.h5", "'tokens'", "2 dimensions"});
  tamper(set_, [](hid_t file) {
    ASSERT_GE(H5Ldelete(file, "tokens", H5P_DEFAULT), 0);
    const hsize_t extent = 160;
    const hid_t space = H5Screate_simple(1, &extent, nullptr);
    H5Dclose(H5Dcreate2(file, "tokens", H5T_STD_U16LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(space);
  });
  expect_open_refused({"shard-00000.h5", "'tokens'", "chunk"});
}

TEST_F(ShardBadInput, OtherNumberOfTokens) {
  tamper(set_, [](hid_t file) {
    test::replace_column(file, "tokens", H5T_STD_U16LE, H5T_NATIVE_UINT16, std::vector<std::uint16_t>(159, 7));
  });
  expect_open_refused({"shard-00000.h5", "tokens", "159", "160"});
}

TEST_F(ShardBadInput, LossMaskOfAnotherLength) {
  tamper(set_, [](hid_t file) {
    test::replace_column(file, "loss_mask", H5T_STD_U8LE, H5T_NATIVE_UINT8, std::vector<std::uint8_t>(159, 1));
  });
  expect_open_refused({"shard-00000.h5", "'loss_mask'", "159", "160"});
}

TEST_F(ShardBadInput, DocumentOffsetsOutOfOrder) {
  const auto with_offsets = [&](const std::vector<std::uint64_t>& offsets) {
    tamper(set_, [&](hid_t file) {
      test::replace_column(file, "document_offsets", H5T_STD_U64LE, H5T_NATIVE_UINT64, offsets);
    });
  };
  with_offsets({0, 16, 48, 32, 64, 80, 96, 112, 128, 144, 160});
  expect_open_refused({"shard-00000.h5", "falls from 48 to 32 at row 3"});
  with_offsets({0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 161});
  expect_open_refused({"shard-00000.h5", "document_offsets", "161", "160"});
  with_offsets({1, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160});
  expect_open_refused({"shard-00000.h5", "document_offsets", "from 1"});
  with_offsets({0, 160});
  expect_open_refused({"shard-00000.h5", "documents", "is 1", "10"});
  with_offsets({0, 16, 32, 48, 64, 80, 96, 112, 128, std::uint64_t{1} << 63, 160});
  expect_open_refused({"shard-00000.h5", "falls from 9223372036854775808"});
}

// Shards of another program: the checksums are right, an id is not. Row and value are named, and no sample that
// holds it gets through; the others do.
TEST_F(ShardBadInput, TokenIdOutsideTheVocabulary) {
  for (const std::uint32_t id : {300u, 65535u, 0x7fffffffu, 0xffffffffu}) {
    tamper(set_, [&](hid_t file) {
      std::vector<std::uint32_t> ids(160, 7);
      ids[42] = id;
      test::replace_column(file, "tokens", H5T_STD_U32LE, H5T_NATIVE_UINT32, ids);
    });
    const Dataset dataset(set_.string(), 8, true);
    std::vector<std::int32_t> inputs(8), targets(8), starts(8);
    EXPECT_NO_THROW(dataset.read(4, inputs, targets, starts));
    expect_refused([&] { dataset.read(5, inputs, targets, starts); },
                   {"shard-00000.h5", "row 42 is " + std::to_string(id), "300"});
  }
}

TEST(ShardWriterBadInput, TokenIdsOutsideTheVocabulary) {
  const ScratchDir scratch;
  ShardWriter writer(scratch / "set", test::corpus_info());
  writer.add_document(std::vector<std::int32_t>{0, 299});
  using Limits = std::numeric_limits<std::int32_t>;
  for (const std::int32_t id : {-1, 300, Limits::max(), Limits::min()})
    expect_refused(
        [&] {
          writer.add_document(std::vector<std::int32_t>{5, 6, id});
        },
        {"document", "position 2", std::to_string(id), "300"});
  expect_refused([&] { writer.add_document(std::vector<std::int32_t>{300}); }, {"document 6"});
  EXPECT_EQ(writer.finish().tokens, 2);  // the refused ones left no trace
  ShardWriter pieces(scratch / "pieces", test::corpus_info());
  pieces.append(std::vector<std::int32_t>{0, 299});
  expect_refused([&] { pieces.append(std::vector<std::int32_t>{1, 300}); }, {"document 1", "position 3", "300"});
}

TEST(ShardWriterBadInput, NoTokens) {
  const ScratchDir scratch;
  {
    ShardWriter writer(scratch / "set", test::corpus_info());
    writer.add_document({});
    expect_refused([&] { writer.finish(); }, {"set", "no tokens"});
  }
  EXPECT_FALSE(std::filesystem::exists(scratch / "set"));
}

TEST(ShardWriterBadInput, DirectoryThatHoldsShards) {
  const ScratchDir scratch;
  test::write_corpus(scratch / "set", {{{5, 6, 7}}, {}}, test::corpus_info());
  expect_refused([&] { ShardWriter(scratch / "set", test::corpus_info()); },
                 {"manifest.json", "Choose another directory"});
  EXPECT_EQ(Dataset(scratch / "set", 2, true).tokens(), 3);
}

TEST(ShardWriterBadInput, DirectoryThatIsAFile) {
  const ScratchDir scratch;
  test::spill(scratch / "set", "a file");
  expect_refused([&] { ShardWriter(scratch / "set", test::corpus_info()); }, {"set"});
  EXPECT_EQ(test::slurp(scratch / "set"), "a file");
}

TEST(ShardWriterBadInput, InfoOutOfRange) {
  const ScratchDir scratch;
  const auto refused = [&](auto change, std::initializer_list<std::string_view> pieces) {
    ShardSetInfo info = test::corpus_info();
    change(info);
    expect_refused([&] { ShardWriter(scratch / "set", info); }, pieces);
  };
  refused([](ShardSetInfo& info) { info.vocab_size = 0; }, {"vocab_size", "0"});
  refused([](ShardSetInfo& info) { info.vocab_size = std::int64_t{1} << 31; }, {"vocab_size", "2147483648"});
  refused([](ShardSetInfo& info) { info.bos = 300; }, {"bos", "300"});
  refused([](ShardSetInfo& info) { info.eos = -2; }, {"eos", "-2"});
  refused([](ShardSetInfo& info) { info.tokenizer_sha256 = "abc"; }, {"tokenizer_sha256"});
  refused([](ShardSetInfo& info) { info.source = "\xff\xfe"; }, {"source", "UTF-8"});
  refused([](ShardSetInfo& info) { info.tokenizer_name = std::string(5000, 'a'); }, {"tokenizer_name"});
  expect_refused([&] { ShardWriter(scratch / "set", test::corpus_info(), 0); }, {"shard of 0 tokens"});
  EXPECT_EQ(scratch.entries(), 0u);
}

// A limit on the size of files stands in for a full disk: both fail the write that would cross it.
TEST(ShardWriterBadInput, DiskFull) {
  const ScratchDir scratch;
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  {
    ShardWriter writer(scratch / "set", test::corpus_info());
    const rlimit small{1 << 20, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    expect_refused(
        [&] {
          for (int i = 0; i < 100; ++i) writer.add_document(std::vector<std::int32_t>(100'000, 7));
          writer.finish();
        },
        {(scratch / "set").string(), "cannot write", "File too large"});
    EXPECT_THROW(writer.finish(), std::logic_error);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  }
  std::signal(SIGXFSZ, old_handler);
  EXPECT_FALSE(std::filesystem::exists(scratch / "set"));
}

}  // namespace
}  // namespace smoe
