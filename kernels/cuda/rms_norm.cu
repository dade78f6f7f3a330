#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"

namespace smoe {
namespace {
using namespace cuda;

// A block a row. A row is read from memory once: the second loop finds it in the first-level cache.
constexpr int most_norm_threads = 256;
constexpr int turns = 2;  // of what the warps of a block leave each other: a warp may be a row ahead of the others

template <class A, int W>
__global__ void rms_norm_forward_kernel(const A* x, const A* weight, float epsilon, int D, A* y, float* rstd) {
  __shared__ float of_warps[warp];
  x += std::int64_t{blockIdx.x} * D;
  y += std::int64_t{blockIdx.x} * D;
  const int first = threadIdx.x * W, step = blockDim.x * W;
  float squares = 0;
  for (int d = first; d < D; d += step) {
    float row[W];
    load(x + d, row);
#pragma unroll
    for (int w = 0; w < W; ++w) squares += row[w] * row[w];
  }
  squares = block_sum(squares, of_warps);
  const float r = 1.0f / sqrtf(squares / static_cast<float>(D) + epsilon);
  if (threadIdx.x == 0) rstd[blockIdx.x] = r;
  for (int d = first; d < D; d += step) {
    float row[W], scale[W];
    load(x + d, row);
    load(weight + d, scale);
#pragma unroll
    for (int w = 0; w < W; ++w) row[w] = row[w] * r * scale[w];
    store(y + d, row);
  }
}

// With g = dy * weight:  dx = dresidual + rstd * (g - x * rstd^2 * mean(g * x)),  dweight = sum of dy * x * rstd.
// A block takes every gridDim'th row and adds up its part of dweight as it goes: in shared memory, where each thread has the columns
// that it reads anyway, laid out so that neighbouring threads meet neighbouring banks.
template <class A, int W>
__global__ void rms_norm_backward_kernel(const A* dy, const A* x, const A* weight, const float* rstd,
                                         const A* dresidual, int T, int D, A* dx, float* dweight_parts) {
  __shared__ float of_warps[turns][warp];
  float* sums = dynamic_shared<float>();
  const int first = threadIdx.x * W, step = blockDim.x * W, pieces = D / W;
  if (dweight_parts)
    for (int d = first; d < D; d += step)
#pragma unroll
      for (int w = 0; w < W; ++w) sums[w * pieces + d / W] = 0;
  int turn = 0;
  for (int t = blockIdx.x; t < T; t += gridDim.x, turn = 1 - turn) {
    const std::int64_t row = std::int64_t{t} * D;
    const float r = rstd[t];
    float dot = 0;
    for (int d = first; d < D; d += step) {
      float dys[W], xs[W], ws[W];
      load(dy + row + d, dys);
      load(x + row + d, xs);
      load(weight + d, ws);
#pragma unroll
      for (int w = 0; w < W; ++w) dot += dys[w] * xs[w] * ws[w];
    }
    dot = block_sum(dot, of_warps[turn]);
    const float c = dot * r * r * r / static_cast<float>(D);
    for (int d = first; d < D; d += step) {
      float dys[W], xs[W], ws[W], to[W];
      load(dy + row + d, dys);
      load(x + row + d, xs);
      load(weight + d, ws);
#pragma unroll
      for (int w = 0; w < W; ++w) to[w] = 0;
      if (dresidual) load(dresidual + row + d, to);
#pragma unroll
      for (int w = 0; w < W; ++w) {
        to[w] += dys[w] * ws[w] * r - xs[w] * c;
        if (dweight_parts) sums[w * pieces + d / W] += dys[w] * xs[w] * r;
      }
      store(dx + row + d, to);
    }
  }
  if (!dweight_parts) return;
  dweight_parts += std::int64_t{blockIdx.x} * D;
  for (int d = first; d < D; d += step)
#pragma unroll
    for (int w = 0; w < W; ++w) dweight_parts[d + w] = sums[w * pieces + d / W];
}

// The columns of dweight lie in the shared memory of a block, beside what its warps leave each other.
void expect_columns(const char* op, std::int64_t columns, std::int64_t shared_bytes) {
  constexpr std::int64_t of_warps = turns * warp * sizeof(float);
  const std::int64_t most = (shared_bytes - of_warps) / static_cast<std::int64_t>(sizeof(float));
  if (columns > most)
    throw std::invalid_argument(std::string(op) + ": D " + std::to_string(columns) + ", expected at most " +
                                std::to_string(most) + " on this GPU, whose blocks have " +
                                std::to_string(shared_bytes >> 10) + " KiB of shared memory");
}

// sums[d] += the sum of column d of parts [rows, D]. A warp takes a slice of the rows, a lane a column; the slices are added
// up in order.
constexpr int slices = 8;
__global__ void add_columns_kernel(const float* parts, int rows, int D, float* sums) {
  __shared__ float of_slices[slices][warp];
  const int lane = threadIdx.x % warp, slice = threadIdx.x / warp, d = blockIdx.x * warp + lane;
  const int each = (rows + slices - 1) / slices, last = (slice + 1) * each < rows ? (slice + 1) * each : rows;
  float sum = 0;
  if (d < D) {
#pragma unroll 8
    for (int i = slice * each; i < last; ++i) sum += parts[std::int64_t{i} * D + d];
  }
  of_slices[slice][lane] = sum;
  __syncthreads();
  if (slice > 0 || d >= D) return;
  for (int i = 1; i < slices; ++i) sum += of_slices[i][lane];
  sums[d] += sum;
}

}  // namespace

void CudaBackend::do_rms_norm_forward(const Tensor& x, const Tensor& weight, float epsilon, const Tensor& y,
                                      const Tensor& rstd) {
  const std::int64_t T = x.dim(0), D = x.dim(1);
  by_type_and_width(x.type(), D, {x, weight, y}, [&]<class A, int W>() {
    launch(stream_, "rms_norm_forward", {T, threads_for(D / W, most_norm_threads)}, rms_norm_forward_kernel<A, W>,
           data<A>(x), data<A>(weight), epsilon, static_cast<int>(D), data<A>(y), rstd.f32());
  });
}

void CudaBackend::do_rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& rstd,
                                       const Tensor& dresidual, const Tensor& dx, const Tensor& dweight) {
  const std::int64_t T = x.dim(0), D = x.dim(1);
  if (T == 0) return;
  if (!dweight.empty()) expect_columns("rms_norm_backward", D, most_shared_bytes_);
  // As many blocks as are at work at once, whether dweight is wanted or not: dx has the same bits either way.
  const std::int64_t blocks = std::min<std::int64_t>(T, 4 * multiprocessors_);
  float* parts = dweight.empty() ? nullptr : workspace_.take<float>(blocks * D);
  const std::size_t shared = parts ? static_cast<std::size_t>(D) * sizeof(float) : 0;
  by_type_and_width(x.type(), D, {dy, x, weight, dresidual, dx}, [&]<class A, int W>() {
    launch(stream_, "rms_norm_backward", {blocks, threads_for(D / W, most_norm_threads), shared},
           rms_norm_backward_kernel<A, W>, data<A>(dy), data<A>(x), data<A>(weight), rstd.f32(), data<A>(dresidual),
           static_cast<int>(T), static_cast<int>(D), data<A>(dx), parts);
  });
  if (parts)
    launch(stream_, "rms_norm_backward", {ceil_div(D, warp), slices * warp}, add_columns_kernel, parts,
           static_cast<int>(blocks), static_cast<int>(D), dweight.f32());
}

}  // namespace smoe
