// The emulation itself: what a device would compute, it computes; what a device leaves undefined, or cannot do, it refuses.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"
#include "tests/support/message_of.h"

namespace smoe::cuda {
namespace {
using test::message_of;

class Emulation : public testing::TestWithParam<int> {
 protected:
  Emulation() {
    cuda_on_host::set_order(static_cast<std::uint64_t>(GetParam()));
    cuda_on_host::set_late(false);
  }
  ~Emulation() override { cuda_on_host::set_order(0), cuda_on_host::set_late(false); }

  template <class T>
  struct Array {
    Stream& stream;
    std::int64_t count;
    T* at = static_cast<T*>(take(stream, static_cast<std::size_t>(count) * sizeof(T)));
    ~Array() { give_back(stream, at); }
    std::vector<T> read() const {
      std::vector<T> host(static_cast<std::size_t>(count));
      check("copy", cudaMemcpyAsync(host.data(), at, host.size() * sizeof(T), cudaMemcpyDeviceToHost, stream));
      stream.synchronize();
      return host;
    }
  };

  Stream stream_;
};

// ---- kernels that are right ----

__global__ void neighbours_kernel(int* out) {
  __shared__ int numbers[256];
  numbers[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = numbers[(threadIdx.x + 1) % blockDim.x];
}

TEST_P(Emulation, ABarrierWaitsForAllThreadsOfTheBlock) {
  const Array<int> out{stream_, 2 * 96};
  launch(stream_, "neighbours", {2, 96}, neighbours_kernel, out.at);
  const std::vector<int> found = out.read();
  for (int i = 0; i < 192; ++i) EXPECT_EQ(found[static_cast<std::size_t>(i)], (i + 1) % 96) << i;
}

__global__ void warp_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
  int* own = out + threadIdx.x * 8;
  own[0] = __shfl_xor_sync(all_lanes, lane, 3);
  own[1] = __shfl_up_sync(all_lanes, lane, 2);
  own[2] = __shfl_down_sync(all_lanes, lane, 5);
  own[3] = __shfl_sync(all_lanes, lane, 7);
  own[4] = static_cast<int>(__ballot_sync(all_lanes, lane % 3 == 0));
  own[5] = static_cast<int>(__match_any_sync(all_lanes, lane / 4));
  own[6] = __popc(0xf0f0u) + __ffs(8);
  own[7] = __shfl_xor_sync(all_lanes, lane, 1, 8);
}

TEST_P(Emulation, LanesOfAWarpMeet) {
  const Array<int> out{stream_, 64 * 8};
  launch(stream_, "warp", {1, 64}, warp_kernel, out.at);
  const std::vector<int> found = out.read();
  unsigned thirds = 0;
  for (int lane = 0; lane < 32; lane += 3) thirds |= 1u << lane;
  for (int t = 0; t < 64; ++t) {
    const int lane = t % 32, *own = found.data() + t * 8;
    EXPECT_EQ(own[0], lane ^ 3);
    EXPECT_EQ(own[1], lane < 2 ? lane : lane - 2);
    EXPECT_EQ(own[2], lane + 5 > 31 ? lane : lane + 5);
    EXPECT_EQ(own[3], 7);
    EXPECT_EQ(static_cast<unsigned>(own[4]), thirds);
    EXPECT_EQ(static_cast<unsigned>(own[5]), 0xfu << (lane / 4 * 4));
    EXPECT_EQ(own[6], 12);
    EXPECT_EQ(own[7], lane ^ 1);
  }
}

__global__ void early_leavers_kernel(int* out) {
  if (threadIdx.x % 2 == 1) return;
  const unsigned mask = 0x55555555u;
  __syncthreads();
  out[threadIdx.x] = __popc(__ballot_sync(mask, 1));
}

TEST_P(Emulation, ThreadsThatHaveReturnedAreNotWaitedFor) {
  const Array<int> out{stream_, 64};
  launch(stream_, "early_leavers", {1, 64}, early_leavers_kernel, out.at);
  const std::vector<int> found = out.read();
  for (std::size_t t = 0; t < 64; t += 2) EXPECT_EQ(found[t], 16) << t;
}

// ---- kernels that are wrong ----

__global__ void no_barrier_kernel(float* out) {
  __shared__ float numbers[64];
  numbers[threadIdx.x] = 1;
  out[threadIdx.x] = numbers[63 - threadIdx.x];
}

TEST_P(Emulation, WithoutABarrierSomeThreadReadsNaN) {
  const Array<float> out{stream_, 64};
  launch(stream_, "no_barrier", {1, 64}, no_barrier_kernel, out.at);
  float sum = 0;
  for (const float x : out.read()) sum += x;
  EXPECT_TRUE(std::isnan(sum));
}

__global__ void half_a_warp_kernel(float* out, int n) {
  if (static_cast<int>(threadIdx.x) >= n) return;
  out[threadIdx.x] = warp_sum(1.0f);
}

TEST_P(Emulation, AShuffleAcrossAPartialWarpIsRefused) {
  const Array<float> out{stream_, 64};
  EXPECT_NO_THROW(launch(stream_, "half_a_warp", {1, 32}, half_a_warp_kernel, out.at, 32));
  for (const auto& [threads, n] : {std::pair(32, 20), std::pair(48, 48), std::pair(64, 63)})
    EXPECT_NE(message_of([&] {
                launch(stream_, "half_a_warp", {1, threads}, half_a_warp_kernel, out.at, n);
              }).find("which is not there"),
              std::string::npos)
        << threads << " " << n;
  EXPECT_NO_THROW(launch(stream_, "half_a_warp", {1, 32}, half_a_warp_kernel, out.at, 32));  // goes on after an error
}

__global__ void divided_barrier_kernel() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __shfl_sync(1u << 7, 0, 7);  // a lane that is not in the mask comes, the one that is does too
}
__global__ void waits_elsewhere_kernel() {
  if (threadIdx.x == 0)
    __syncthreads();
  else
    __syncwarp();
}
__global__ void different_meetings_kernel(int* out) {
  if (threadIdx.x % 2 == 0)
    out[threadIdx.x] = static_cast<int>(__ballot_sync(all_lanes, 1));
  else
    out[threadIdx.x] = __shfl_sync(all_lanes, 1, 0);
}

TEST_P(Emulation, LanesThatMeetNowhereAreRefused) {
  const Array<int> out{stream_, 32};
  const auto of = [&](auto kernel, int threads, auto... arguments) {
    return message_of([&] { launch(stream_, "wrong", {1, threads}, kernel, arguments...); });
  };
  EXPECT_NE(of(divided_barrier_kernel, 64).find("which is not in it"), std::string::npos);
  EXPECT_NE(of(waits_elsewhere_kernel, 32).find("wait for each other in different places"), std::string::npos);
  EXPECT_NE(of(different_meetings_kernel, 32, out.at).find("meet in different places"), std::string::npos);
}

using EmulationDeathTest = Emulation;

__global__ void ones_kernel(float* out, std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i <= n) out[i] = 1;  // one too many
}
__global__ void beyond_shared_kernel(float* out) {
  __shared__ float numbers[32];
  numbers[threadIdx.x + 1] = 1;
  __syncwarp();
  out[threadIdx.x] = numbers[threadIdx.x];
}
__global__ void pieces_kernel(float* out) {
  const float ones[4] = {1, 1, 1, 1};
  store(out + 1, ones);
}

