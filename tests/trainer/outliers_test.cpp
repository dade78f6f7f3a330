// Steps that look odd: the measure, and runs that refuse them.
#include "trainer/outliers.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "data/files/files.h"
#include "data/files/tensor_directory.h"
#include "kernels/philox.h"
#include "optim/schedule.h"
#include "tests/trainer/training_fixture.h"

namespace smoe {
namespace {

double noise(std::uint64_t i) { return uniform_open(philox(11, i, 0)[0]) - 0.5; }  // in (-1/2, 1/2)

std::vector<double> level(std::size_t steps, double value) {
  std::vector<double> recent;
  for (std::size_t i = 0; i < steps; ++i) remember(value + 0.1 * noise(i), recent);
  return recent;
}

TEST(Outliers, AreFarAboveTheRecentSteps) {
  const auto recent = level(100, 3.0);
  EXPECT_GT(deviations_above(4.0, recent), 20);
  EXPECT_LT(deviations_above(3.05, recent), 3);
  EXPECT_LT(deviations_above(1.0, recent), 0) << "a loss that falls is none";
  const std::vector<double> two{1, 3};
  std::vector<double> alternating;
  for (int i = 0; i < 32; ++i) remember(two[static_cast<std::size_t>(i % 2)], alternating);
  EXPECT_DOUBLE_EQ(deviations_above(7, alternating), 5) << "mean 2, deviation 1";
}

TEST(Outliers, AreNotJudgedByFewSteps) {
  EXPECT_EQ(deviations_above(1e9, level(least_to_judge - 1, 3.0)), 0);
  EXPECT_GT(deviations_above(1e9, level(least_to_judge, 3.0)), 1e6);
  EXPECT_EQ(deviations_above(1e9, {}), 0);
}

TEST(Outliers, WhatIsNotFiniteIsNeitherRememberedNorJudged) {
  auto recent = level(64, 3.0);
  const auto before = recent;
  constexpr double infinity = std::numeric_limits<double>::infinity();
  for (const double x : {std::nan(""), infinity, -infinity}) {
    remember(x, recent);
    EXPECT_EQ(deviations_above(x, recent), 0);
  }
  EXPECT_EQ(recent, before);
}

TEST(Outliers, ALevelThatRisesSlowlyHasNone) {
  std::vector<double> recent;
  double most = 0;
  for (std::uint64_t i = 0; i < 4000; ++i) {
    const double value = 2 + 0.001 * static_cast<double>(i) + 0.05 * noise(i);
    most = std::max(most, deviations_above(value, recent));
    remember(value, recent);
  }
  EXPECT_GT(recent.back(), 5.5);
  EXPECT_LT(most, 3);
}

TEST(Outliers, RoundingIsNoneWhereAllAreEqual) {
  const std::vector<double> equal(64, 2.0), zero(64, 0.0);
  EXPECT_LT(deviations_above(2.0001, equal), 1);
  EXPECT_NEAR(deviations_above(2.02, equal), 10, 1e-9);
  EXPECT_EQ(deviations_above(1.0, zero), 0);
}

TEST(Outliers, TheWindowIsTheLastSteps) {
  std::vector<double> recent;
  for (int i = 0; i < 300; ++i) remember(i, recent);
  ASSERT_EQ(recent.size(), outlier_window);
  EXPECT_EQ(recent.front(), 300 - static_cast<double>(outlier_window));
  EXPECT_EQ(recent.back(), 299);
}

class OddSteps : public TrainingTest {
 protected:
  Trainer trainer_of(const TrainerConfig& c) const { return Trainer(assemble(c, mesh(), make_cpu_backend(1))); }
  RunSummary run(const TrainerConfig& c) const { return trainer_of(c).run(); }
  // 44 steps, of which those from `odd` to `last_odd` are noise.
  TrainerConfig spiky(const std::string& output, int odd, int last_odd) const {
    const std::filesystem::path data = root() / ("spike-" + std::to_string(odd) + "-" + std::to_string(last_odd));
    if (!std::filesystem::exists(data)) write_corpus_with_a_spike(data, 44, 8 * 16, odd, last_odd);
    TrainerConfig c = config(output);
    c.data.train = {{.path = data.string()}};
    c.data.eval.clear();
    c.data.shuffle = false;
    c.schedule.type = ScheduleType::constant;
    c.train.steps = 44;
    c.train.micro_batch_size = 8;
    c.train.outlier_deviations = 4;
    c.checkpoint.interval = 36;
    return c;
  }
  // How far the step before this checkpoint moved the last norm, which does not decay: the sum over its entries.
  double moved(const std::string& output, std::int64_t step) const {
    const auto before = numbers(output, step - 1, "model", norm), after = numbers(output, step, "model", norm);
    return std::transform_reduce(after.begin(), after.end(), before.begin(), 0.0, std::plus<>(), [](float a, float b) {
      return std::abs(static_cast<double>(a) - static_cast<double>(b));
    });
  }
  // The same by AdamW's formula, from the moments of the checkpoint, if that was this update.
  double adam_moves(const TrainerConfig& c, std::int64_t step, int update) const {
    const auto first = numbers("run", step, "optimizer", "exp_avg." + norm),
               second = numbers("run", step, "optimizer", "exp_avg_sq." + norm);
    const double rate = learning_rate(c.schedule, c.optimizer.learning_rate, step, c.train.steps);
    double sum = 0;
    for (std::size_t i = 0; i < first.size(); ++i) {
      const double mean = std::abs(static_cast<double>(first[i])) / (1 - std::pow(c.optimizer.beta1, update));
      sum +=
          rate * mean /
          (std::sqrt(static_cast<double>(second[i]) / (1 - std::pow(c.optimizer.beta2, update))) + c.optimizer.epsilon);
    }
    return sum;
  }
  std::vector<float> numbers(const std::string& output, std::int64_t step, const char* folder,
                             const std::string& name) const {
    const TensorDirectory files(checkpoint(output, step) / folder);
    std::vector<float> numbers(static_cast<std::size_t>(files.info(name).shape.front()));
    files.read_f32(name, numbers.data(), 0, static_cast<std::int64_t>(numbers.size()));
    return numbers;
  }
  const std::string norm = "model.norm.weight";
  std::string state_file(const std::string& output, std::int64_t step) const {
    return read_file(checkpoint(output, step) / "state.json", 1 << 20);
  }
};

TEST_F(OddSteps, ASpikeIsRefusedAndCountedAndTheRunGoesOn) {
  auto c = spiky("run", 40, 40);
  c.checkpoint.interval = 1;
  c.checkpoint.keep = 6;
  c.log.interval = 1000;  // a refused step has its row all the same
  const RunSummary summary = run(c);
  EXPECT_EQ(summary.end, RunEnd::complete);
  EXPECT_EQ(summary.state.skipped, 1);
  EXPECT_EQ(summary.state.updates, 43);
  EXPECT_EQ(state_hash("run", 39), state_hash("run", 40)) << "no weight and no moment changed";
  EXPECT_NE(state_hash("run", 40), state_hash("run", 41));
  EXPECT_NEAR(moved("run", 41), adam_moves(c, 41, 40), 5e-4 * moved("run", 41)) << "step 41 makes the 40th update";
  EXPECT_GT(std::abs(moved("run", 41) - adam_moves(c, 41, 41)), 1e-3 * moved("run", 41)) << "nothing is told apart";
  const auto rows = metrics("run").steps;
  const auto row = std::find_if(rows.begin(), rows.end(), [](const StepMetrics& r) { return r.step == 40; });
  ASSERT_NE(row, rows.end());
  EXPECT_EQ(row->skipped_steps, 1);
  EXPECT_GT(row->lm_loss, 2 * rows.back().lm_loss);
  EXPECT_TRUE(mentions(read_file(root() / "run" / "train.log", 1 << 20),
                       {"step 40 refused", "deviations above those of the last 39 steps"}));
}

TEST_F(OddSteps, AreTakenWhereNobodyAskedAndLeaveNoTraceInACheckpoint) {
  auto c = spiky("run", 40, 40);
  c.train.outlier_deviations.reset();
  EXPECT_EQ(run(c).state.skipped, 0);
  EXPECT_EQ(state_file("run", 44).find("recent"), std::string::npos);
}

TEST_F(OddSteps, AResumedRunDecidesAsTheUninterruptedOne) {
  const auto c = spiky("whole", 40, 40);
  const TrainingState whole = run(c).state;
  EXPECT_EQ(whole.skipped, 1);
  auto second = c;
  second.train.output_dir = (root() / "second").string();
  second.checkpoint.resume = checkpoint("whole", 36).string();
  EXPECT_EQ(run(second).state, whole);
  EXPECT_EQ(state_hash("second", 44), state_hash("whole", 44));
  EXPECT_EQ(state_file("second", 44), state_file("whole", 44));

  // Who asks no more keeps nothing: it would be of steps long ago when somebody asks again.
  auto no_more = second;
  no_more.train.output_dir = (root() / "no_more").string();
  no_more.train.outlier_deviations.reset();
  EXPECT_EQ(run(no_more).state.recent_losses.size(), 0u);

  // A checkpoint of a run that did not ask, as all earlier ones are, begins with nothing to hold a step against.
  auto unasked = c;
  unasked.train.output_dir = (root() / "unasked").string();
  unasked.train.steps = 36;
  unasked.train.outlier_deviations.reset();
  run(unasked);
  unasked.train.steps = 44;
  unasked.train.outlier_deviations = 4;
  const TrainingState after = run(unasked).state;
  EXPECT_EQ(after.skipped, 0);
  EXPECT_EQ(after.recent_losses.size(), 8u);
}

TEST_F(OddSteps, TheLossAloneOrTheNormAloneIsEnough) {
  auto c = spiky("run", 45, 45);
  c.train.steps = 36;
  EXPECT_EQ(run(c).state.skipped, 0);
  c.train.steps = 37;
  c.checkpoint.resume = checkpoint("run", 36).string();
  const auto skipped = [&](const std::string& output, std::vector<double> TrainingState::*lowered) {
    c.train.output_dir = (root() / output).string();
    RunParts parts = assemble(c, mesh(), make_cpu_backend(1));
    if (lowered) (parts.state.*lowered).assign(36, 1e-6);  // what comes lies far above
    return Trainer(std::move(parts)).run().state.skipped;
  };
  EXPECT_EQ(skipped("neither", nullptr), 0);
  EXPECT_EQ(skipped("loss", &TrainingState::recent_losses), 1);
  EXPECT_EQ(skipped("norm", &TrainingState::recent_grad_norms), 1);
}

TEST_F(OddSteps, TooManyInARowEndTheRun) {
  auto c = spiky("run", 39, 44);
  c.train.max_skipped_steps = 2;
  EXPECT_TRUE(mentions(message_of([&] { run(c); }),
                       {"2 steps in a row", "train.outlier_deviations", "update 38", "step-000036", "steps 39 to 40"}));
  c.checkpoint.interval = 39;
  for (int i = 0; i < 2; ++i)  // the second time from behind the first of them
    EXPECT_TRUE(
        mentions(message_of([&] { run(c); }), {"2 steps in a row", "update 38", "step-000039", "steps 39 to 40"}));
}

TEST_F(OddSteps, ANanDoesNotPoisonWhatStepsAreHeldAgainst) {
  auto c = spiky("run", 45, 45);
  c.train.steps = 36;
  const TrainingState before = run(c).state;
  ASSERT_EQ(before.recent_losses.size(), 36u);
  c.train.steps = 44;
  c.train.max_skipped_steps = 3;
  Trainer trainer = trainer_of(c);
  trainer.model().parameters().find("model.norm.weight")->value.f32()[0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(trainer.run(), std::runtime_error);
  EXPECT_EQ(trainer.state().skipped, 3);
  EXPECT_EQ(trainer.state().recent_losses, before.recent_losses);
  EXPECT_EQ(trainer.state().recent_grad_norms, before.recent_grad_norms);
}

}  // namespace
}  // namespace smoe
