#include <algorithm>
#include <cstdint>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/reduce.h"

namespace smoe {
namespace {
using namespace cuda;

constexpr int balance_threads = 256;
// A chunk of a group of tokens is a block's. Chunks of 64 tokens spread a usual micro-batch over the whole device; of more,
// where there would be more parts to add up than lanes of a warp take in a few steps.
constexpr std::int64_t least_chunk_tokens = 64, most_parts = 256;

// What a block found in one chunk: parts [N, E + 1, chunks], the last column the z sum, and parts_of_counts [N, E, chunks].
struct BalanceParts {
  double* sums;
  int* counts;
  int chunks;
};

// The threads stand on the columns of the probabilities, as many rows of them as fit, so that each adds up one column, and
// a warp reads side by side. More experts than threads: one slice of columns after the other, of which only the last has
// several rows, and so something to be read from other threads.
__global__ void __launch_bounds__(balance_threads)
    balance_kernel(const float* probabilities, const float* logsumexp, const std::int32_t* experts, IdCheck check,
                   std::int64_t group, int chunk_tokens, int E, int K, BalanceParts parts) {
  __shared__ double of_threads[balance_threads];
  __shared__ double of_warps[warp];
  int* found = dynamic_shared<int>();
  const std::int64_t n = blockIdx.x / parts.chunks;
  const int c = static_cast<int>(blockIdx.x % parts.chunks);
  const std::int64_t begin = n * group + std::int64_t{c} * chunk_tokens;
  const std::int64_t left = (n + 1) * group - begin;
  const int tokens = left < chunk_tokens ? static_cast<int>(left) : chunk_tokens;

  for (int e = threadIdx.x; e < E; e += balance_threads) found[e] = 0;
  probabilities += begin * E;
  for (int first = 0; first < E; first += balance_threads) {
    const int columns = E - first < balance_threads ? E - first : balance_threads;
    const int rows = balance_threads / columns;
    const int row = static_cast<int>(threadIdx.x) / columns, column = static_cast<int>(threadIdx.x) % columns;
    double sum = 0;
    if (row < rows) {
#pragma unroll 8
      for (int t = row; t < tokens; t += rows)
        sum += static_cast<double>(probabilities[std::int64_t{t} * E + first + column]);
    }
    of_threads[threadIdx.x] = sum;
    __syncthreads();  // found is clear, too
    if (row == 0) {
      for (int r = 1; r < rows; ++r) sum += of_threads[r * columns + column];
      parts.sums[(n * (E + 1) + first + column) * parts.chunks + c] = sum;
    }
  }

  double z = 0;
  for (int t = threadIdx.x; t < tokens; t += balance_threads) {
    const auto lse = static_cast<double>(logsumexp[begin + t]);
    z += lse * lse;
  }
  z = block_sum(z, of_warps);
  if (threadIdx.x == 0) parts.sums[(n * (E + 1) + E) * parts.chunks + c] = z;

  const int lane = threadIdx.x % warp;
  for (int first = 0; first < tokens * K; first += balance_threads) {
    const int i = first + threadIdx.x;
    std::int32_t e = i < tokens * K ? experts[begin * K + i] : -1;
    if (i < tokens * K && !check(e, begin * K + i)) e = -1;
    const unsigned alike = __match_any_sync(all_lanes, e);
    if (e >= 0 && lane == __ffs(static_cast<int>(alike)) - 1) atomicAdd(found + e, __popc(alike));
  }
  __syncthreads();
  for (int e = threadIdx.x; e < E; e += balance_threads) parts.counts[(n * E + e) * parts.chunks + c] = found[e];
}

// A warp adds up the parts of one column of one group.
__global__ void add_balance_parts_kernel(BalanceParts parts, std::int64_t columns, int E, float* counts,
                                         float* probability_sums, float* z_sums) {
  const int lane = threadIdx.x % warp;
  const std::int64_t column = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / warp;
  if (column >= columns) return;
  const std::int64_t n = column / (E + 1);
  const int e = static_cast<int>(column % (E + 1));
  double sum = 0;
  for (int c = lane; c < parts.chunks; c += warp) sum += parts.sums[column * parts.chunks + c];
  sum = warp_sum(sum);
  if (e == E) {
    if (lane == 0) z_sums[n] = static_cast<float>(sum);
    return;
  }
  int count = 0;
  for (int c = lane; c < parts.chunks; c += warp) count += parts.counts[(n * E + e) * parts.chunks + c];
  count = warp_sum(count);
  if (lane != 0) return;
  probability_sums[n * E + e] = static_cast<float>(sum);
  counts[n * E + e] = static_cast<float>(count);
}

}  // namespace

void CudaBackend::do_balance_statistics(const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                                        const Tensor& counts, const Tensor& probability_sums, const Tensor& z_sums) {
  const std::int64_t T = probabilities.dim(0), E = probabilities.dim(1), K = experts.dim(1), N = counts.dim(0);
  const std::int64_t group = T / N;
  // By the sizes alone, and so is the order of the sums.
  const std::int64_t chunk_tokens = std::max(least_chunk_tokens, ceil_div(T, most_parts));
  const std::int64_t chunks = ceil_div(group, chunk_tokens), columns = N * (E + 1);
  auto* sums = workspace_.take<double>(columns * chunks + ceil_div(N * E * chunks, 2));
  const BalanceParts parts{sums, reinterpret_cast<int*>(sums + columns * chunks), static_cast<int>(chunks)};
  launch(stream_, "balance_statistics", {N * chunks, balance_threads, sizeof(int) * static_cast<std::size_t>(E)},
         balance_kernel, probabilities.f32(), logsumexp.f32(), experts.i32(),
         complaints_.ids("balance_statistics", "experts", E, -1), group, static_cast<int>(chunk_tokens),
         static_cast<int>(E), static_cast<int>(K), parts);
  launch(stream_, "balance_statistics", over(columns * warp), add_balance_parts_kernel, parts, columns,
         static_cast<int>(E), counts.f32(), probability_sums.f32(), z_sums.f32());
}

}  // namespace smoe
