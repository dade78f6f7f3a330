// A run that was interrupted and resumed is the uninterrupted run: every loss and every weight to the bit.
#include <csignal>
#include <chrono>
#include <fstream>
#include <thread>

#include "tests/trainer/training_fixture.h"

namespace smoe {
namespace {

using Resume = TrainingTest;

void expect_same_rows(const MetricsLog& a, const MetricsLog& b, std::int64_t from) {
  ASSERT_EQ(a.steps.size(), b.steps.size());
  for (std::size_t i = 0; i < a.steps.size(); ++i) {
    if (a.steps[i].step < from) continue;
    EXPECT_EQ(a.steps[i].step, b.steps[i].step);
    EXPECT_EQ(a.steps[i].lm_loss, b.steps[i].lm_loss) << "step " << a.steps[i].step;
    EXPECT_EQ(a.steps[i].aux_loss, b.steps[i].aux_loss);
    EXPECT_EQ(a.steps[i].grad_norm, b.steps[i].grad_norm);
    EXPECT_EQ(a.steps[i].tokens, b.steps[i].tokens);
    EXPECT_EQ(a.steps[i].expert_load, b.steps[i].expert_load);
  }
  ASSERT_EQ(a.evals.size(), b.evals.size());
  for (std::size_t i = 0; i < a.evals.size(); ++i) EXPECT_EQ(a.evals[i].loss, b.evals[i].loss);
}

TEST_F(Resume, TwentyStepsEqualTenAndTenAcrossEpochsAndSources) {
  ASSERT_EQ(train(config("whole")), 0);
  const auto rows = metrics("whole");
  ASSERT_EQ(rows.steps.size(), 20u);
  EXPECT_LT(rows.steps.back().lm_loss, rows.steps.front().lm_loss)
      << "the run must learn something, or equal bits prove little";

  // The second source has fewer samples than it gives in ten steps: the resumed half begins in a later epoch.
  std::filesystem::copy(root() / "whole", root() / "halves", std::filesystem::copy_options::recursive);
  std::filesystem::remove_all(checkpoint("halves", 20));
  std::ofstream(root() / "halves" / "checkpoints" / "latest") << checkpoint_name(10) << "\n";
  ASSERT_EQ(train(config("halves")), 0);
  expect_same_rows(rows, metrics("halves"), 1);
  EXPECT_EQ(state_hash("whole", 20), state_hash("halves", 20));
}

TEST_F(Resume, FromAPathOfAnotherRun) {
  ASSERT_EQ(train(config("first")), 0);
  auto second = config("second");
  second.checkpoint.resume = checkpoint("first", 10).string();
  ASSERT_EQ(train(second), 0);
  EXPECT_EQ(metrics("second").steps.front().step, 11);
  EXPECT_EQ(state_hash("first", 20), state_hash("second", 20));
}

TEST_F(Resume, TwoRunsOfTheSameConfigurationAreEqual) {
  ASSERT_EQ(train(config("one")), 0);
  ASSERT_EQ(train(config("two")), 0);
  EXPECT_EQ(state_hash("one", 20), state_hash("two", 20));
  auto other = config("three");
  other.train.seed = 2;
  ASSERT_EQ(train(other), 0);
  EXPECT_NE(state_hash("one", 20), state_hash("three", 20));
}

TEST_F(Resume, RecomputedLayersGiveTheSameRun) {
  ASSERT_EQ(train(config("kept")), 0);
  auto again = config("again");
  again.train.recompute = Recompute::layer;
  ASSERT_EQ(train(again), 0);
  EXPECT_EQ(state_hash("kept", 20), state_hash("again", 20));
}

// Waits until the run has written the row of `step`.
void wait_for_step(const std::filesystem::path& metrics, int step) {
  const std::string row = "\"step\":" + std::to_string(step) + ",";
  for (int i = 0; i < 20000; ++i) {
    std::ifstream file(metrics);
    const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (text.find(row) != std::string::npos) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

TEST_F(Resume, ASignalSavesAtTheStepBoundaryAndTheRunGoesOnToTheSameBits) {
  ASSERT_EQ(train(config("whole")), 0);
  for (int signal : {SIGTERM, SIGUSR1}) {
    const std::string output = signal == SIGTERM ? "term" : "usr1";
    const auto c = config(output);
    for (int stop_at : {3, 12}) {
      Trainer trainer = make_trainer(c);
      std::thread sender([&] {
        wait_for_step(root() / output / "metrics.jsonl", stop_at);
        ::kill(::getpid(), signal);
      });
      const RunEnd end = trainer.run().end;
      sender.join();
      EXPECT_EQ(end, RunEnd::stopped) << "the run was over before the signal was seen";
      const std::int64_t step = trainer.state().step;
      EXPECT_GE(step, stop_at);
      EXPECT_TRUE(std::filesystem::exists(checkpoint(output, step) / "manifest.json")) << "no step may be lost";
    }
    EXPECT_EQ(train(c), 0);
    EXPECT_EQ(state_hash("whole", 20), state_hash(output, 20));
  }
}

TEST_F(Resume, AFinishedRunHasNothingLeftToDo) {
  ASSERT_EQ(train(config("run")), 0);
  const auto before = state_hash("run", 20);
  const auto rows = metrics("run").steps.size();
  ASSERT_EQ(train(config("run")), 0);
  EXPECT_EQ(state_hash("run", 20), before);
  EXPECT_EQ(metrics("run").steps.size(), rows);
}

TEST_F(Resume, NeverStartsAfreshAndKeepsWhatWasThere) {
  ASSERT_EQ(train(config("run")), 0);
  const auto before = state_hash("run", 20);
  auto again = config("run");
  again.checkpoint.resume = "never";
  ASSERT_EQ(train(again), 0);
  EXPECT_EQ(state_hash("run", 20), before);
  EXPECT_TRUE(std::filesystem::exists(root() / "run" / "previous-1" / "checkpoints" / checkpoint_name(20)));
  EXPECT_EQ(metrics("run").steps.size(), 20u);
}

// A later checkpoint would otherwise count as the newest, and push those of the history that goes on out of `keep`.
TEST_F(Resume, GoingOnFromAnEarlierStepSetsTheLaterCheckpointsAside) {
  ASSERT_EQ(train(config("run")), 0);
  const auto before = state_hash("run", 20);
  auto again = config("run");
  again.checkpoint.resume = checkpoint("run", 10).string();
  again.train.steps = 15;  // which ends the schedule sooner: another history
  ASSERT_EQ(train(again), 0);
  const auto aside = root() / "run" / "previous-1";
  EXPECT_FALSE(std::filesystem::exists(checkpoint("run", 20)));
  EXPECT_TRUE(std::filesystem::exists(aside / "checkpoints" / checkpoint_name(20) / "manifest.json"));
  EXPECT_EQ(read_metrics(aside / "metrics.jsonl").steps.size(), 20u);
  EXPECT_EQ(metrics("run").steps.size(), 15u);
  EXPECT_EQ(latest_checkpoint(root() / "run" / "checkpoints"), checkpoint("run", 15));
  EXPECT_EQ(state_hash("run/previous-1", 20), before);
}

TEST_F(Resume, AKilledSaveIsIgnoredAndClearedAway) {
  ASSERT_EQ(train(config("run")), 0);
  const auto unfinished = root() / "run" / "checkpoints" / ".step-000030.unfinished";
  std::filesystem::create_directories(unfinished / "model");
  ASSERT_EQ(train(config("run")), 0);
  EXPECT_FALSE(std::filesystem::exists(unfinished));
}

}  // namespace
}  // namespace smoe
