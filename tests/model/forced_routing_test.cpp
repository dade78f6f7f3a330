#include "model/forced_routing.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <vector>

namespace smoe {
namespace {

// How many of `tokens` consecutive tokens take each expert; every token must take K.
std::vector<std::int64_t> counts(const ForcedRouter& router, std::int64_t first, std::int64_t tokens,
                                 std::int64_t experts, std::int64_t per_token) {
  std::vector<float> numbers(static_cast<std::size_t>(tokens * experts), -1);
  router.preferences(first, numbers);
  std::vector<std::int64_t> counts(static_cast<std::size_t>(experts));
  for (std::int64_t t = 0; t < tokens; ++t) {
    std::int64_t taken = 0;
    for (std::int64_t e = 0; e < experts; ++e) {
      const float number = numbers[static_cast<std::size_t>(t * experts + e)];
      EXPECT_TRUE(number == 0 || number == 2) << number;
      taken += number > 0;
      counts[static_cast<std::size_t>(e)] += number > 0;
    }
    EXPECT_EQ(taken, per_token) << "token " << first + t;
  }
  return counts;
}

TEST(ForcedRouting, UniformGivesEveryExpertAsManyOfAsManyTokensAsThereAreExperts) {
  for (const auto& [experts, per_token] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{8, 2}, {8, 1}, {8, 3}, {7, 3}, {64, 8}, {5, 5}, {1, 1}})
    for (const std::int64_t first : {0, 3, 1000003}) {
      const ForcedRouter router({ForcedRoutingType::uniform, {}}, experts, per_token);
      EXPECT_EQ(counts(router, first, 2 * experts, experts, per_token),
                std::vector<std::int64_t>(static_cast<std::size_t>(experts), 2 * per_token))
          << experts << " " << per_token << " " << first;
      EXPECT_NEAR(router.shares().front(), 1.0 / static_cast<double>(experts), 1e-12);
    }
}

TEST(ForcedRouting, SkewedHasTheMaxVioThatWasAskedForInAnyStretch) {
  for (const auto& [experts, per_token] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{8, 2}, {8, 1}, {7, 3}, {64, 8}})
    for (const double part : {0.02, 0.5, 0.97}) {
      const double most = static_cast<double>(experts) / static_cast<double>(per_token) - 1, max_vio = part * most;
      const ForcedRouter router({ForcedRoutingType::skewed, max_vio}, experts, per_token);
      const std::vector<double> shares = router.shares();
      EXPECT_NEAR(shares.front() * static_cast<double>(experts) - 1, max_vio, 1e-9);
      EXPECT_NEAR(std::accumulate(shares.begin(), shares.end(), 0.0), 1, 1e-12);
      for (std::size_t e = 2; e < shares.size(); ++e)
        EXPECT_NEAR(shares[e], shares[e - 1] * shares[1] / shares[0], 1e-12) << "by a constant factor";
      for (const std::int64_t first : {0, 777, 1000000007}) {
        const std::int64_t tokens = 500;
        const auto found = counts(router, first, tokens, experts, per_token);
        for (std::size_t e = 0; e < found.size(); ++e)
          EXPECT_NEAR(static_cast<double>(found[e]), shares[e] * static_cast<double>(tokens * per_token), 3)
              << experts << " " << per_token << " " << max_vio << " expert " << e;
      }
    }
}

TEST(ForcedRouting, WhatNoTokenCanDoIsRefused) {
  EXPECT_THROW(ForcedRouter({ForcedRoutingType::skewed, 3.0}, 8, 2), std::logic_error);
  EXPECT_NO_THROW(ForcedRouter({ForcedRoutingType::skewed, 2.999}, 8, 2));
  EXPECT_NO_THROW(ForcedRouter({ForcedRoutingType::skewed, 1.3333333333333333}, 7, 3))
      << "the last number below 7 / 3 - 1";
}

TEST(ForcedRouting, SaysWhatItIs) {
  EXPECT_EQ(describe(ForcedRouting{}), "");
  EXPECT_EQ(describe(ForcedRouting{ForcedRoutingType::uniform, {}}), "uniform");
  EXPECT_EQ(describe(ForcedRouting{ForcedRoutingType::skewed, 1.5}), "skewed, MaxVio 1.5");
}

}  // namespace
}  // namespace smoe
