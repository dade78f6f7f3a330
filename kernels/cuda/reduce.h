// Sums and maxima over a warp and over a block, in one order: the same numbers give the same bits, in every thread.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"

namespace smoe::cuda {

inline constexpr unsigned all_lanes = 0xffffffffu;

struct Sum {
  template <class T>
  static __device__ T of(T a, T b) {
    return a + b;
  }
};
// A NaN is lost here, and met again in the sum of what is computed from the maximum.
struct Max {
  template <class T>
  static __device__ T of(T a, T b) {
    return a > b ? a : b;
  }
};

// Of a whole warp: all its lanes come here.
template <class How, class T>
__device__ T warp_all(T x) {
#pragma unroll
  for (int distance = warp / 2; distance > 0; distance /= 2) x = How::of(x, __shfl_xor_sync(all_lanes, x, distance));
  return x;
}
template <class T>
__device__ T warp_sum(T x) {
  return warp_all<Sum>(x);
}

// Of a whole block of at most 32 whole warps. `parts` is shared memory for a number of each warp, which no thread reads any
// more: a second call takes another.
template <class How, class T>
__device__ T block_all(T x, T* parts) {
  x = warp_all<How>(x);
  if (blockDim.x == warp) return x;
  if (threadIdx.x % warp == 0) parts[threadIdx.x / warp] = x;
  __syncthreads();
  // Each thread adds the parts up in the same order, so that none waits for another once more.
  const int warps = blockDim.x / warp;
  T all = parts[0];
  for (int i = 1; i < warps; ++i) all = How::of(all, parts[i]);
  return all;
}
template <class T>
__device__ T block_sum(T x, T* parts) {
  return block_all<Sum>(x, parts);
}

}  // namespace smoe::cuda
