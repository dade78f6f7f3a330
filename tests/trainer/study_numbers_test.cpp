// The statistics of a study against tables and values worked out by hand.
#include "trainer/study/study_numbers.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace smoe {
namespace {

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
using Points = std::vector<std::pair<double, double>>;
using Indices = std::vector<std::size_t>;

TEST(StudentT, QuantilesAreThoseOfTheTables) {
  EXPECT_NEAR(student_t_quantile(0.975, 1), 12.7062047, 1e-6);
  EXPECT_NEAR(student_t_quantile(0.975, 2), 4.30265273, 1e-7);
  EXPECT_NEAR(student_t_quantile(0.975, 3), 3.18244631, 1e-7);
  EXPECT_NEAR(student_t_quantile(0.975, 4), 2.77644511, 1e-7);
  EXPECT_NEAR(student_t_quantile(0.975, 10), 2.22813885, 1e-7);
  EXPECT_NEAR(student_t_quantile(0.975, 30), 2.04227246, 1e-7);
  EXPECT_NEAR(student_t_quantile(0.95, 5), 2.01504837, 1e-7);
  EXPECT_NEAR(student_t_quantile(0.975, 1e7), 1.95996398, 1e-6);  // the normal one
  EXPECT_NEAR(student_t_quantile(0.025, 2), -4.30265273, 1e-7);
  EXPECT_EQ(student_t_quantile(0.5, 7), 0);
}

// With one and two degrees of freedom the quantile has a closed form: tan(pi (p - 1/2)), and (2p - 1) / sqrt(2p (1 - p)).
TEST(StudentT, QuantilesAgreeWithTheClosedForms) {
  for (const double p : {0.6, 0.75, 0.9, 0.975, 0.999}) {
    EXPECT_NEAR(student_t_quantile(p, 1) / std::tan(M_PI * (p - 0.5)), 1, 1e-12) << p;
    EXPECT_NEAR(student_t_quantile(p, 2) / ((2 * p - 1) / std::sqrt(2 * p * (1 - p))), 1, 1e-12) << p;
  }
  EXPECT_GT(student_t_quantile(0.975, 2.5), student_t_quantile(0.975, 3));
  EXPECT_LT(student_t_quantile(0.975, 2.5), student_t_quantile(0.975, 2));
}

TEST(StudySummary, MeanSpreadAndIntervalByHand) {
  const Summary three = summarise(std::vector{1.0, 2.0, 6.0});
  EXPECT_EQ(three.n, 3u);
  EXPECT_DOUBLE_EQ(three.mean, 3.0);
  EXPECT_NEAR(three.sd, std::sqrt(7.0), 1e-15);  // (4 + 1 + 9) / 2
  EXPECT_NEAR(three.half, 4.30265273 * std::sqrt(7.0 / 3), 1e-6);
  EXPECT_NEAR(three.low(), 3 - three.half, 1e-15);
  EXPECT_NEAR(three.high(), 3 + three.half, 1e-15);
}

TEST(StudySummary, OneValueHasNoSpreadAndNoneHasNoMean) {
  const Summary one = summarise(std::vector{4.0});
  EXPECT_EQ(one.n, 1u);
  EXPECT_EQ(one.mean, 4.0);
  EXPECT_TRUE(std::isnan(one.sd) && std::isnan(one.half));
  EXPECT_TRUE(std::isnan(summarise(std::vector<double>{}).mean));
  EXPECT_EQ(summarise(std::vector{nan_value, 4.0, HUGE_VAL}).n, 1u);
  EXPECT_EQ(summarise(std::vector{2.0, 2.0}).half, 0);
}

TEST(StudySummary, MedianOfOddAndEvenNumbers) {
  EXPECT_EQ(median({5, 1, 2}), 2);
  EXPECT_EQ(median({5, 1, 2, 4}), 3);
  EXPECT_EQ(median({nan_value, 7}), 7);
  EXPECT_TRUE(std::isnan(median({})));
}

TEST(StudyDifference, PairsTakeOutWhatTheyShare) {
  const std::vector base = {1.0, 5.0, 9.0}, other = {1.1, 5.2, 9.3};
  const Difference paired = paired_difference(other, base);
  EXPECT_TRUE(paired.paired);
  EXPECT_EQ(paired.n, 3u);
  EXPECT_NEAR(paired.mean, 0.2, 1e-12);
  EXPECT_NEAR(paired.half, 4.30265273 * 0.1 / std::sqrt(3.0), 1e-7);  // 0.2484
  EXPECT_TRUE(paired.within_noise());
  const Difference clear = paired_difference(std::vector{1.2, 5.2, 9.21}, base);
  EXPECT_TRUE(clear.has_interval());
  EXPECT_FALSE(clear.within_noise());
  EXPECT_TRUE(welch_difference(std::vector{1.2, 5.2, 9.21}, base).within_noise());  // unpaired, it drowns
}

TEST(StudyDifference, OnePairHasNoInterval) {
  const Difference one = paired_difference(std::vector{2.0, nan_value}, std::vector{1.5, 3.0});
  EXPECT_EQ(one.n, 1u);
  EXPECT_EQ(one.mean, 0.5);
  EXPECT_FALSE(one.has_interval());
  EXPECT_FALSE(one.within_noise());
}

// s^2 = 1 and 4 of three values each: se^2 = 5/3, degrees = (5/3)^2 / ((1/9 + 16/9) / 2) = 50/17.
TEST(StudyDifference, WelchByHand) {
  const Difference welch = welch_difference(std::vector{4.0, 5.0, 6.0}, std::vector{1.0, 3.0, 5.0});
  EXPECT_FALSE(welch.paired);
  EXPECT_EQ(welch.mean, 2.0);
  EXPECT_NEAR(welch.half, student_t_quantile(0.975, 50.0 / 17) * std::sqrt(5.0 / 3), 1e-12);
  EXPECT_FALSE(welch_difference(std::vector{1.0}, std::vector{1.0, 2.0}).has_interval());
  const Difference exact = welch_difference(std::vector{2.0, 2.0}, std::vector{1.0, 1.0});
  EXPECT_EQ(exact.half, 0);
  EXPECT_FALSE(exact.within_noise());
}

TEST(ParetoFront, IsOfThosePointsThatNoneBeats) {
  const Points points = {{3, 1}, {1, 3}, {2, 2}, {2, 3}, {3, 3}, {4, 1}};
  EXPECT_EQ(pareto_front(points), (Indices{1, 2, 0}));
}

TEST(ParetoFront, TiesAndWhatIsNotMeasured) {
  EXPECT_EQ(pareto_front(Points{{1, 2}, {1, 2}, {1, 3}, {2, 2}}), (Indices{0, 1}));
  EXPECT_EQ(pareto_front(Points{{nan_value, 0}, {1, HUGE_VAL}, {5, 5}}), (Indices{2}));
  EXPECT_EQ(pareto_front(Points{}), Indices{});
}

}  // namespace
}  // namespace smoe
