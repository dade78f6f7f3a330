#include <algorithm>
#include <cstdint>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"

namespace smoe {
namespace {
using namespace cuda;

template <class T, int W>
__global__ void fill_kernel(T* to, T value, std::int64_t pieces) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= pieces) return;
  Pack<T, W> pack;
#pragma unroll
  for (int w = 0; w < W; ++w) pack.at[w] = value;
  reinterpret_cast<Pack<T, W>*>(to)[i] = pack;
}

template <class A, int W>
__global__ void add_kernel(const A* a, const A* b, A* out, std::int64_t pieces) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= pieces) return;
  float x[W], y[W];
  load(a + i * W, x);
  load(b + i * W, y);
#pragma unroll
  for (int w = 0; w < W; ++w) x[w] += y[w];
  store(out + i * W, x);
}

template <class A, int W>
__global__ void sum_rows_kernel(const A* parts, int count, std::int64_t pieces, A* out) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= pieces) return;
  float sum[W] = {};
#pragma unroll 4
  for (int p = 0; p < count; ++p) {
    float part[W];
    load(parts + (p * pieces + i) * W, part);
#pragma unroll
    for (int w = 0; w < W; ++w) sum[w] += part[w];
  }
  store(out + i * W, sum);
}

constexpr int sum_threads = 256;
constexpr std::int64_t numbers_of_a_block = 16 * sum_threads;

// parts[block] = the sum of the numbers, or of their squares, that are this block's: every gridDim'th piece of 4.
template <bool squares, int W>
__global__ void sum_kernel(const float* x, std::int64_t pieces, double* parts) {
  __shared__ double of_warps[warp];
  double sum = 0;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < pieces;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    float numbers[W];
    load(x + i * W, numbers);
#pragma unroll
    for (int w = 0; w < W; ++w) {
      const auto number = static_cast<double>(numbers[w]);
      sum += squares ? number * number : number;
    }
  }
  sum = block_sum(sum, of_warps);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

__global__ void add_parts_kernel(const double* parts, int count, double* out) {
  __shared__ double of_warps[warp];
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) sum += parts[i];
  sum = block_sum(sum, of_warps);
  if (threadIdx.x == 0) *out += sum;
}

// a = b + 3 c
__global__ void triad_kernel(float4* a, const float4* b, const float4* c, std::int64_t pieces) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= pieces) return;
  const float4 x = b[i], y = c[i];
  a[i] = float4{x.x + 3 * y.x, x.y + 3 * y.y, x.z + 3 * y.z, x.w + 3 * y.w};
}

template <class T>
void fill_with(cudaStream_t stream, const Tensor& to, T value) {
  constexpr int width = 16 / sizeof(T);
  T* data = static_cast<T*>(to.raw());
  const std::int64_t n = to.elements();
  if (in_pieces(n, width, {to}))
    launch(stream, "fill", over(n / width), fill_kernel<T, width>, data, value, n / width);
  else
    launch(stream, "fill", over(n), fill_kernel<T, 1>, data, value, n);
}

}  // namespace

void CudaBackend::do_fill(const Tensor& to, float value) {
  switch (to.type()) {
    case DType::f32: return fill_with(stream_, to, value);
    case DType::bf16: return fill_with(stream_, to, rounded(value));
    case DType::i32: return fill_with(stream_, to, static_cast<std::int32_t>(value));
    case DType::f64: return fill_with(stream_, to, static_cast<double>(value));
  }
}

void CudaBackend::do_add(const Tensor& a, const Tensor& b, const Tensor& out) {
  const std::int64_t n = out.elements();
  by_type_and_width(out.type(), n, {a, b, out}, [&]<class A, int W>() {
    launch(stream_, "add", over(n / W), add_kernel<A, W>, data<A>(a), data<A>(b), data<A>(out), n / W);
  });
}

// ---- sums ----

void CudaBackend::do_sum_rows(const Tensor& parts, const Tensor& out) {
  const std::int64_t n = out.elements();
  by_type_and_width(out.type(), n, {parts, out}, [&]<class A, int W>() {
    launch(stream_, "sum_rows", over(n / W), sum_rows_kernel<A, W>, data<A>(parts), static_cast<int>(parts.dim(0)),
           n / W, data<A>(out));
  });
}

void CudaBackend::sum_of(const char* op, const Tensor& x, const Tensor& out, bool squares) {
  const std::int64_t n = x.elements();
  if (n == 0) return;
  // The blocks depend on the size alone, and so does the order of the sum.
  const std::int64_t blocks = std::min<std::int64_t>(ceil_div(n, numbers_of_a_block), 1024);
  auto* parts = workspace_.take<double>(blocks);
  by_width<float>(n, {x}, [&]<class A, int W>() {
    launch(stream_, op, {blocks, sum_threads}, squares ? sum_kernel<true, W> : sum_kernel<false, W>, data<A>(x), n / W,
           parts);
  });
  launch(stream_, op, {1, sum_threads}, add_parts_kernel, parts, static_cast<int>(blocks), out.f64());
}

void CudaBackend::do_sum(const Tensor& x, const Tensor& out) { sum_of("sum", x, out, false); }

void CudaBackend::do_sum_of_squares(const Tensor& x, const Tensor& out) { sum_of("sum_of_squares", x, out, true); }

// ---- the rate of memory ----

double CudaBackend::do_measure_memory_rate(const Tensor& room) {
  const std::int64_t pieces = room.elements() / 12;
  if (pieces == 0) return 0;
  auto* a = reinterpret_cast<float4*>(room.f32());
  const OwnedEvent begin = make_timed_event(), end = make_timed_event();
  float best = 0;
  for (int round = 0; round < 5; ++round) {
    check("an event", cudaEventRecord(begin.get(), stream_));
    launch(stream_, "measure_memory_rate", over(pieces), triad_kernel, a, a + pieces, a + 2 * pieces, pieces);
    check("an event", cudaEventRecord(end.get(), stream_));
    check("measure_memory_rate", cudaEventSynchronize(end.get()));
    float milliseconds = 0;
    check("an event", cudaEventElapsedTime(&milliseconds, begin.get(), end.get()));
    if (best == 0 || milliseconds < best) best = milliseconds;
  }
  return best > 0 ? 48.0 * static_cast<double>(pieces) / (1e-3 * static_cast<double>(best)) : 0;
}

}  // namespace smoe
