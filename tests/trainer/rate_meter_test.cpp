#include "trainer/rate_meter.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <optional>
#include <thread>

namespace smoe {
namespace {

TEST(RateMeter, CountsStepsAndTokensSinceItWasRestarted) {
  RateMeter meter;
  meter.count_step(1000);
  meter.count_step(1000);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const double seconds = meter.seconds();
  EXPECT_GE(seconds, 0.02);
  EXPECT_LE(meter.tokens_per_second(), 2000 / seconds);
  EXPECT_GE(meter.seconds_per_step(), seconds / 2);
  meter.restart();
  EXPECT_LT(meter.seconds(), seconds);
  EXPECT_FALSE(std::isfinite(meter.seconds_per_step()));
}

// What was counted before a pause counts on after it; the time in between does not.
TEST(RateMeter, APauseIsNotTime) {
  const auto start = Clock::now();
  RateMeter meter;
  meter.count_step(5);
  {
    const RateMeter::Pause pause(meter);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  const double counted = meter.seconds();
  EXPECT_LE(counted, seconds_since(start) - 0.2);
  EXPECT_GT(meter.tokens_per_second(), 0);
}

}  // namespace
}  // namespace smoe
