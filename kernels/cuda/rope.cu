#include <cstdint>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"

namespace smoe {
namespace {
using namespace cuda;

// Angles are rounded to f32 where transformers rounds them; only then does the precision rise.
__global__ void rope_table_kernel(const float* frequencies, float scale, int half, std::int64_t angles, float* table) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= angles) return;
  const std::int64_t p = i / half;
  const int column = static_cast<int>(i - p * half);
  const auto angle = static_cast<double>(static_cast<float>(p) * frequencies[column]);
  float* row = table + p * 2 * half;
  row[column] = scale * static_cast<float>(cos(angle));
  row[half + column] = scale * static_cast<float>(sin(angle));
}

// A block a token. Rotates each pair (i, i + C/2) by +angle, or by -angle where direction is -1: the transpose of a rotation.
template <class A, int W>
__global__ void rotate_kernel(A* x, int heads, int rotated_heads, int half, const std::int32_t* positions,
                              const float* table, float direction, IdCheck in_table) {
  const std::int32_t position = positions[blockIdx.x];
  if (!in_table(position, blockIdx.x)) return;
  x += std::int64_t{blockIdx.x} * heads * 2 * half;
  const float *cosines = table + std::int64_t{position} * 2 * half, *sines = cosines + half;
  const int pieces = half / W;
  for (int i = threadIdx.x; i < rotated_heads * pieces; i += blockDim.x) {
    const int head = i / pieces, at = (i - head * pieces) * W;
    A *low = x + head * 2 * half + at, *high = low + half;
    float a[W], b[W], c[W], s[W];
    load(low, a);
    load(high, b);
    load(cosines + at, c);
    load(sines + at, s);
#pragma unroll
    for (int w = 0; w < W; ++w) {
      const float sine = direction * s[w], rotated = a[w] * c[w] - b[w] * sine;
      b[w] = b[w] * c[w] + a[w] * sine;
      a[w] = rotated;
    }
    store(low, a);
    store(high, b);
  }
}

}  // namespace

void CudaBackend::do_rope_table(std::span<const float> frequencies, float scale, const Tensor& table) {
  const std::int64_t half = table.dim(1) / 2, angles = table.dim(0) * half;
  if (angles == 0) return;
  auto* on_device = workspace_.take<float>(half);
  upload_(on_device, frequencies.data(), frequencies.size_bytes());
  launch(stream_, "rope_table", over(angles), rope_table_kernel, on_device, scale, static_cast<int>(half), angles,
         table.f32());
}

void CudaBackend::rotate(const char* op, const Tensor& x, std::int64_t rotated_heads, const Tensor& positions,
                         const Tensor& table, float direction) {
  const std::int64_t half = x.dim(2) / 2;
  by_type_and_width(x.type(), half, {x, table}, [&]<class A, int W>() {
    launch(stream_, op, {x.dim(0), threads_for(rotated_heads * half / W, 256)}, rotate_kernel<A, W>, data<A>(x),
           static_cast<int>(x.dim(1)), static_cast<int>(rotated_heads), static_cast<int>(half), positions.i32(),
           table.f32(), direction, complaints_.ids(op, "positions", table.dim(0)));
  });
}

void CudaBackend::do_rope_forward(const Tensor& x, std::int64_t rotated_heads, const Tensor& positions,
                                  const Tensor& table) {
  rotate("rope_forward", x, rotated_heads, positions, table, 1.0f);
}

void CudaBackend::do_rope_backward(const Tensor& dx, std::int64_t rotated_heads, const Tensor& positions,
                                   const Tensor& table) {
  rotate("rope_backward", dx, rotated_heads, positions, table, -1.0f);
}

}  // namespace smoe
