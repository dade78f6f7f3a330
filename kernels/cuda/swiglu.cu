#include <cstdint>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"

namespace smoe {
namespace {
using namespace cuda;

constexpr int most_swiglu_threads = 256;

// A block a row.
template <class A, int W>
__global__ void swiglu_forward_kernel(const A* h, const float* row_weights, int F, A* a) {
  const A *gate = h + std::int64_t{blockIdx.x} * 2 * F, *up = gate + F;
  a += std::int64_t{blockIdx.x} * F;
  const float weight = row_weights ? row_weights[blockIdx.x] : 1.0f;
  for (int f = threadIdx.x * W; f < F; f += blockDim.x * W) {
    float gates[W], ups[W];
    load(gate + f, gates);
    load(up + f, ups);
#pragma unroll
    for (int w = 0; w < W; ++w) gates[w] = weight * (gates[w] * sigmoid(gates[w]) * ups[w]);
    store(a + f, gates);
  }
}

// With s = sigmoid(gate): silu' = s * (1 + gate * (1 - s)). A thread writes where it has read, so dh may be h.
template <class A, int W>
__global__ void swiglu_backward_kernel(const A* h, const float* row_weights, const A* da, int F, A* dh,
                                       float* drow_weights, A* a) {
  __shared__ float of_warps[warp];
  const A *gate = h + std::int64_t{blockIdx.x} * 2 * F, *up = gate + F;
  A *dgate = dh + std::int64_t{blockIdx.x} * 2 * F, *dup = dgate + F;
  da += std::int64_t{blockIdx.x} * F;
  a += std::int64_t{blockIdx.x} * F;
  const float weight = row_weights ? row_weights[blockIdx.x] : 1.0f;
  float dweight = 0;
  for (int f = threadIdx.x * W; f < F; f += blockDim.x * W) {
    float gates[W], ups[W], d[W], to[W];
    load(gate + f, gates);
    load(up + f, ups);
    load(da + f, d);
#pragma unroll
    for (int w = 0; w < W; ++w) {
      const float g = gates[w], u = ups[w], s = sigmoid(g), silu = g * s, product = silu * u, weighted = weight * d[w];
      dweight += d[w] * product;
      to[w] = weight * product;
      gates[w] = weighted * u * (s * (1.0f + g * (1.0f - s)));
      ups[w] = weighted * silu;
    }
    store(a + f, to);
    store(dgate + f, gates);
    store(dup + f, ups);
  }
  if (!drow_weights) return;
  dweight = block_sum(dweight, of_warps);
  if (threadIdx.x == 0) drow_weights[blockIdx.x] = dweight;
}

}  // namespace

void CudaBackend::do_swiglu_forward(const Tensor& h, const Tensor& row_weights, const Tensor& a) {
  const std::int64_t R = a.dim(0), F = a.dim(1);
  by_type_and_width(a.type(), F, {h, a}, [&]<class A, int W>() {
    launch(stream_, "swiglu_forward", {R, threads_for(F / W, most_swiglu_threads)}, swiglu_forward_kernel<A, W>,
           data<A>(h), data<float>(row_weights), static_cast<int>(F), data<A>(a));
  });
}

void CudaBackend::do_swiglu_backward(const Tensor& h, const Tensor& row_weights, const Tensor& da, const Tensor& dh,
                                     const Tensor& drow_weights, const Tensor& a) {
  const std::int64_t R = a.dim(0), F = a.dim(1);
  by_type_and_width(a.type(), F, {h, da, dh, a}, [&]<class A, int W>() {
    launch(stream_, "swiglu_backward", {R, threads_for(F / W, most_swiglu_threads)}, swiglu_backward_kernel<A, W>,
           data<A>(h), data<float>(row_weights), data<A>(da), static_cast<int>(F), data<A>(dh),
           data<float>(drow_weights), data<A>(a));
  });
}

}  // namespace smoe
