// Runs whose experts are forced on tokens: loads are what was asked for, and everything that such a run leaves says so.
#include <gtest/gtest.h>

#include <string>

#include "tests/trainer/training_fixture.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/record/report.h"

namespace smoe {
namespace {

class ForcedRuns : public TrainingTest {
 protected:
  TrainerConfig forced(const std::string& output, const ForcedRouting& how) const {
    TrainerConfig c = config(output);
    c.train.steps = 4;
    c.checkpoint.interval = c.eval.interval = 2;
    c.router.forced_routing = how;
    c.log.tensorboard = true;
    return c;
  }
  static constexpr ForcedRouting uniform{ForcedRoutingType::uniform, {}};
  std::string mark_of(const std::string& output, std::int64_t step) const {
    return read_hf_config(checkpoint(output, step) / "model").forced_routing;
  }
};

TEST_F(ForcedRuns, UniformIsBalancedToTheTokenAndStillTrains) {
  TrainerConfig c = forced("run", uniform);
  c.train.steps = 20;
  run(c);
  const MetricsLog log = metrics("run");
  for (const StepMetrics& row : log.steps) {
    EXPECT_EQ(row.max_vio, 0);
    for (const auto& layer : row.expert_load) EXPECT_EQ(layer, std::vector<double>(4, 0.25));
    for (const double norm : row.by_layer.gradient_lm) EXPECT_GT(norm, 0);
    for (const double margin : row.by_layer.margin) EXPECT_LT(margin, 0) << "in what the routers would have chosen by";
  }
  EXPECT_LT(log.steps.back().lm_loss, log.steps.front().lm_loss);
  EXPECT_GT(log.evals.back().max_vio, 0) << "evaluation is the routers' own";
}

TEST_F(ForcedRuns, SkewedHasItsMaxVioOnTheFirstExpert) {
  TrainerConfig c = forced("run", {ForcedRoutingType::skewed, 0.75});
  c.train.micro_batch_size = 2;  // accumulated, which changes no token's expert
  run(c);
  for (const StepMetrics& row : metrics("run").steps)
    for (const auto& layer : row.expert_load) {
      EXPECT_NEAR(layer[0], 1.75 / 4, 0.005);
      EXPECT_GT(layer[1], layer[2]);
      EXPECT_GT(layer[2], layer[3]);
    }
}

TEST_F(ForcedRuns, EverythingTheyLeaveSaysSo) {
  run(forced("run", {ForcedRoutingType::skewed, 0.5}));
  const std::string how = "skewed, MaxVio 0.5";
  for (const StepMetrics& row : metrics("run").steps) EXPECT_EQ(row.forced_routing, how);
  EXPECT_NE(log_of("run").find("warning: routing is forced (" + how + ")"), std::string::npos) << log_of("run");
  EXPECT_EQ(mark_of("run", 4), how);
  bool in_tensorboard = false;
  for (const auto& file : std::filesystem::directory_iterator(root() / "run" / "tensorboard"))
    in_tensorboard = in_tensorboard || test::slurp(file.path()).find("forced_routing/" + how) != std::string::npos;
  EXPECT_TRUE(in_tensorboard);
  EXPECT_NE(render_report({root() / "run"}).find("\"forced_routing\":\"" + how + "\""), std::string::npos);

  run(forced("plain", {}));
  for (const StepMetrics& row : metrics("plain").steps) EXPECT_EQ(row.forced_routing, "");
  EXPECT_EQ(log_of("plain").find("forced"), std::string::npos);
  EXPECT_EQ(mark_of("plain", 4), "");
  EXPECT_EQ(test::slurp(root() / "plain" / "metrics.jsonl").find("forced"), std::string::npos);
}

TEST_F(ForcedRuns, WhatIsTrainedOnFromThemKeepsTheMark) {
  run(forced("run", uniform));
  TrainerConfig on = forced("run", {});
  on.train.steps = 6;
  run(on);
  EXPECT_NE(log_of("run").find("warning: the checkpoint is of a benchmark, in which routing was forced (uniform)"),
            std::string::npos);
  EXPECT_EQ(metrics("run").steps.back().forced_routing, "");
  EXPECT_EQ(mark_of("run", 6), "uniform");

  TrainerConfig from = forced("tuned", {});
  from.model = {};
  from.model.from = (checkpoint("run", 6) / "model").string();
  run(from);
  EXPECT_NE(log_of("tuned").find("forced_routing is \"uniform\": these weights come from a benchmark"),
            std::string::npos)
      << log_of("tuned");
  EXPECT_EQ(mark_of("tuned", 4), "uniform");
}

TEST_F(ForcedRuns, EveryWayIsKeptAndOneThatTrainedNothingIsNone) {
  run(forced("run", {ForcedRoutingType::skewed, 0.5}));
  TrainerConfig on = forced("run", uniform);
  on.train.steps = 6;
  run(on);
  EXPECT_EQ(mark_of("run", 6), "skewed, MaxVio 0.5; uniform");
  TrainerConfig none = forced("none", uniform);
  none.train.steps = 0;
  run(none);
  EXPECT_EQ(mark_of("none", 0), "");
}

TEST_F(ForcedRuns, AreTheSameWithRecomputationAndResumed) {
  run(forced("whole", uniform));
  TrainerConfig again = forced("recomputed", uniform);
  again.train.recompute = Recompute::layer;
  run(again);
  EXPECT_EQ(state_hash("whole", 4), state_hash("recomputed", 4));
  TrainerConfig half = forced("halves", uniform);
  half.train.steps = 2;
  half.schedule.type = ScheduleType::constant;
  run(half);
  half.train.steps = 4;
  run(half);
  TrainerConfig all = forced("at-once", uniform);
  all.schedule.type = ScheduleType::constant;
  run(all);
  EXPECT_EQ(state_hash("halves", 4), state_hash("at-once", 4));
}

}  // namespace
}  // namespace smoe
