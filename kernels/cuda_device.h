// What is asked of the GPU beside the backend that computes on it, and before there is one: make_cuda_backend() (kernels/backend.h)
// makes it on the device that this looks at. In a build without CUDA, and where cuda_missing() says why, all is 0.
#pragma once

#include <array>
#include <cstdint>

namespace smoe {

// Bytes.
struct DeviceMemory {
  std::uint64_t total = 0;
  std::uint64_t free = 0;  // that this process may still take: what nobody holds, and what it has given back itself
  std::uint64_t peak =
      0;  // most that this process has held at once, for tensors and workspace, since restart_cuda_peak()
};
DeviceMemory cuda_memory();
void restart_cuda_peak();

int cuda_devices();  // that this process sees
// From here on this process works on that one of those it sees, counted around: to be called before anything else is asked, since the
// first question makes what a process has on a GPU. Of the thread that calls it.
void use_cuda_device(int number);
struct CudaDevice {
  std::array<std::uint8_t, 16> uuid{};
  int driver_version = 0;  // 13000: for CUDA 13.0
};
CudaDevice cuda_device();  // that this process works on

// Larger heads than this no kernel of attention takes.
constexpr std::int64_t most_cuda_head_dim = 256;

}  // namespace smoe
