// The weight of the balance loss step by step.
#include "model/balance_schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <numbers>
#include <optional>
#include <stdexcept>
#include <vector>

namespace smoe {
namespace {

RouterConfig scheduled(AuxLossScheduleType type, std::optional<double> from, double to, std::int64_t steps) {
  RouterConfig router;
  router.aux_loss_coef = 0.04;
  router.aux_loss_schedule.type = type;
  router.aux_loss_schedule.from = from;
  router.aux_loss_schedule.to = to;
  router.aux_loss_schedule.steps = steps;
  return router;
}
std::vector<double> by_layer_at(const RouterConfig& router, std::int64_t step, std::size_t layers = 3) {
  std::vector<double> by_layer(layers);
  balance_coefficients(router, step, by_layer);
  return by_layer;
}
double at(const RouterConfig& router, std::int64_t step) {
  const auto by_layer = by_layer_at(router, step);
  EXPECT_EQ(by_layer, std::vector<double>(3, by_layer.front()));
  return by_layer.front();
}

TEST(BalanceSchedule, ConstantIsWhatIsConfiguredToTheBit) {
  RouterConfig router;
  router.aux_loss_coef = 0.1;
  for (const std::int64_t step : {1, 7, 1000000}) EXPECT_EQ(at(router, step), 0.1);
}

TEST(BalanceSchedule, LinearGoesStraightAndStays) {
  const RouterConfig down = scheduled(AuxLossScheduleType::linear, std::nullopt, 0.0, 4);
  for (const auto& [step, expected] :
       std::vector<std::pair<std::int64_t, double>>{{1, 0.04}, {2, 0.03}, {3, 0.02}, {4, 0.01}})
    EXPECT_NEAR(at(down, step), expected, 1e-17);
  EXPECT_EQ(at(down, 5), 0.0) << "it ends at 0, not near it";
  EXPECT_EQ(at(down, 500), 0.0);
  const RouterConfig up = scheduled(AuxLossScheduleType::linear, 0.0, 0.3, 3);
  EXPECT_EQ(at(up, 1), 0.0) << "it begins at 0";
  EXPECT_NEAR(at(up, 2), 0.1, 1e-16);
  EXPECT_EQ(at(up, 4), 0.3);
}

TEST(BalanceSchedule, CosineIsFlatAtBothEnds) {
  const RouterConfig router = scheduled(AuxLossScheduleType::cosine, std::nullopt, 0.02, 8);
  EXPECT_EQ(at(router, 1), 0.04);
  for (std::int64_t step = 1; step <= 9; ++step)
    EXPECT_NEAR(at(router, step), 0.03 + 0.01 * std::cos(std::numbers::pi * static_cast<double>(step - 1) / 8), 1e-16);
  EXPECT_EQ(at(router, 9), 0.02);
  EXPECT_EQ(at(router, 90), 0.02);
}

TEST(BalanceSchedule, StepsAreFactorsOfWhatIsConfigured) {
  RouterConfig router;
  router.aux_loss_coef = 0.5;
  router.aux_loss_schedule.type = AuxLossScheduleType::steps;
  router.aux_loss_schedule.at = {{3, 0.5}, {5, 4.0}, {6, 0.0}};
  std::vector<double> found;
  for (std::int64_t step = 1; step <= 7; ++step) found.push_back(at(router, step));
  EXPECT_EQ(found, (std::vector<double>{0.5, 0.5, 0.25, 0.25, 2.0, 0.0, 0.0}));
}

TEST(BalanceSchedule, MultipliesWhatLayersHaveOfTheirOwn) {
  RouterConfig router = scheduled(AuxLossScheduleType::linear, std::nullopt, 0.0, 4);
  router.aux_loss_coef_by_layer = {0.5, 0, 2};
  EXPECT_EQ(by_layer_at(router, 1), (std::vector<double>{0.5, 0, 2}));
  EXPECT_EQ(by_layer_at(router, 3), (std::vector<double>{0.25, 0, 1}));
  EXPECT_EQ(by_layer_at(router, 5), std::vector<double>(3));
  EXPECT_THROW(by_layer_at(router, 1, 2), std::logic_error);
}

TEST(BalanceSchedule, TellsWhetherBackwardWillWantTheBalance) {
  RouterConfig router;
  EXPECT_TRUE(trains_balance(router));
  router.aux_loss_coef = 0;
  EXPECT_FALSE(trains_balance(router));
  router.aux_loss_schedule = scheduled(AuxLossScheduleType::linear, std::nullopt, 0.1, 4).aux_loss_schedule;
  EXPECT_TRUE(trains_balance(router)) << "from 0 up";
  router.aux_loss_schedule = scheduled(AuxLossScheduleType::linear, 0.1, 0.0, 4).aux_loss_schedule;
  EXPECT_TRUE(trains_balance(router)) << "down to 0";
  router.aux_loss_schedule = scheduled(AuxLossScheduleType::linear, std::nullopt, 0.0, 4).aux_loss_schedule;
  EXPECT_FALSE(trains_balance(router));
  router.aux_loss_coef_by_layer = {0, 0};
  EXPECT_FALSE(trains_balance(router));
  router.aux_loss_coef_by_layer = {0, 0.1};
  EXPECT_TRUE(trains_balance(router));
}

}  // namespace
}  // namespace smoe
