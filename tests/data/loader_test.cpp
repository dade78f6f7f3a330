#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <thread>

#include "data/shards/loader.h"
#include "tests/data/allocation_counter.h"
#include "tests/data/shard_fixtures.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "tests/support/shards.h"

namespace smoe {
namespace {

using test::expect_refused;
using test::ScratchDir;

// Two sources of different length, the second in several shards.
class LoaderBatches : public testing::Test {
 protected:
  static constexpr std::int64_t length = 16, global_batch = 12;

  void SetUp() override {
    test::write_corpus(scratch_ / "a", test::random_corpus(1, 20, 60, 300, true), test::corpus_info());
    test::write_corpus(scratch_ / "b", test::random_corpus(2, 30, 60, 300, false), test::corpus_info(), 200);
    for (const char* name : {"a", "b"}) datasets_.push_back(std::make_shared<Dataset>(scratch_ / name, length, true));
  }

  Sampler sampler(bool shuffle = true) const {
    return Sampler({{datasets_[0]->samples(), 0.7}, {datasets_[1]->samples(), 0.3}}, 5, shuffle, global_batch);
  }

  // Batch of a step by the definition: the sampler's references, read one by one.
  Batch expected(std::int64_t step) const {
    Batch batch;
    batch.step = step;
    batch.sequences = global_batch;
    batch.sequence_length = length;
    std::vector<std::int32_t> ids(length), targets(length), starts(length);
    for (const SampleRef& ref : sampler().batch(step)) {
      datasets_[static_cast<std::size_t>(ref.source)]->read(ref.sample, ids, targets, starts);
      batch.ids.insert(batch.ids.end(), ids.begin(), ids.end());
      batch.targets.insert(batch.targets.end(), targets.begin(), targets.end());
      batch.document_start.insert(batch.document_start.end(), starts.begin(), starts.end());
    }
    return batch;
  }

  static void expect_equal(const Batch& found, const Batch& wanted) {
    EXPECT_EQ(found.step, wanted.step);
    EXPECT_EQ(found.sequences, wanted.sequences);
    EXPECT_EQ(found.sequence_length, wanted.sequence_length);
    EXPECT_EQ(found.ids, wanted.ids);
    EXPECT_EQ(found.targets, wanted.targets);
    EXPECT_EQ(found.document_start, wanted.document_start);
  }

  // Steps after which both sources have begun their third epoch.
  std::int64_t steps_past_two_epochs() const {
    const Sampler whole = sampler();
    const auto begun = [&](std::size_t source, std::int64_t drawn) {
      return static_cast<double>(drawn) >= 2.2 * static_cast<double>(datasets_[source]->samples());
    };
    std::array<std::int64_t, 2> drawn{};
    std::int64_t step = 0;
    while (!begun(0, drawn[0]) || !begun(1, drawn[1]))
      for (const SampleRef& ref : whole.batch(++step)) ++drawn[static_cast<std::size_t>(ref.source)];
    return step;
  }

