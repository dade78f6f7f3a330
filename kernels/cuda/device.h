// All that kernels take from CUDA. The other files of this folder include no header of CUDA for device code: tests/cuda_on_host
// has a device.h of its own, by which they are compiled for the CPU, where each kernel runs over the op cases.
//
// A kernel keeps to what both give: threadIdx, blockIdx, blockDim and gridDim (x alone), __shared__ arrays of fixed size
// in kernels, dynamic_shared(), __syncthreads, __syncwarp, shuffles, ballots, matches and maxima of a warp, atomics on
// integers. Shared arrays are declared in kernels, whose names end in _kernel.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace smoe::cuda {

// The bytes of shared memory that the launch asked for, aligned to 16.
template <class T>
__device__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char smoe_dynamic_shared[];
  return reinterpret_cast<T*>(smoe_dynamic_shared);
}

// Two numbers rounded to bf16, the first in the lower half.
__device__ inline std::uint32_t bf16_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

}  // namespace smoe::cuda
