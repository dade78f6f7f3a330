// Runs whose balance loss weighs otherwise from step to step or from layer to layer.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/trainer/training_fixture.h"

namespace smoe {
namespace {

class SteeredRun : public TrainingTest {
 protected:
  TrainerConfig steered(const std::string& output, AuxLossScheduleType type, double from, double to,
                        std::int64_t steps) const {
    TrainerConfig c = config(output);
    c.router.aux_loss_schedule.type = type;
    c.router.aux_loss_schedule.from = from;
    c.router.aux_loss_schedule.to = to;
    c.router.aux_loss_schedule.steps = steps;
    return c;
  }
  std::vector<StepMetrics> steps(const std::string& output) const { return metrics(output).steps; }
};

TEST_F(SteeredRun, EachStepWeighsByTheScheduleAndSaysSo) {
  ASSERT_EQ(train(steered("run", AuxLossScheduleType::linear, 0.5, 0.0, 10)), 0);
  for (const StepMetrics& row : steps("run")) {
    const double expected = row.step > 10 ? 0.0 : 0.5 * (1 - static_cast<double>(row.step - 1) / 10);
    ASSERT_EQ(row.aux_loss_coef.size(), 1u);
    EXPECT_NEAR(row.aux_loss_coef[0], expected, 1e-15);
    EXPECT_NEAR(row.loss, row.lm_loss + row.aux_loss_coef[0] * row.aux_loss + 0.001 * row.z_loss, 1e-12);
  }
}

TEST_F(SteeredRun, AConstantOneIsTheRunWithoutASchedule) {
  auto plain = config("plain");
  plain.router.aux_loss_coef = 0.25;
  ASSERT_EQ(train(plain), 0);
  ASSERT_EQ(train(steered("level", AuxLossScheduleType::cosine, 0.25, 0.25, 7)), 0);
  auto listed = config("listed");
  listed.router.aux_loss_coef_by_layer = {0.25, 0.25};
  ASSERT_EQ(train(listed), 0);
  EXPECT_EQ(state_hash("plain", 20), state_hash("level", 20));
  EXPECT_EQ(state_hash("plain", 20), state_hash("listed", 20));
  EXPECT_EQ(steps("plain").back().loss, steps("listed").back().loss);
}

TEST_F(SteeredRun, ASchedulesStepsAreThoseOfTheWholeRunWhereItIsResumed) {
  const auto whole = steered("whole", AuxLossScheduleType::cosine, 0.0, 1.0, 15);
  ASSERT_EQ(train(whole), 0);
  auto half = steered("half", AuxLossScheduleType::cosine, 0.0, 1.0, 15);
  half.checkpoint.resume = checkpoint("whole", 10).string();
  ASSERT_EQ(train(half), 0);
  EXPECT_EQ(state_hash("whole", 20), state_hash("half", 20));
  EXPECT_EQ(steps("whole").back().aux_loss_coef, steps("half").back().aux_loss_coef);
  ASSERT_EQ(train(steered("none", AuxLossScheduleType::cosine, 0.0, 0.0, 15)), 0);
  EXPECT_NE(state_hash("whole", 20), state_hash("none", 20)) << "the balance loss trains nothing";
}

TEST_F(SteeredRun, LayersWeighByTheirOwnAndTheSumOfAllIsReportedAsEver) {
  auto c = config("run");
  c.router.aux_loss_coef_by_layer = {2.0, 0.0};
  c.train.steps = 1;
  ASSERT_EQ(train(c), 0);
  const StepMetrics row = steps("run").front();
  EXPECT_EQ(row.aux_loss_coef, (std::vector<double>{2.0, 0.0}));
  const double first_layers = (row.loss - row.lm_loss - 0.001 * row.z_loss) / 2.0;
  EXPECT_GT(first_layers, 0.9);
  EXPECT_LT(first_layers, row.aux_loss - 0.9) << "a balanced layer scores 1: the other's is not in it";
}

}  // namespace
}  // namespace smoe
