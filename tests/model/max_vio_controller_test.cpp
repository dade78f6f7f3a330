// The controller on made-up routers: log MaxVio follows log(drive) - power * log(coefficient) with a lag, and noise on top.
#include "model/max_vio_controller.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/philox.h"

namespace smoe {
namespace {

struct MadeUpRouter {
  double lag = 100, power = 1;  // steps; MaxVio falls as the coefficient to this power
  std::function<double(std::int64_t)> drive = [](std::int64_t) { return 1.0; };  // MaxVio at the first coefficient
  double most = 3;                                                               // collapse
  double noise = 0.1;                                                            // relative
  std::int64_t stuck_until = 0;                                                  // collapsed, and does not answer
};

struct Course {
  std::vector<double> factor, max_vio;  // by step
  double mean_of_last(std::size_t steps) const {
    double sum = 0;
    for (std::size_t i = max_vio.size() - steps; i < max_vio.size(); ++i) sum += max_vio[i];
    return sum / static_cast<double>(steps);
  }
  // Largest factor over smallest.
  double swing_of_last(std::size_t steps) const {
    const auto [least, most] = std::minmax_element(factor.end() - static_cast<std::ptrdiff_t>(steps), factor.end());
    return *most / *least;
  }
};

Course steer(const MadeUpRouter& router, double target, std::int64_t steps) {
  MaxVioController controller(target);
  Course course;
  double x = std::log(router.drive(0));
  for (std::int64_t t = 0; t < steps; ++t) {
    const double factor = controller.factor();
    double wanted = std::log(router.drive(t)) - router.power * std::log(factor);
    if (t < router.stuck_until) wanted = x = std::log(router.most);
    x += (std::min(wanted, std::log(router.most)) - x) / router.lag;
    const auto bits = philox(3, static_cast<std::uint64_t>(t), 0);
    const double normal =
        std::sqrt(-2 * std::log(uniform_open(bits[0]))) * std::cos(6.283185307 * uniform_open(bits[1]));
    const double v = std::clamp(std::exp(x) * (1 + router.noise * normal), 0.0, router.most);
    course.factor.push_back(factor);
    course.max_vio.push_back(v);
    controller.observe(v);
  }
  return course;
}

TEST(MaxVio, IsTheBusiestOfAnyLayerOverItsMean) {
  EXPECT_EQ(max_vio(std::vector<double>{4, 4, 4, 4}, 4), 0);
  EXPECT_EQ(max_vio(std::vector<double>{4, 4, 4, 4, 0, 16, 0, 0}, 4), 3);
  EXPECT_EQ(max_vio(std::vector<double>{5, 4, 3, 4, 6, 2, 4, 4}, 4), 0.5);
  EXPECT_EQ(max_vio(std::vector<double>{0, 0}, 2), 0) << "no assignments, no violation";
}

TEST(MaxVioController, BeginsWithWhatIsConfiguredAndAnswersInTheRightDirection) {
  MaxVioController controller(0.5);
  EXPECT_EQ(controller.factor(), 1);
  controller.observe(1.0);
  EXPECT_NEAR(controller.factor(), std::exp((0.5 + 0.005) * std::log(2)), 1e-12);
  MaxVioController low(0.5);
  low.observe(0.25);
  EXPECT_NEAR(low.factor(), std::exp(-(0.5 + 0.005) * std::log(2)), 1e-12);
  MaxVioController none(0.5);
  none.observe(0);
  EXPECT_NEAR(none.factor(), std::exp(-0.505), 1e-12) << "an error counts for a factor of e at most";
}

TEST(MaxVioController, GoesOnFromItsStateToTheBit) {
  MaxVioController whole(0.3), first(0.3);
  const auto v = [](int i) { return 0.3 + 0.2 * std::sin(static_cast<double>(i)); };
  for (int i = 0; i < 50; ++i) whole.observe(v(i));
  for (int i = 0; i < 30; ++i) first.observe(v(i));
  MaxVioController second(0.3);
  second.restore(first.state());
  EXPECT_EQ(second.factor(), first.factor());
  for (int i = 30; i < 50; ++i) second.observe(v(i));
  EXPECT_EQ(second.state(), whole.state());
  EXPECT_EQ(second.factor(), whole.factor());
}

class SteeredRouters : public ::testing::TestWithParam<std::tuple<double, double>> {};

// Ten times too light at first. It settles at the target and does not oscillate: what is left of swings is the noise.
TEST_P(SteeredRouters, SettleAtTheTargetWithoutOscillation) {
  MadeUpRouter router;
  std::tie(router.lag, router.power) = GetParam();
  const Course noisy = steer(router, 0.1, 6000);
  EXPECT_NEAR(noisy.mean_of_last(1500), 0.1, 0.005);
  EXPECT_LT(noisy.swing_of_last(1500), 1.25);
  router.noise = 0;
  const Course still = steer(router, 0.1, 6000);
  EXPECT_NEAR(still.max_vio.back(), 0.1, 0.005);
  EXPECT_LT(still.swing_of_last(1500), 1.1);
}
INSTANTIATE_TEST_SUITE_P(Lags, SteeredRouters,
                         ::testing::Combine(::testing::Values(2.0, 20.0, 100.0, 500.0),
                                            ::testing::Values(0.5, 1.0, 2.0)));

// Ever harder to balance: with a drive that grows by r a step in logarithms, the error that is left is r / (power * gain).
TEST(MaxVioController, FollowsARouterThatDrifts) {
  MadeUpRouter router;
  const double rate = std::log(10.0) / 5000;
  router.drive = [=](std::int64_t t) { return std::exp(rate * static_cast<double>(t)); };
  router.most = 30;
  const Course course = steer(router, 0.3, 5000);
  EXPECT_NEAR(std::log(course.mean_of_last(500) / 0.3), rate / MaxVioController::integral_gain, 0.03);
  EXPECT_GT(course.factor.back(), 10);
}

TEST(MaxVioController, IsNotCarriedAwayByACollapsedRouterThatAnswersLate) {
  MadeUpRouter router;
  router.stuck_until = 300;
  const Course course = steer(router, 0.3, 5000);
  const double most = *std::max_element(course.factor.begin(), course.factor.end());
  EXPECT_LT(most, 3.4 * std::exp(0.5 + 0.005 * 450)) << "beyond the 3.3 that hold it, what it gained while stuck";
  EXPECT_NEAR(course.mean_of_last(1000), 0.3, 0.015);
  EXPECT_LT(course.swing_of_last(1000), 1.25);
}

TEST(MaxVioController, DoesNotWindUpAtABound) {
  MadeUpRouter router;
  router.noise = 0;
  router.lag = 20;
  router.most = 1e9;
  router.drive = [](std::int64_t t) { return t < 6000 ? 1e5 : 1.0; };  // out of reach, then within it
  const Course course = steer(router, 0.1, 9000);
  EXPECT_NEAR(course.factor[5999], 1000, 1e-9);
  // Down from there as far as the target's 10. An integral that had gone on would be at 30 and take 5000 steps more.
  const auto down = std::find_if(course.factor.begin() + 6000, course.factor.end(), [](double f) { return f < 11; });
  EXPECT_LT(down - course.factor.begin(), 6000 + 2000);
  EXPECT_NEAR(course.factor.back(), 10, 0.5);
}

}  // namespace
}  // namespace smoe
