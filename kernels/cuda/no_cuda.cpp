// What stands for this folder in a build without it: there was no nvcc, or it was left out (SMOE_CUDA=OFF).
#include <memory>
#include <stdexcept>
#include <string>

#include "kernels/backend.h"
#include "kernels/cuda_device.h"

namespace smoe {

std::string cuda_missing() { return "cuda is not in this build"; }

DeviceMemory cuda_memory() { return {}; }

void restart_cuda_peak() {}

int cuda_devices() { return 0; }

void use_cuda_device(int) {}

CudaDevice cuda_device() { return {}; }

std::unique_ptr<Backend> make_cuda_backend() {
  throw std::runtime_error(
      "device: cuda is not in this build; expected auto or cpu, or a build where CMake finds nvcc");
}

}  // namespace smoe
