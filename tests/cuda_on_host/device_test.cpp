// What is found of a device before anything computes on it, and what is said where it is not fit, or runs out of memory.
#include <gtest/gtest.h>

#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "kernels/cuda_device.h"
#include "tests/cuda_on_host/block.h"
#include "tests/support/message_of.h"

namespace smoe {
namespace {

using cuda_on_host::machine;
using test::mentions;
using test::message_of;

constexpr std::size_t mib = std::size_t{1} << 20;

template <class Action>
std::string out_of_memory(Action&& action) {
  try {
    action();
  } catch (const OutOfMemory& error) {
    return error.what();
  }
  ADD_FAILURE() << "there was memory for it";
  return {};
}

class CudaDevice : public ::testing::Test {
 protected:
  CudaDevice() { cuda_on_host::set_late(false); }
  ~CudaDevice() override { machine() = saved_; }

  // `auto` then computes on the CPU, and who wants CUDA is told why not.
  static void expect_missing(const std::string& why) {
    EXPECT_EQ(cuda_missing(), why);
    EXPECT_EQ(device_of(DeviceChoice::automatic), Device::cpu);
    EXPECT_EQ(message_of([] { make_backend(DeviceChoice::cuda); }), "device: " + why);
    EXPECT_EQ(make_backend(DeviceChoice::automatic, 1)->device(), Device::cpu);
    EXPECT_EQ(cuda_memory().total, 0u);
    EXPECT_EQ(cuda_devices(), 0);
  }

 private:
  cuda_on_host::Machine saved_ = machine();
};

TEST_F(CudaDevice, IsFound) {
  machine().devices = 3;
  EXPECT_EQ(cuda_missing(), "");
  EXPECT_EQ(cuda_devices(), 3);
  EXPECT_EQ(device_of(DeviceChoice::automatic), Device::cuda);
  EXPECT_EQ(device_of(DeviceChoice::cpu), Device::cpu);
}

TEST_F(CudaDevice, MissingDriverIsSaid) {
  machine().driver = false;
  expect_missing("found no NVIDIA driver (libcuda.so.1); expected one for CUDA 13.0 or later");
}

TEST_F(CudaDevice, OldDriverIsSaidWithBothVersions) {
  machine().driver_version = 12040;
  expect_missing("the NVIDIA driver here is for CUDA 12.4; expected one for CUDA 13.0 or later");
}

TEST_F(CudaDevice, DriverWithoutAGpuIsSaid) {
  machine().devices = 0;
  expect_missing(
      "found an NVIDIA driver and no GPU that this process may use (CUDA_VISIBLE_DEVICES hides those it does not name)");
}

TEST_F(CudaDevice, OldGpuIsSaidWithWhatItIs) {
  machine().compute_capability = 75;
  expect_missing("found a GPU of compute capability 7.5; expected 8.0 (Ampere) or later");
}

TEST_F(CudaDevice, MemoryIsWhatIsFreeAndThePeakWhatWasHeldAtOnce) {
  machine().memory = 512 * mib;
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  restart_cuda_peak();
  const DeviceMemory before = cuda_memory();
  EXPECT_EQ(before.total, 512 * mib);
  EXPECT_LE(before.free, before.total);
  {
    Arena arena(*backend);
    arena.take({16, static_cast<std::int64_t>(mib) / 4});
    EXPECT_EQ(cuda_memory().free, before.free - 16 * mib);
    EXPECT_EQ(cuda_memory().peak, before.peak + 16 * mib);
  }
  backend->synchronize();
  EXPECT_EQ(cuda_memory().free, before.free);
  EXPECT_EQ(cuda_memory().peak, before.peak + 16 * mib);
  restart_cuda_peak();
  EXPECT_EQ(cuda_memory().peak, before.peak);
}

TEST_F(CudaDevice, OutOfMemorySaysWhatWasAskedWhatIsFreeAndHowLargeTheDeviceIs) {
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  machine().memory = cuda_on_host::bytes_in_use() + 8 * mib;
  Arena arena(*backend);
  arena.take({4, static_cast<std::int64_t>(mib) / 4});
  const std::string message = out_of_memory([&] { arena.take({6, static_cast<std::int64_t>(mib) / 4}); });
  EXPECT_TRUE(mentions(
      message,
      {"out of memory of the GPU: 6.0 MiB more are wanted for tensors, beside 4.0 MiB; 4.0 of its ", " MiB are free"}))
      << message;
  EXPECT_NO_THROW(arena.take({4, static_cast<std::int64_t>(mib) / 4}));  // what fits is given
}

// An op's workspace has no arena.
TEST_F(CudaDevice, OutOfMemoryInsideAnOpSaysTheSame) {
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  machine().memory = cuda_on_host::bytes_in_use() + 8 * mib;
  EXPECT_TRUE(mentions(out_of_memory([&] { backend->allocate(9 * mib); }),
                       {"out of memory of the GPU: 9.0 MiB more are wanted", "8.0 of its "}));
  machine().memory = mib;  // less than is in use
  EXPECT_TRUE(mentions(out_of_memory([&] { backend->allocate(1); }), {"0.0 of its 1.0 MiB are free"}));
}

TEST_F(CudaDevice, OutOfPageLockedMemoryIsTheHosts) {
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  machine().locked_memory = 100;
  EXPECT_EQ(
      out_of_memory([&] { backend->allocate_host(101); }),
      "out of page-locked memory of the host: 101 bytes more are wanted for copies from the GPU (ulimit -l limits "
      "it)");
}

}  // namespace
}  // namespace smoe
