// Corpora of more shards than a process may have files open.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "data/shards/dataset.h"
#include "data/shards/open_shards.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "tests/support/shards.h"

namespace smoe {
namespace {

using test::Corpus;
using test::expect_refused;
using test::ScratchDir;

// No more open files than that, for a while; those that are open stay.
class OpenFileLimit {
 public:
  explicit OpenFileLimit(rlim_t files) {
    ::getrlimit(RLIMIT_NOFILE, &old_);
    const rlimit limited{files, old_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &limited);
  }
  ~OpenFileLimit() { ::setrlimit(RLIMIT_NOFILE, &old_); }

 private:
  rlimit old_{};
};

// Every id of a corpus' samples, in order, then their targets.
std::vector<std::int32_t> all_samples(const Dataset& dataset) {
  std::vector<std::int32_t> all;
  const auto length = static_cast<std::size_t>(dataset.sequence_length());
  std::vector<std::int32_t> inputs(length), targets(length), starts(length);
  for (std::int64_t i = 0; i < dataset.samples(); ++i) {
    dataset.read(i, inputs, targets, starts);
    for (const auto* part : {&inputs, &targets, &starts}) all.insert(all.end(), part->begin(), part->end());
  }
  return all;
}

TEST(ManyShards, AreReadUnderALowLimitOnOpenFiles) {
  const ScratchDir scratch;
  const Corpus corpus = test::random_corpus(5, 300, 12, 300, true);
  test::write_corpus(scratch / "many", corpus, test::corpus_info(), 1);
  test::write_corpus(scratch / "one", corpus, test::corpus_info());
  ASSERT_EQ(read_manifest(scratch / "many").shards.size(), 300u);
  const std::vector<std::int32_t> expected = all_samples(Dataset(scratch / "one", 16, true));

  const OpenFileLimit limit(64);
  // The limit is one: with all shards held open there is no room.
  EXPECT_THROW(Dataset(scratch / "many", 16, true, {}, Tail::drop, std::make_shared<OpenShards>(1000)),
               std::runtime_error);
  const auto open = std::make_shared<OpenShards>();
  EXPECT_LE(open->most(), 8u);
  const Dataset many(scratch / "many", 16, true, {}, Tail::drop, open);
  EXPECT_EQ(all_samples(many), expected);
  EXPECT_LE(open->size(), open->most());
  // Two sources of a run share what may be open.
  const Dataset again(scratch / "many", 16, true, {}, Tail::drop, open);
  EXPECT_EQ(all_samples(again), expected);
  EXPECT_EQ(all_samples(many), expected);
  EXPECT_LE(open->size(), open->most());
}

TEST(ManyShards, AreReadFromSeveralThreadsWithOneFileOpen) {
  const ScratchDir scratch;
  const Corpus corpus = test::random_corpus(6, 40, 30, 300, true);
  test::write_corpus(scratch / "set", corpus, test::corpus_info(), 1);
  const auto open = std::make_shared<OpenShards>(1);
  const Dataset first(scratch / "set", 16, true, {}, Tail::drop, open),
      second(scratch / "set", 16, true, {}, Tail::drop, open);
  const std::vector<std::int32_t> expected = all_samples(first);
  std::vector<int> wrong(4, 0);
  {
    std::vector<std::jthread> threads;
    for (std::size_t k = 0; k < wrong.size(); ++k)
      threads.emplace_back([&, k] {
        for (int round = 0; round < 3; ++round) wrong[k] += all_samples(k % 2 == 0 ? first : second) != expected;
      });
  }
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
  EXPECT_EQ(open->size(), 1u);
}

// Corpora opened one after another, as those of several runs are.
class ShardsVerifiedOnce : public testing::Test {
 protected:
  void SetUp() override {
    test::write_corpus(scratch_ / "set", test::random_corpus(7, 24, 30, 300, false), test::corpus_info(), 60);
  }
  void open(std::int64_t sequence_length) const {
    Dataset(scratch_ / "set", sequence_length, true, {}, Tail::drop, open_);
  }
  std::int64_t files() const { return static_cast<std::int64_t>(read_manifest(scratch_ / "set").shards.size()); }

