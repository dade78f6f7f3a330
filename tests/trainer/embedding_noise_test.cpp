// NEFTune: how much noise each token gets, and what it does to whole runs.
#include "trainer/embedding_noise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "tests/trainer/training_fixture.h"

namespace smoe {
namespace {

std::vector<float> half_widths(const StepBatch& batch, double alpha, std::int64_t hidden_size) {
  std::vector<float> found(batch.ids.size());
  embedding_noise(batch, alpha, hidden_size, found);
  return found;
}

float half_width(double alpha, int length, int hidden_size) {
  return static_cast<float>(alpha / std::sqrt(static_cast<double>(length) * hidden_size));
}

TEST(EmbeddingNoise, IsOfTheSizeOfADocumentsPartOfTheSequence) {
  const std::vector<std::int32_t> ids(10, 3), start = {0, 0, 0, 3, 3, 0, 1, 1, 1, 1};
  const float three = half_width(5, 3, 16), two = half_width(5, 2, 16), one = half_width(5, 1, 16),
              four = half_width(5, 4, 16);
  EXPECT_EQ(half_widths({2, 5, ids, {}, start}, 5, 16),
            (std::vector<float>{three, three, three, two, two, one, four, four, four, four}));
}

TEST(EmbeddingNoise, OfAnExampleIsTheSameAloneAndPacked) {
  const std::vector<std::int32_t> ids(7, 3), alone = {0, 0, 0}, packed = {0, 0, 2, 2, 2, 5, 5};
  const std::vector<float> of_packed = half_widths({1, 7, ids, {}, packed}, 10, 8);
  EXPECT_EQ(half_widths({1, 3, std::span(ids).first(3), {}, alone}, 10, 8),
            std::vector<float>(of_packed.begin() + 2, of_packed.begin() + 5));
}

// Of one document that reaches from one sequence into the next each part is an example, and so is each sequence.
TEST(EmbeddingNoise, WithoutDocumentsIsOfTheSizeOfTheSequence) {
  const std::vector<std::int32_t> ids(8, 3), zeros(8, 0);
  const std::vector<float> expected(8, half_width(2, 4, 9));
  EXPECT_EQ(half_widths({2, 4, ids, {}, {}}, 2, 9), expected);
  EXPECT_EQ(half_widths({2, 4, ids, {}, zeros}, 2, 9), expected);
}

TEST(EmbeddingNoise, PaddingGetsNoneAndIsNoLength) {
  const std::vector<std::int32_t> ids = {3, 3, 3, -1, -1, -1}, start = {0, 0, 0, 3, 3, 3}, zeros(6, 0);
  const float three = half_width(5, 3, 4);
  const std::vector<float> expected = {three, three, three, 0, 0, 0};
  EXPECT_EQ(half_widths({1, 6, ids, {}, start}, 5, 4), expected);
  EXPECT_EQ(half_widths({1, 6, ids, {}, zeros}, 5, 4), expected);
}

class NoisyRuns : public TrainingTest {
 protected:
  TrainerConfig short_run(const std::string& output, double alpha) const {
    TrainerConfig c = config(output);
    c.train.steps = 4;
    c.checkpoint.interval = c.eval.interval = 2;
    c.log.interval = 1;
    c.schedule.type = ScheduleType::constant;
    c.train.neftune_alpha = alpha;
    return c;
  }
  double first_loss(const std::string& output) const { return metrics(output).steps.front().lm_loss; }
};

TEST_F(NoisyRuns, NoAlphaIsNoNoiseToTheBit) {
  run(short_run("without", 0));
  TrainerConfig plain = short_run("plain", 5);
  plain.train.neftune_alpha = TrainConfig().neftune_alpha;
  run(plain);
  EXPECT_EQ(results("without"), results("plain"));
  run(short_run("noisy", 5));
  EXPECT_NE(first_loss("noisy"), first_loss("without"));
  run(short_run("noisier", 10));
  EXPECT_NE(first_loss("noisier"), first_loss("noisy"));
}

TEST_F(NoisyRuns, EvaluationHasNone) {
  const auto eval_of = [&](double alpha) {
    TrainerConfig c = short_run(alpha > 0 ? "noisy" : "without", alpha);
    c.train.steps = c.eval.interval = 1;
    c.optimizer.learning_rate = 0;
    run(c);
    return metrics(c.train.output_dir.substr(c.train.output_dir.rfind('/') + 1)).evals.back().loss;
  };
  EXPECT_EQ(eval_of(20), eval_of(0));
  EXPECT_NE(first_loss("noisy"), first_loss("without"));
}

// Of the seed, and of the step: at weights that stay, each step of the same tokens draws anew.
TEST_F(NoisyRuns, DrawAnewForEachSeed) {
  const auto change_of = [&](std::int64_t seed, double alpha) {
    TrainerConfig c = short_run("seed-" + std::to_string(seed) + (alpha > 0 ? "-noisy" : ""), alpha);
    c.train.seed = seed;
    c.train.steps = 1;
    run(c);
    return metrics("seed-" + std::to_string(seed) + (alpha > 0 ? "-noisy" : "")).steps.front().lm_loss;
  };
  EXPECT_NE(change_of(1, 5) - change_of(1, 0), change_of(2, 5) - change_of(2, 0));
}

TEST_F(NoisyRuns, ResumeBitForBit) {
  const auto noisy = [&](const std::string& output) {
    TrainerConfig c = short_run(output, 5);
    c.train.label_smoothing = 0.1;
    c.router.jitter_noise = 0.1;
    return c;
  };
  run(noisy("at-once"));
  TrainerConfig half = noisy("halves");
  half.train.steps = 2;
  run(half);
  run(noisy("halves"));
  EXPECT_EQ(state_hash("halves", 4), state_hash("at-once", 4));
}

TEST_F(NoisyRuns, RecomputedLayersGiveTheSameBits) {
  run(short_run("kept", 5));
  TrainerConfig again = short_run("again", 5);
  again.train.recompute = Recompute::layer;
  run(again);
  EXPECT_EQ(state_hash("again", 4), state_hash("kept", 4));
}

}  // namespace
}  // namespace smoe
