#include "kernels/cuda/swap_outer.h"

#include "kernels/cuda/launch.h"

namespace smoe::cuda {
namespace {

// to [second, first, S] = from [first, second, S]
__global__ void swap_outer_kernel(const float* from, float* to, int first, int second, int length, std::int64_t size) {
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (at >= size) return;
  const std::int64_t row = at / length, s = at % length;
  to[at] = from[(row % first * second + row / first) * length + s];
}

}  // namespace

void swap_outer(const Stream& stream, const char* op, const float* from, std::int64_t first, std::int64_t second,
                std::int64_t length, float* to) {
  const std::int64_t size = first * second * length;
  launch(stream, op, over(size), swap_outer_kernel, from, to, static_cast<int>(first), static_cast<int>(second),
         static_cast<int>(length), size);
}

}  // namespace smoe::cuda