  ScratchDir scratch_;
  std::shared_ptr<OpenShards> open_ = std::make_shared<OpenShards>(2);
};

TEST_F(ShardsVerifiedOnce, AreHashedOnceThroughTheSameOpenShards) {
  ASSERT_GT(files(), 2);
  for (const std::int64_t sequence_length : {16, 16, 8}) {
    open(sequence_length);
    EXPECT_EQ(open_->files_hashed(), files());
  }
}

TEST_F(ShardsVerifiedOnce, AreHashedAgainWhereTheFileHasChanged) {
  open(16);
  const std::filesystem::path shard = scratch_ / "set" / "shard-00001.h5";
  std::filesystem::last_write_time(shard, std::filesystem::last_write_time(shard) + std::chrono::seconds(2));
  open(16);
  EXPECT_EQ(open_->files_hashed(), files() + 1);
  std::filesystem::resize_file(shard, std::filesystem::file_size(shard) + 1);
  EXPECT_THROW(open(16), std::runtime_error);
  EXPECT_THROW(open(16), std::runtime_error) << "what was refused is not verified";
}

// The same file, unchanged and still open, under a manifest that promises other content.
TEST_F(ShardsVerifiedOnce, AreHashedAgainWhereTheManifestSaysOtherwise) {
  open(16);
  Manifest manifest = read_manifest(scratch_ / "set");
  for (ShardEntry& entry : manifest.shards) entry.sha256 = std::string(64, '0');
  write_manifest(scratch_ / "set", manifest);
  EXPECT_THROW(open(16), std::runtime_error);
}

TEST_F(ShardsVerifiedOnce, DoNotVouchForACopy) {
  open(16);
  std::filesystem::copy(scratch_ / "set", scratch_ / "copy");
  Dataset(scratch_ / "copy", 16, true, {}, Tail::drop, open_);
  EXPECT_EQ(open_->files_hashed(), 2 * files());
}

class ShardOpenedAgain : public testing::Test {
 protected:
  void SetUp() override {
    test::write_corpus(scratch_ / "set", {{{1, 2, 3, 4, 5}, {6, 7, 8, 9}}, {}}, test::corpus_info(), 5);
  }

  // Sample 1 lies in the second shard, so that the first is closed.
  void read(std::int64_t sample) const {
    std::vector<std::int32_t> inputs(4), targets(4), starts(4);
    dataset_->read(sample, inputs, targets, starts);
  }
  void open() {
    dataset_.emplace(scratch_ / "set", 4, true, DatasetChecks{}, Tail::drop, std::make_shared<OpenShards>(1));
  }

  ScratchDir scratch_;
  std::filesystem::path shard_ = scratch_ / "set" / "shard-00000.h5";
  std::optional<Dataset> dataset_;
};

TEST_F(ShardOpenedAgain, HasItsSha256ComparedAgainWhereItHasChanged) {
  open();
  read(0);
  read(1);
  std::string bytes = test::slurp(shard_);
  bytes[bytes.size() / 2] ^= 1;
  std::filesystem::remove(shard_);
  test::spill(shard_, bytes);
  expect_refused([&] { read(0); }, {"shard-00000.h5", "damaged or was replaced", "SHA-256"});
}

TEST_F(ShardOpenedAgain, MayBeACopyOfTheSameContent) {
  open();
  read(0);
  read(1);
  const std::string bytes = test::slurp(shard_);
  std::filesystem::remove(shard_);
  test::spill(shard_, bytes);
  std::filesystem::last_write_time(shard_, std::filesystem::last_write_time(shard_) + std::chrono::hours(1));
  EXPECT_NO_THROW(read(0));
}

TEST_F(ShardOpenedAgain, IsMissedByName) {
  open();
  read(1);
  std::filesystem::remove(shard_);
  expect_refused([&] { read(0); }, {"shard-00000.h5", "No such file"});
}

}  // namespace
}  // namespace smoe
