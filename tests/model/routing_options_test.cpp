#include "model/routing_options.h"

#include <gtest/gtest.h>

namespace smoe {
namespace {

TEST(RoutingOptions, CapacityIsAShareOfTheEvenOneRoundedUp) {
  const auto rows = [](double factor, std::int64_t experts, std::int64_t per_token, std::int64_t run) {
    return RoutingOptions{.capacity_factor = factor}.capacity(experts, per_token, run).rows;
  };
  EXPECT_EQ(rows(1, 8, 2, 200), 50);
  EXPECT_EQ(rows(1.25, 8, 2, 200), 63);
  EXPECT_EQ(rows(1.1, 8, 2, 200), 55) << "1.1 * 50 is 55 and a rounding more";
  EXPECT_EQ(rows(1, 7, 3, 10), 5);
  EXPECT_EQ(rows(1e-9, 8, 2, 200), 1);
  EXPECT_EQ(rows(0, 8, 2, 200), 0) << "dropless";
}

TEST(RoutingOptions, NoExpertGetsATokenTwice) {
  for (const double factor : {5.0, 1e18, 1e300})
    EXPECT_EQ((RoutingOptions{.capacity_factor = factor}.capacity(8, 2, 200).rows), 200) << factor;
}

}  // namespace
}  // namespace smoe
