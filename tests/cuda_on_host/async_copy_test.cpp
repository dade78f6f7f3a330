// Copies to shared memory that go on behind a thread's back, in the emulation: they come as late as a wait allows, so a wait or a barrier
// that a kernel lacks, or that waits for too little, is a NaN.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/memory.h"

namespace smoe::cuda {
namespace {

constexpr int threads = 64, of_a_thread = 4, count = threads * of_a_thread;

class AsyncCopies : public testing::TestWithParam<int> {
 protected:
  AsyncCopies() {
    cuda_on_host::set_order(static_cast<std::uint64_t>(GetParam()));
    cuda_on_host::set_late(false);
    std::vector<float> numbers(2 * count);
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i + 1);
    check("copy", cudaMemcpyAsync(in_, numbers.data(), sizeof(float) * 2 * count, cudaMemcpyHostToDevice, stream_));
  }
  ~AsyncCopies() override {
    give_back(stream_, in_);
    give_back(stream_, out_);
    cuda_on_host::set_order(0);
  }

  // What the kernel makes of the numbers 1, 2, ...
  template <class Kernel>
  std::vector<float> run(Kernel kernel, std::size_t shared = 0) {
    launch(stream_, "async", {1, threads, shared}, kernel, static_cast<const float*>(in_), out_);
    std::vector<float> out(count);
    check("copy", cudaMemcpyAsync(out.data(), out_, sizeof(float) * count, cudaMemcpyDeviceToHost, stream_));
    stream_.synchronize();
    return out;
  }

  static bool has_nan(const std::vector<float>& numbers) {
    for (const float x : numbers)
      if (std::isnan(x)) return true;
    return false;
  }

