// What stands for this folder in a build without it: there was no nvcc, or it was left out (SMOE_CUDA=OFF).
#include <memory>
#include <stdexcept>
#include <string>

#include "kernels/backend.h"

namespace smoe {

std::string cuda_missing() { return "cuda is not in this build"; }

std::unique_ptr<Backend> make_cuda_backend() {
  throw std::runtime_error(
      "device: cuda is not in this build; expected auto or cpu, or a build where CMake finds nvcc");
}

}  // namespace smoe
