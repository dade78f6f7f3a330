// Evaluation of all that a source has: every target once, whatever is left of the last sample.
#include "trainer/evaluate.h"

#include <cmath>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/shards.h"
#include "tests/trainer/training_fixture.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/corpus.h"
#include "trainer/inference.h"
#include "tests/support/message_of.h"

namespace smoe {
namespace {

class Evaluation : public TrainingTest {
 protected:
  void SetUp() override {
    auto c = config("run");
    c.train.steps = 2;
    ASSERT_EQ(train(c), 0);
    model_.emplace(find_model_directory(root() / "run"), mesh(), 64, make_cpu_backend(2));
  }

  std::string write(const std::string& name, const std::vector<std::vector<std::int32_t>>& documents,
                    std::uint8_t mask = 1) const {
    test::Corpus corpus{documents, {}};
    for (const auto& ids : documents) corpus.masks.emplace_back(ids.size(), mask);
    test::write_corpus(root() / name, corpus,
                       {.tokenizer_sha256 = {}, .tokenizer_name = "none", .vocab_size = 61, .source = name});
    return (root() / name).string();
  }
  EvalMetrics measure(const Dataset& dataset, std::int64_t sequences = 4, std::int64_t batches = 0) {
    return evaluate(model_->model(), model_->fresh_context(), dataset,
                    {.batches = batches, .sequences = sequences, .name = "source", .on_progress = {}}, 0);
  }
  static std::vector<std::int32_t> ids(std::size_t count, std::int32_t seed) {
    std::vector<std::int32_t> ids(count);
    for (std::size_t i = 0; i < count; ++i)
      ids[i] = static_cast<std::int32_t>((i * i * 7 + i * 3 + static_cast<std::size_t>(seed)) % 58 + 3);
    return ids;
  }

  std::optional<InferenceModel> model_;
};

TEST_F(Evaluation, CountsEveryTargetOnceWhateverTheLengthOfASample) {
  const std::string set = (root() / "held-out").string();
  const std::int64_t targets = Dataset(set, 1, true).tokens() - Dataset(set, 1, true).documents();
  for (const std::int64_t length : {9, 16, 33, 64}) {
    const Dataset dataset(set, length, true, {}, Tail::keep);
    ASSERT_GT(dataset.tail(), 0) << length;
    EXPECT_EQ(measure(dataset).tokens, targets) << length;
    EXPECT_LT(measure(Dataset(set, length, true)).tokens, targets) << length;
  }
}

TEST_F(Evaluation, OfASourceShorterThanASampleIsThatOfAShorterSample) {
  const std::string set = write("short", {ids(21, 1)});
  const EvalMetrics whole = measure(Dataset(set, 20, true)), tail = measure(Dataset(set, 64, true, {}, Tail::keep));
  EXPECT_EQ(tail, whole);
  EXPECT_EQ(tail.tokens, 20);
}

// 16 + 16 tokens in a batch of two, then a tail of 5: losses are means over targets, balance and load over tokens.
TEST_F(Evaluation, ATailCountsForItsTokens) {
  const auto all = ids(38, 2);
  const std::string set = write("all", {all}), end = write("end", {{all.begin() + 32, all.end()}});
  const EvalMetrics whole = measure(Dataset(set, 16, true, {}, Tail::keep)), full = measure(Dataset(set, 16, true)),
                    tail = measure(Dataset(end, 16, true, {}, Tail::keep));
  EXPECT_EQ(full.tokens, 32);
  EXPECT_EQ(tail.tokens, 5);
  EXPECT_EQ(whole.tokens, 37);
  EXPECT_NEAR(whole.loss, (32 * full.loss + 5 * tail.loss) / 37, 1e-12);
  EXPECT_NEAR(whole.aux_loss, (32 * full.aux_loss + 5 * tail.aux_loss) / 37, 1e-12);
  EXPECT_GT(std::abs(whole.aux_loss - (full.aux_loss + tail.aux_loss) / 2), 1e-4)
      << "the two balances are too close to tell";
  // A last batch of one sample after one of two.
  const EvalMetrics by_two = measure(Dataset(write("three", {ids(49, 3)}), 16, true), 2),
                    first = measure(Dataset(root() / "three", 16, true), 2, 1),
                    by_three = measure(Dataset(root() / "three", 16, true), 1);
  EXPECT_NEAR(by_two.loss, by_three.loss, 1e-6);
  EXPECT_GT(first.aux_loss, 0);
  EXPECT_EQ(measure(Dataset(root() / "three", 16, true, {}, Tail::keep), 2), by_two);
}

// Samples that hold no target have no loss: not one of 0, and no perplexity of 1.
TEST_F(Evaluation, WithoutATargetHasNoLoss) {
  std::vector<std::vector<std::int32_t>> documents(20, {5});
  documents.push_back(ids(30, 4));
  const Dataset dataset(write("late", documents), 8, true);
  const EvalMetrics first = measure(dataset, 2, 1);
  EXPECT_EQ(first.tokens, 0);
  EXPECT_TRUE(std::isnan(first.loss));
  EXPECT_TRUE(std::isnan(first.perplexity));
  EXPECT_NE(to_json_line(std::vector<EvalMetrics>{first}).find("\"perplexity\":null"), std::string::npos);
  EXPECT_GT(measure(dataset).tokens, 0);
}

TEST_F(Evaluation, SourcesThatCannotBeUsedDoNotKeepTheOthers) {
  write_tiny_corpus(root() / "other", "gamma", 4, 5, 61, "tokenizer-b");
  const std::vector<DataSource> wanted{{.path = (root() / "nowhere").string()},
                                       {.path = (root() / "held-out").string()},
                                       {.path = (root() / "other").string()},
                                       {.path = (root() / "b").string()},
                                       {.path = (root() / "held-out").string() + "/"}};
  const OpenedSources opened = open_usable_sources(wanted, 16, true, {.vocab_size = 61, .model_directory = {}});
  ASSERT_EQ(opened.sources.size(), 2u);
  EXPECT_EQ(opened.sources[0].name, "alpha");
  EXPECT_EQ(opened.sources[1].name, "beta");
  ASSERT_EQ(opened.refused.size(), 3u);
  EXPECT_TRUE(mentions(opened.refused[2].reason, {"held-out/ is there twice, also as " + wanted[1].path}));
  EXPECT_EQ(opened.refused[0].path, wanted[0].path);
  EXPECT_TRUE(mentions(opened.refused[0].reason, {"nowhere", "manifest.json"}));
  EXPECT_EQ(opened.refused[1].path, wanted[2].path);
  EXPECT_TRUE(mentions(opened.refused[1].reason, {"different tokenizers", "other"}));
}

TEST_F(Evaluation, TrainingRefusesASourceWithoutATarget) {
  write("column", std::vector<std::vector<std::int32_t>>(100, {5}));
  write("masked", {ids(100, 1)}, 0);
  for (const char* name : {"column", "masked"}) {
    auto c = config("refused");
    c.data.train = {{.path = (root() / name).string()}};
    EXPECT_TRUE(mentions(message_of([&] { train(c); }), {name, "no target"}));
    c = config("refused");
    c.data.eval = {{.path = (root() / name).string()}};
    EXPECT_TRUE(mentions(message_of([&] { train(c); }), {name, "no target"}));
    EXPECT_FALSE(std::filesystem::exists(root() / "refused"));
  }
}

}  // namespace
}  // namespace smoe
