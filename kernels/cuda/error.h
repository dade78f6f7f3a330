// Errors of the CUDA runtime, as exceptions that say what was asked.
#pragma once

#include <stdexcept>
#include <string>

#include "kernels/cuda/runtime.h"

namespace smoe::cuda {

// An error that stays: after it the device computes nothing more for this process.
class Error : public std::runtime_error {
 public:
  Error(const std::string& what, cudaError_t code)
      : std::runtime_error("cuda: " + what + ": " + cudaGetErrorString(code) + " (" + cudaGetErrorName(code) + ")") {}
};

inline void check(const char* what, cudaError_t code) {
  if (code != cudaSuccess) throw Error(what, code);
}

}  // namespace smoe::cuda
