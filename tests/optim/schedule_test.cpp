#include "optim/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace smoe {
namespace {

ScheduleConfig schedule(ScheduleType type, std::int64_t warmup, double low, double decay = 0.1) {
  return {.type = type, .warmup_steps = warmup, .min_lr_ratio = low, .decay_ratio = decay};
}

TEST(Schedule, WarmupRisesLinearlyToThePeakWhateverFollows) {
  for (auto type : {ScheduleType::cosine, ScheduleType::linear, ScheduleType::constant, ScheduleType::wsd})
    for (std::int64_t step = 1; step <= 4; ++step)
      EXPECT_DOUBLE_EQ(learning_rate(schedule(type, 4, 0.1), 2.0, step, 20), 2.0 * static_cast<double>(step) / 4.0);
}

TEST(Schedule, WithoutWarmupTheFirstStepIsNearThePeak) {
  EXPECT_DOUBLE_EQ(learning_rate(schedule(ScheduleType::constant, 0, 0.1), 3.0, 1, 10), 3.0);
  EXPECT_DOUBLE_EQ(learning_rate(schedule(ScheduleType::linear, 0, 0.0), 1.0, 1, 10), 0.9);
}

TEST(Schedule, CosineIsHalfwayInTheMiddleAndEndsAtTheMinimum) {
  const auto s = schedule(ScheduleType::cosine, 10, 0.2);
  EXPECT_NEAR(learning_rate(s, 1.0, 60, 110), 0.6, 1e-15);
  EXPECT_NEAR(learning_rate(s, 1.0, 110, 110), 0.2, 1e-15);
  EXPECT_NEAR(learning_rate(s, 1.0, 35, 110), 0.2 + 0.8 * 0.5 * (1 + std::sqrt(0.5)), 1e-15);
}

TEST(Schedule, LinearFallsEvenly) {
  const auto s = schedule(ScheduleType::linear, 0, 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1.0, 5, 10), 0.75);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1.0, 10, 10), 0.5);
}

TEST(Schedule, WsdIsStableThenDecaysOverItsShare) {
  const auto s = schedule(ScheduleType::wsd, 10, 0.0, 0.2);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1.0, 11, 100), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1.0, 80, 100), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1.0, 90, 100), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1.0, 100, 100), 0.0);
}

TEST(Schedule, StaysAtTheMinimumWhereWarmupTakesTheWholeRunOrMore) {
  EXPECT_DOUBLE_EQ(learning_rate(schedule(ScheduleType::cosine, 10, 0.1), 1.0, 5, 5), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(schedule(ScheduleType::cosine, 5, 0.1), 1.0, 7, 5), 0.1);
}

}  // namespace
}  // namespace smoe
