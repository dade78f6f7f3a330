// The clock beside a backend: what it tells of calls, shapes and work, and that it changes no bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/arena.h"
#include "kernels/device_sums.h"
#include "kernels/timed_backend.h"
#include "kernels/yardstick.h"
#include "tests/kernels/op_calls.h"

namespace smoe {
namespace {

class TimedBackendTest : public ::testing::Test {
 protected:
  Tensor filled(Shape shape, float start) {
    const Tensor t = arena.take(shape);
    for (std::int64_t i = 0; i < t.elements(); ++i) t.f32()[i] = start + 0.01f * static_cast<float>(i % 97);
    return t;
  }
  static std::vector<float> numbers(const Tensor& t) { return {t.f32(), t.f32() + t.elements()}; }

  std::unique_ptr<Backend> cpu = make_cpu_backend(1);
  TimedBackend timed{*cpu};
  Arena arena{*cpu};
};

TEST_F(TimedBackendTest, ResultsAreTheOtherBackendsBits) {
  const Tensor a = filled({37, 24}, -0.3f), b = filled({19, 24}, 0.1f), plain = arena.take({37, 19}),
               through = arena.take({37, 19});
  cpu->gemm(Gemm::nt, a, b, plain, Write::assign);
  timed.gemm(Gemm::nt, a, b, through, Write::assign);
  EXPECT_EQ(numbers(plain), numbers(through));
  DeviceSums sums(*cpu);
  sums.reset(2);
  cpu->sum_of_squares(a, sums[0]);
  timed.sum_of_squares(a, sums[1]);
  EXPECT_EQ(sums.read()[0], sums.read()[1]);
  EXPECT_EQ(timed.device(), Device::cpu);
}

TEST_F(TimedBackendTest, CallsAddUpByOpAndShapeInTheOrderOfTheirFirst) {
  const Tensor a = filled({8, 6}, 0), b = filled({5, 6}, 0), c = arena.take({8, 5}), dw = arena.take({5, 6});
  timed.fill(dw, 0);
  for (int i = 0; i < 3; ++i) timed.gemm(Gemm::nt, a, b, c, Write::assign);
  timed.gemm(Gemm::tn, c, a, dw, Write::add);
  timed.gemm(Gemm::nt, a.rows(0, 4), b, c.rows(0, 4), Write::assign);

  const std::vector<OpTime> times = timed.times();
  ASSERT_EQ(times.size(), 4u);
  EXPECT_EQ(times[0].op, "fill");
  EXPECT_EQ(times[0].shape, "n30");
  EXPECT_EQ(times[1].op, "gemm");
  EXPECT_EQ(times[1].shape, "nt m8 n5 k6");
  EXPECT_EQ(times[1].rows, 8);
  EXPECT_EQ(times[1].calls, 3);
  EXPECT_EQ(times[1].work, 3 * op_work::gemm(8, 5, 6));
  EXPECT_GT(times[1].seconds, 0);
  EXPECT_EQ(times[2].shape, "tn m5 n6 k8");
  EXPECT_EQ(times[2].rows, 8);
  EXPECT_EQ(times[3].shape, "nt m4 n5 k6");

  timed.reset();
  EXPECT_TRUE(timed.times().empty());
}

TEST_F(TimedBackendTest, WhatIsNotTimedIsDoneAllTheSame) {
  const Tensor x = filled({4}, 0);
  timed.reset();
  timed.time_ops(false);
  timed.fill(x, 3);
  EXPECT_TRUE(timed.times().empty());
  EXPECT_EQ(x.f32()[3], 3);
  timed.time_ops(true);
  timed.fill(x, 4);
  ASSERT_EQ(timed.times().size(), 1u);
  EXPECT_EQ(timed.times()[0].calls, 1);
}

TEST_F(TimedBackendTest, ExpertsWithoutRowsAreNoWork) {
  const std::vector<std::int32_t> offsets{0, 3, 3, 4};
  const Tensor device_offsets = arena.take(DType::i32, {4});
  std::copy(offsets.begin(), offsets.end(), device_offsets.i32());
  timed.grouped_gemm(Gemm::nt, filled({4, 6}, 0), filled({3, 5, 6}, 0), arena.take({4, 5}), {device_offsets, offsets},
                     Write::assign);
  const std::vector<OpTime> times = timed.times();
  ASSERT_EQ(times.size(), 1u);
  EXPECT_EQ(times[0].shape, "nt E3 R4 n5 k6");
  EXPECT_EQ(times[0].work, op_work::grouped_gemm(2, 4, 5, 6));
  EXPECT_EQ(times[0].rows, 2);
}

TEST_F(TimedBackendTest, MoreShapesThanItHasRoomForAreAddedUpTogether) {
  const Tensor x = filled({2000}, 0);
  for (std::int64_t n = 1; n <= 2000; ++n) timed.fill(x.rows(0, n), 1);
  const std::vector<OpTime> times = timed.times();
  EXPECT_EQ(times.back().op, "other shapes");
  std::int64_t calls = 0;
  for (const OpTime& time : times) calls += time.calls;
  EXPECT_EQ(calls, 2000);
}

TEST(OpWork, VisiblePairsAreThoseOfTheDefinition) {
  for (const std::int64_t window : {0, 1, 3, 12, 13, 50}) {
    double pairs = 0;
    for (std::int64_t i = 0; i < 13; ++i)
      for (std::int64_t j = 0; j <= i; ++j) pairs += window == 0 || i - j < window;
    EXPECT_EQ(op_work::visible_pairs(2, 13, window), 2 * pairs) << "window " << window;
  }
}

// The bench counts a call's work from the sizes that it asks for, this clock from the tensors that it sees.
TEST_F(TimedBackendTest, WorkOfACallIsWhatTheBenchCounts) {
  checks::RepeatedNumbers numbers(*cpu, {0.3f, -0.7f, 0.1f, 0.9f, -0.2f});
  int made = 0, counted = 0;
  for (const DType type : {DType::f32, DType::bf16})
    for (const checks::OpCase& c : checks::bench_calls(bench_shape("tiny"), type))
      for (const checks::OpCall& call : c.calls) {
        if (call.shape.find("documents") != std::string::npos) continue;  // which the clock does not look into
        checks::Inputs inputs(timed, call.op, type, numbers);
        const checks::Prepared prepared = call.prepare(inputs);
        timed.reset();
        prepared.call();
        ++made;
        for (const OpTime& time : timed.times())
          if (time.op == call.op) {
            EXPECT_DOUBLE_EQ(time.work.flops, call.work.flops) << call.op << " " << call.shape << " " << name_of(type);
            EXPECT_DOUBLE_EQ(time.work.bytes, call.work.bytes) << call.op << " " << call.shape << " " << name_of(type);
            ++counted;
          }
      }
  EXPECT_EQ(counted, made);
  EXPECT_GT(made, 100);
}

TEST(Yardstick, MeasuresPositiveRates) {
  const auto cpu = make_cpu_backend(1);
  Yardstick yardstick(*cpu, 64, 3 * 4096);
  EXPECT_GT(yardstick.cores(), 1e8);
  EXPECT_GT(yardstick.product(), 1e6);
  EXPECT_GT(yardstick.memory(), 1e6);
  EXPECT_GT(yardstick.copy(), 1e6);
}

TEST(YardstickBadInput, RoomForNoArrayIsABug) {
  const auto cpu = make_cpu_backend(1);
  Arena arena(*cpu);
  EXPECT_THROW(cpu->measure_memory_rate(arena.take({2})), std::logic_error);
}

}  // namespace
}  // namespace smoe