TEST_P(EmulationDeathTest, AnIndexOutOfBoundsAndAPieceThatIsNotAlignedEndTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Array<float> out{stream_, 300};
  EXPECT_DEATH(launch(stream_, "ones", over(300), ones_kernel, out.at, std::int64_t{300}), "heap-buffer-overflow");
  EXPECT_DEATH(launch(stream_, "beyond_shared", {1, 32}, beyond_shared_kernel, out.at), "out of bounds");
  EXPECT_DEATH(launch(stream_, "pieces", {1, 1}, pieces_kernel, out.at), "misaligned address");
}

// ---- launches ----

__global__ void nothing_kernel() {}
__global__ void last_shared_byte_kernel(std::size_t bytes) { dynamic_shared<unsigned char>()[bytes - 1] = 1; }

TEST_P(Emulation, LaunchesThatADeviceRefusesAreErrors) {
  EXPECT_NO_THROW(launch(stream_, "nothing", {0, 32}, nothing_kernel));
  EXPECT_NO_THROW(launch(stream_, "nothing", {1, 1024}, nothing_kernel));
  EXPECT_NE(message_of([&] {
              launch(stream_, "nothing", {1, 1025}, nothing_kernel);
            }).find("cuda: nothing: invalid"),
            std::string::npos);
  EXPECT_THROW(launch(stream_, "nothing", {std::int64_t{1} << 31, 32}, nothing_kernel), Error);
  constexpr std::size_t bytes = 200 * 1024;  // more than a kernel has without asking
  EXPECT_NO_THROW(launch(stream_, "shared", {1, 1, bytes}, last_shared_byte_kernel, bytes));
  EXPECT_THROW(launch(stream_, "shared", {1, 1, 228 * 1024}, last_shared_byte_kernel, bytes), Error);
}

// ---- streams ----

TEST_P(Emulation, LateWorkIsDoneWhenSomebodyWaits) {
  cuda_on_host::set_late(true);
  const Array<int> out{stream_, 96};
  int* locked = nullptr;
  check("page-locked memory", cudaMallocHost(reinterpret_cast<void**>(&locked), 96 * sizeof(int)));
  Events events(stream_);
  launch(stream_, "neighbours", {1, 96}, neighbours_kernel, out.at);
  check("copy", cudaMemcpyAsync(locked, out.at, 96 * sizeof(int), cudaMemcpyDeviceToHost, stream_));
  const Event event = events.record();
  EXPECT_NE(locked[0], 1);
  events.wait(event);
  EXPECT_EQ(locked[0], 1);
  check("page-locked memory", cudaFreeHost(locked));
}

// What was given back is had again at once, though the device has yet to come to where it was.
TEST_P(Emulation, MemoryThatWasGivenBackIsWaitedFor) {
  cuda_on_host::set_late(true);
  const std::size_t before = cuda_on_host::machine().memory, used = cuda_on_host::bytes_in_use();
  cuda_on_host::machine().memory = used + 1000;
  void* const first = take(stream_, 700);
  give_back(stream_, first);
  void* second = nullptr;
  EXPECT_NO_THROW(second = take(stream_, 800));
  EXPECT_THROW(take(stream_, 300), std::bad_alloc);
  give_back(stream_, second);
  stream_.synchronize();
  EXPECT_EQ(cuda_on_host::bytes_in_use(), used);
  cuda_on_host::machine().memory = before;
}

INSTANTIATE_TEST_SUITE_P(Orders, Emulation, testing::Values(0, 1, 2, 3));
INSTANTIATE_TEST_SUITE_P(Orders, EmulationDeathTest, testing::Values(0));

}  // namespace
}  // namespace smoe::cuda
