// How kernels are launched: one place, which checks every launch and names the op.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/cuda/device.h"
#include "kernels/cuda/error.h"

namespace smoe::cuda {

inline constexpr int warp = 32;
// More has to be asked for, kernel by kernel: 48 KiB, with what the kernel declares itself, which is a few KiB.
inline constexpr std::size_t shared_bytes_of_any_kernel = 40 * 1024;

struct Grid {
  std::int64_t blocks;     // none: nothing is launched
  int threads;             // of a block
  std::size_t shared = 0;  // bytes that dynamic_shared() gives
};

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Threads for a row of `items`: a warp at least, whole warps, at most `most`.
constexpr int threads_for(std::int64_t items, int most) {
  const std::int64_t threads = ceil_div(items, warp) * warp;
  return static_cast<int>(threads < warp ? warp : threads > most ? most : threads);
}

// One thread an item, in blocks of 256.
constexpr Grid over(std::int64_t items) { return {ceil_div(items, 256), 256}; }

template <class... Parameters, class... Arguments>
void launch(cudaStream_t stream, const char* op, const Grid& grid, void (*kernel)(Parameters...),
            Arguments&&... arguments) {
  if (grid.blocks == 0) return;
  if (grid.shared > shared_bytes_of_any_kernel)
    check(op, cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(grid.shared)));
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(grid.blocks));
  config.blockDim = dim3(static_cast<unsigned>(grid.threads));
  config.dynamicSmemBytes = grid.shared;
  config.stream = stream;
  check(op, cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
}

}  // namespace smoe::cuda