  ScratchDir scratch_;
  std::vector<std::shared_ptr<const Dataset>> datasets_;
};

TEST_F(LoaderBatches, GivesTheSamplersBatchesInOrder) {
  Loader loader(datasets_, sampler(), 4, 0, 1, 1);
  for (std::int64_t step = 1; step <= steps_past_two_epochs(); ++step) expect_equal(loader.next(), expected(step));
}

// Micro-step by micro-step, the ranks' sequences in order are the global batch: so what is computed at once are the same
// sequences on any number of ranks that have equally many of them together.
TEST_F(LoaderBatches, RanksTogetherHaveTheGlobalBatchWhateverTheirNumber) {
  for (const auto& [ranks, micro] :
       {std::pair<std::int64_t, std::int64_t>{1, 4}, {2, 2}, {2, 3}, {3, 2}, {4, 1}, {4, 3}, {6, 1}, {12, 1}}) {
    std::vector<std::unique_ptr<Loader>> loaders;
    for (std::int64_t rank = 0; rank < ranks; ++rank)
      loaders.push_back(std::make_unique<Loader>(datasets_, sampler(), micro, rank, ranks, 1));
    for (std::int64_t step = 1; step <= 5; ++step) {
      std::vector<const Batch*> parts;
      for (const auto& loader : loaders) parts.push_back(&loader->next());
      Batch joined;
      joined.step = step;
      joined.sequence_length = length;
      for (std::int64_t first = 0; first < global_batch / ranks; first += micro)
        for (const Batch* part : parts) {
          EXPECT_EQ(part->sequences, global_batch / ranks);
          joined.sequences += micro;
          const auto append = [&](auto& to, const auto& from, std::int64_t width) {
            to.insert(to.end(), from.begin() + first * width, from.begin() + (first + micro) * width);
          };
          append(joined.ids, part->ids, length);
          append(joined.targets, part->targets, length);
          append(joined.document_start, part->document_start, length);
        }
      expect_equal(joined, expected(step));
    }
  }
}

// From whatever step a run is resumed, epoch boundaries of both sources included, it reads what it would have read.
TEST_F(LoaderBatches, ResumeAtAnyStepContinuesTheStream) {
  const std::int64_t last = steps_past_two_epochs();
  for (std::int64_t first = 1; first <= last; ++first) {
    Loader resumed(datasets_, sampler(), 4, 0, 1, first);
    expect_equal(resumed.next(), expected(first));
    expect_equal(resumed.next(), expected(first + 1));
  }
}

TEST_F(LoaderBatches, AnyDepthOfReadingAheadGivesTheSame) {
  for (const std::int64_t prefetch : {1, 2, 7}) {
    Loader loader(datasets_, sampler(), 4, 0, 1, 1, prefetch);
    for (std::int64_t step = 1; step <= 10; ++step) expect_equal(loader.next(), expected(step));
  }
}

TEST_F(LoaderBatches, BatchStaysValidUntilTheNextCall) {
  Loader loader(datasets_, sampler(), 4, 0, 1, 1, 1);
  const Batch& batch = loader.next();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // time to overwrite it, were that possible
  expect_equal(batch, expected(1));
}

TEST_F(LoaderBatches, AllocatesNothingOnceWarm) {
  Loader loader(datasets_, sampler(), 4, 0, 1, 1);
  for (int i = 0; i < 5; ++i) loader.next();
  const std::int64_t before = test::allocations();
  for (int i = 0; i < 50; ++i) loader.next();
  EXPECT_EQ(test::allocations(), before);
}

TEST_F(LoaderBatches, EndsPromptlyWithOrWithoutBatchesTaken) {
  for (int taken = 0; taken < 4; ++taken) {
    Loader loader(datasets_, sampler(), 4, 0, 1, 1, 3);
    for (int i = 0; i < taken; ++i) loader.next();
  }
}

TEST_F(LoaderBatches, ArgumentsThatDoNotFitAreLogicErrors) {
  const auto refused = [&](auto datasets, Sampler with, std::int64_t rank, std::int64_t ranks, std::int64_t first,
                           std::int64_t prefetch, std::int64_t micro_batch_size = 1) {
    EXPECT_THROW(Loader(datasets, with, micro_batch_size, rank, ranks, first, prefetch), std::logic_error);
  };
  refused(datasets_, sampler(), 0, 3, 1, 2, 3);  // 12 sequences over 3 ranks of 3 at once
  refused(datasets_, sampler(), 0, 1, 1, 2, 0);
  refused(datasets_, sampler(), 0, 5, 1, 2);  // 12 sequences over 5 ranks
  refused(datasets_, sampler(), 2, 2, 1, 2);
  refused(datasets_, sampler(), -1, 2, 1, 2);
  refused(datasets_, sampler(), 0, 0, 1, 2);
  refused(datasets_, sampler(), 0, 1, 0, 2);
  refused(datasets_, sampler(), 0, 1, 1, 0);
  refused(std::vector<std::shared_ptr<const Dataset>>{datasets_[0]}, sampler(), 0, 1, 1, 2);
  refused(std::vector<std::shared_ptr<const Dataset>>{datasets_[1], datasets_[0]}, sampler(), 0, 1, 1, 2);
  auto other_length = datasets_;
  other_length[1] = std::make_shared<Dataset>(scratch_ / "b", 8, true);
  const Sampler fitting({{datasets_[0]->samples(), 1}, {other_length[1]->samples(), 1}}, 5, true, global_batch);
  refused(other_length, fitting, 0, 1, 1, 2);
}

// The bad token is in sample 2 of a stream read in order: the batches before it arrive, then every call says why not.
TEST(LoaderBadInput, ErrorsOfTheThreadArriveWithTheirBatch) {
  const ScratchDir scratch;
  test::write_corpus(scratch / "set", {{std::vector<std::int32_t>(65, 7)}, {}}, test::corpus_info());
  test::tamper(scratch / "set", [](hid_t file) {
    std::vector<std::uint16_t> ids(65, 7);
    ids[40] = 300;
    test::replace_column(file, "tokens", H5T_STD_U16LE, H5T_NATIVE_UINT16, ids);
  });
  const auto dataset = std::make_shared<Dataset>(scratch / "set", 16, true);
  Loader loader({dataset}, Sampler({{dataset->samples(), 1.0}}, 1, false, 1), 1, 0, 1, 1, 3);
  EXPECT_EQ(loader.next().step, 1);
  EXPECT_EQ(loader.next().step, 2);
  for (int i = 0; i < 3; ++i) expect_refused([&] { loader.next(); }, {"shard-00000.h5", "row 40 is 300"});
}

}  // namespace
}  // namespace smoe
