// Runs whose routers do what is warned of, and one whose routers do not.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tests/trainer/training_fixture.h"
#include "trainer/record/report.h"

namespace smoe {
namespace {

class WarnedRun : public TrainingTest {
 protected:
  // Nothing else would last: a balance loss undoes it, and learning that is fast.
  TrainerConfig collapsing(const std::string& output) const {
    TrainerConfig c = config(output);
    c.data.eval.clear();
    c.router.aux_loss_coef = 0;
    c.optimizer.learning_rate = 1e-4;
    c.log.idle_expert_steps = 10;
    return c;
  }
  // Every token goes to experts 0 and 1 of each layer, and almost with its whole weight to 0: the first entry of its embedding is
  // the largest by far, and it is the one that gates look at.
  static void collapse(Trainer& trainer) {
    for (Parameter& p : trainer.model().parameters()) {
      const bool is_gate = p.name.ends_with(".gate.weight");
      if (!is_gate && p.name != "model.embed_tokens.weight") continue;
      for (std::int64_t row = 0; row < p.value.dim(0); ++row)
        p.value.f32()[row * p.value.dim(1)] = !is_gate  ? 10.0f
                                              : row < 2 ? 30.0f - 10.0f * static_cast<float>(row)
                                                        : 0.0f;
    }
  }
  // "step of the row / text"
  std::vector<std::string> warnings_of_rows(const std::string& output) const {
    std::vector<std::string> found;
    for (const StepMetrics& row : metrics(output).steps)
      for (const std::string& text : row.warnings) found.push_back(std::to_string(row.step) + " / " + text);
    return found;
  }
};

TEST_F(WarnedRun, ACollapsedOneIsToldOfInLogRowAndReport) {
  Trainer trainer = make_trainer(collapsing("run"));
  collapse(trainer);
  trainer.run();
  const std::vector<std::string> rows = warnings_of_rows("run");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_TRUE(mentions(
      rows[0], {"10 / step 10: 4 experts of layers 0, 1 (2 of 4 in each) have had less than 1% of an even share",
                "No loss balances this run"}));
  EXPECT_TRUE(mentions(rows[1],
                       {"10 / step 10: the router of layers 0, 1 is certain", "Raise router.z_loss_coef (0.001 now)"}));
  const std::string page = render_report({root() / "run"});
  for (const std::string& row : rows) {
    const std::string text = row.substr(5);
    EXPECT_TRUE(mentions(log_of("run"), {"warning: " + text}));
    EXPECT_TRUE(mentions(page, {"{\"step\":10,\"text\":\"" + text + "\"}"}));
  }
}

// Where the run ends before the next row is due, nothing is lost.
TEST_F(WarnedRun, AStepThatWarnsHasARow) {
  TrainerConfig c = collapsing("run");
  c.log.interval = 7;
  Trainer trainer = make_trainer(c);
  collapse(trainer);
  const RunSummary summary = trainer.run();
  const std::vector<std::string> rows = warnings_of_rows("run");
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_TRUE(mentions(rows[0], {"10 / step 10: 4 experts"}));
  EXPECT_TRUE(mentions(log_of("run"), {"warning: step 10: 4 experts"}));
  EXPECT_EQ(summary.last->warnings, std::vector<std::string>{}) << "told once";
}

TEST_F(WarnedRun, AResumedOneBeginsToCountAgain) {
  TrainerConfig c = collapsing("run");
  c.train.steps = 15;
  {
    Trainer first = make_trainer(c);  // has the directory for as long as it lives
    collapse(first);
    first.run();
  }
  c.train.steps = 30;
  run(c);
  const std::vector<std::string> rows = warnings_of_rows("run");
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_TRUE(mentions(rows[0], {"10 / step 10: 4 experts"}));
  EXPECT_TRUE(mentions(rows[2], {"25 / step 25: 4 experts"}));
}

// Numbers that are none send every token to the first experts.
TEST_F(WarnedRun, RefusedStepsSayNothingOfRouters) {
  TrainerConfig c = collapsing("run");
  c.train.max_skipped_steps = 100;
  Trainer trainer = make_trainer(c);
  Parameter& p = *trainer.model().parameters().find("model.embed_tokens.weight");
  std::fill_n(p.value.f32(), p.value.elements(), std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(trainer.run().state.skipped, 20);
  const std::vector<StepMetrics> rows = metrics("run").steps;
  ASSERT_EQ(rows.size(), 20u);
  EXPECT_EQ(rows[19].expert_load[0][3], 0) << "an expert is idle, if the row is believed";
  EXPECT_EQ(warnings_of_rows("run"), std::vector<std::string>{});
}

TEST_F(WarnedRun, AHealthyOneIsWarnedOfNothingAndAHeavyBalanceLossIs) {
  TrainerConfig c = config("healthy");
  c.data.eval.clear();
  c.train.steps = 150;
  c.checkpoint.interval = 1000;
  c.log.idle_expert_steps = 10;
  run(c);
  EXPECT_EQ(log_of("healthy").find("warning: step"), std::string::npos) << log_of("healthy");
  EXPECT_EQ(warnings_of_rows("healthy"), std::vector<std::string>{});
  EXPECT_TRUE(mentions(render_report({root() / "healthy"}), {"\"warnings\":[]"}));

  c.train.output_dir = (root() / "heavy").string();
  c.router.aux_loss_coef = 30;
  run(c);
  const std::vector<std::string> rows = warnings_of_rows("heavy");
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_TRUE(mentions(rows[0], {" / step ", "the balance loss outweighs the language model at the gate of layer",
                                 "coefficient 30", "Lower router.aux_loss_coef (30 now)"}));
  EXPECT_TRUE(mentions(log_of("heavy"), {"warning: step 1"}));
}

}  // namespace
}  // namespace smoe
