#include <cstdint>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/token_noise.h"

namespace smoe {
namespace {
using namespace cuda;

// A block has a token. W numbers at once, or one: a thread has as many as one piece, and four at least, which are a draw.
template <class A, int W>
__global__ void jitter_kernel(TokenNoise noise, const A* x, A* y, int columns, bool adds) {
  constexpr int entries = W > entries_of_a_draw ? W : entries_of_a_draw;
  const std::int64_t t = blockIdx.x;
  x += t * columns, y += t * columns;
  for (int d = threadIdx.x * entries; d < columns; d += blockDim.x * entries) {
    float factors[entries];
#pragma unroll
    for (int i = 0; i < entries; i += entries_of_a_draw)
      draw_noise(noise, static_cast<std::uint64_t>(noise.first_token + t), (d + i) / entries_of_a_draw, factors + i);
#pragma unroll
    for (int i = 0; i < entries; ++i) factors[i] = fmaf(noise.width, factors[i], 1.0f);
#pragma unroll
    for (int i = 0; i < entries; i += W) {
      if (d + i >= columns) break;
      float from[W], to[W]{};
      load(x + d + i, from);
      if (adds) load(y + d + i, to);
#pragma unroll
      for (int w = 0; w < W; ++w) to[w] += from[w] * factors[i + w];
      store(y + d + i, to);
    }
  }
}

}  // namespace

void CudaBackend::do_jitter(const TokenNoise& noise, const Tensor& x, const Tensor& y, Write write) {
  const std::int64_t T = x.dim(0), D = x.dim(1);
  by_type_and_width(x.type(), D, {x, y}, [&]<class A, int W>() {
    constexpr int entries = W > entries_of_a_draw ? W : entries_of_a_draw;
    launch(stream_, "jitter", {T, threads_for(ceil_div(D, entries), 256)}, jitter_kernel<A, W>, noise, data<A>(x),
           data<A>(y), static_cast<int>(D), write == Write::add);
  });
}

}  // namespace smoe