  Stream stream_;
  float* in_ = static_cast<float*>(take(stream_, sizeof(float) * 2 * count));
  float* out_ = static_cast<float*>(take(stream_, sizeof(float) * count));
};

// ---- kernels that are right ----

// Two groups in order, of which the second is on its way while the first is read by another thread.
__global__ void two_groups_kernel(const float* in, float* out) {
  alignas(16) __shared__ float numbers[2][count];
  const int own = static_cast<int>(threadIdx.x) * of_a_thread, other = count - of_a_thread - own;
  copy_async<16>(numbers[0] + own, in + own, true);
  commit_copies();
  copy_async<16>(numbers[1] + own, in + count + own, threadIdx.x % 2 == 0);
  commit_copies();
  wait_for_copies<1>();
  __syncthreads();
  for (int i = 0; i < of_a_thread; ++i) out[other + i] = numbers[0][other + i];
  wait_for_copies<0>();
  __syncthreads();
  for (int i = 0; i < of_a_thread; ++i) out[other + i] += 1000 * numbers[1][other + i];
}

TEST_P(AsyncCopies, ComeInGroupsAndAreZeroWhereNothingIs) {
  const std::vector<float> found = run(two_groups_kernel);
  for (int i = 0; i < count; ++i) {
    const bool there = i / of_a_thread % 2 == 0;
    EXPECT_EQ(found[static_cast<std::size_t>(i)], static_cast<float>(i + 1 + (there ? 1000 * (count + i + 1) : 0)))
        << i;
  }
}

__global__ void single_numbers_kernel(const float* in, float* out) {
  __shared__ float numbers[threads];
  copy_async<4>(numbers + threadIdx.x, threadIdx.x < 40 ? in + 1 + threadIdx.x : nullptr, threadIdx.x < 40);
  commit_copies();
  wait_for_copies<0>();
  __syncthreads();
  out[threadIdx.x] = numbers[threads - 1 - threadIdx.x];
}

TEST_P(AsyncCopies, SingleNumbersNeedNoWiderAlignment) {
  const std::vector<float> found = run(single_numbers_kernel);
  for (int t = 0; t < threads; ++t) {
    const int i = threads - 1 - t;
    EXPECT_EQ(found[static_cast<std::size_t>(t)], i < 40 ? static_cast<float>(i + 2) : 0.0f) << t;
  }
}

// ---- kernels that are wrong ----

// left < 0: no wait. own: a thread reads what it has copied itself, so that it needs no barrier.
template <int left, bool commits, bool barrier, bool own>
__global__ void wrong_kernel(const float* in, float* out) {
  alignas(16) __shared__ float numbers[count];
  const int first = static_cast<int>(threadIdx.x) * of_a_thread, read = own ? first : count - of_a_thread - first;
  copy_async<16>(numbers + first, in + first, true);
  if constexpr (commits) commit_copies();
  if constexpr (left >= 0) wait_for_copies < left<0 ? 0 : left>();
  if constexpr (barrier) __syncthreads();
  for (int i = 0; i < of_a_thread; ++i) out[read + i] = numbers[read + i];
}

TEST_P(AsyncCopies, WithoutAWaitTheyHaveNotCome) {
  EXPECT_FALSE(has_nan(run(wrong_kernel<0, true, true, false>)));  // the right one
  EXPECT_TRUE(has_nan(run(wrong_kernel<-1, true, true, false>)));
}
TEST_P(AsyncCopies, AWaitThatLeavesOneGroupLeavesTheLast) {
  EXPECT_TRUE(has_nan(run(wrong_kernel<1, true, true, false>)));
}
TEST_P(AsyncCopies, WhatIsOfNoGroupIsNotWaitedFor) { EXPECT_TRUE(has_nan(run(wrong_kernel<0, false, true, false>))); }
TEST_P(AsyncCopies, WithoutABarrierOtherThreadsReadNaN) {
  EXPECT_TRUE(has_nan(run(wrong_kernel<0, true, false, false>)));
  EXPECT_FALSE(has_nan(run(wrong_kernel<0, true, false, true>)));  // its own are there
}

// The next copy goes where some thread has yet to read.
__global__ void too_early_kernel(const float* in, float* out) {
  alignas(16) __shared__ float numbers[count];
  const int own = static_cast<int>(threadIdx.x) * of_a_thread, other = count - of_a_thread - own;
  copy_async<16>(numbers + own, in + own, true);
  commit_copies();
  wait_for_copies<0>();
  __syncthreads();
  for (int i = 0; i < of_a_thread; ++i) out[other + i] = numbers[other + i];
  copy_async<16>(numbers + own, in + count + own, true);
  commit_copies();
  wait_for_copies<0>();
}

TEST_P(AsyncCopies, IntoWhatIsStillReadAreSeen) {
  const std::vector<float> found = run(too_early_kernel);
  int wrong = 0;
  for (int i = 0; i < count; ++i) wrong += found[static_cast<std::size_t>(i)] != static_cast<float>(i + 1) ? 1 : 0;
  EXPECT_GT(wrong, 0);
}

template <int offset>
__global__ void shifted_kernel(const float* in, float* out) {
  alignas(16) __shared__ float numbers[count];
  const int own = static_cast<int>(threadIdx.x) * of_a_thread;
  copy_async<16>(numbers + own, in + own + offset, true);
  commit_copies();
  wait_for_copies<0>();
  out[own] = numbers[own];
}
__global__ void beyond_shared_kernel(const float* in, float*) {
  copy_async<16>(dynamic_shared<float>() + threadIdx.x * of_a_thread, in, true);
}

using AsyncCopiesDeathTest = AsyncCopies;

TEST_P(AsyncCopiesDeathTest, OutOfBoundsOrBetween16BytesEndTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_FALSE(std::isnan(run(shifted_kernel<of_a_thread>)[0]));  // the right one
  EXPECT_DEATH(run(shifted_kernel<1>), "an address between 16 bytes");
  EXPECT_DEATH(run(shifted_kernel<count + of_a_thread>), "heap-buffer-overflow");
  EXPECT_DEATH(run(beyond_shared_kernel, sizeof(float) * count - 1), "heap-buffer-overflow");
}

TEST(PowerOfTwo, FlushesWhatIsNotNormalAndKeepsNaN) {
  EXPECT_EQ(power_of_two(-3), 0.125f);
  EXPECT_EQ(power_of_two(-126), std::numeric_limits<float>::min());
  EXPECT_EQ(power_of_two(-127), 0.0f);
  EXPECT_EQ(power_of_two(-std::numeric_limits<float>::infinity()), 0.0f);
  EXPECT_EQ(power_of_two(std::numeric_limits<float>::infinity()), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(power_of_two(std::nanf(""))));
}

INSTANTIATE_TEST_SUITE_P(Orders, AsyncCopies, testing::Values(0, 1, 2, 3));
INSTANTIATE_TEST_SUITE_P(Orders, AsyncCopiesDeathTest, testing::Values(0));

}  // namespace
}  // namespace smoe::cuda
