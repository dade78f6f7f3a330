#include <cstdint>
#include <limits>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"

namespace smoe {
namespace {
using namespace cuda;

constexpr int most_logit_threads = 512;

// A block a row, which is read once (online softmax): what a thread has summed is rescaled when its maximum rises. A maximum
// skips a NaN; the sum of the exponentials meets it again. with_logit_sums: logit_sums is written too.
template <int W, bool with_logit_sums>
__global__ void cross_entropy_statistics_kernel(const float* logits, const std::int32_t* targets, std::int64_t first,
                                                int V, float* maxima, float* sums, float* target_logits,
                                                float* logit_sums) {
  __shared__ float maxima_of_warps[warp], sums_of_warps[warp];
  const float* row = logits + std::int64_t{blockIdx.x} * V;
  const float lowest = -std::numeric_limits<float>::infinity();
  float maximum = lowest, sum = 0, logit_sum = 0;
  for (int v = threadIdx.x * W; v < V; v += blockDim.x * W) {
    float numbers[W];
    load(row + v, numbers);
    float higher = maximum;
#pragma unroll
    for (int w = 0; w < W; ++w) higher = numbers[w] > higher ? numbers[w] : higher;
    if (higher != maximum) sum *= expf(maximum - higher);
#pragma unroll
    for (int w = 0; w < W; ++w) sum += expf(numbers[w] - higher);
    if constexpr (with_logit_sums) {
#pragma unroll
      for (int w = 0; w < W; ++w) logit_sum += numbers[w];
    }
    maximum = higher;
  }
  const float highest = block_all<Max>(maximum, maxima_of_warps);
  // A thread without columns has nothing to add, whatever the others have.
  sum = block_sum(sum == 0.0f ? 0.0f : sum * expf(maximum - highest), sums_of_warps);
  if constexpr (with_logit_sums) {
    __shared__ float logit_sums_of_warps[warp];
    logit_sum = block_sum(logit_sum, logit_sums_of_warps);
    if (threadIdx.x == 0) logit_sums[blockIdx.x] = logit_sum;
  }
  if (threadIdx.x > 0) return;
  const std::int32_t target = targets[blockIdx.x];
  const std::int64_t column = target - first;
  maxima[blockIdx.x] = highest;
  sums[blockIdx.x] = sum;
  target_logits[blockIdx.x] = target >= 0 && column >= 0 && column < V ? row[column] : 0.0f;
}

// Sums in double, and in the order of the ranges: every rank that merges the same parts gets the same bits.
// logit_sums may be null.
__global__ void cross_entropy_merge_kernel(const float* parts, int P, std::int64_t stride, std::int64_t N,
                                           float* maxima, float* sums, float* target_logits, float* logit_sums) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= N) return;
  float maximum = parts[i];
  for (int p = 1; p < P; ++p) {
    const float other = parts[stride * p + i];
    maximum = other > maximum ? other : maximum;
  }
  double sum = 0, target = 0, logit_sum = 0;
  for (int p = 0; p < P; ++p) {
    const float* of = parts + stride * p;
    sum += static_cast<double>(of[N + i]) * exp(static_cast<double>(of[i]) - static_cast<double>(maximum));
    target += static_cast<double>(of[2 * N + i]);
    if (logit_sums) logit_sum += static_cast<double>(of[3 * N + i]);
  }
  maxima[i] = maximum;
  sums[i] = static_cast<float>(sum);
  target_logits[i] = static_cast<float>(target);
  if (logit_sums) logit_sums[i] = static_cast<float>(logit_sum);
}

__global__ void cross_entropy_losses_kernel(const std::int32_t* targets, const float* maxima, const float* sums,
                                            const float* target_logits, std::int64_t N, float* logsumexp,
                                            float* losses) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= N) return;
  const float log_sum = logf(sums[i]);
  logsumexp[i] = maxima[i] + log_sum;
  // The sum that the definition asks for, in an order that keeps the digits of a small loss.
  losses[i] = targets[i] < 0 ? 0.0f : (maxima[i] - target_logits[i]) + log_sum;
}

__global__ void cross_entropy_uniform_losses_kernel(const std::int32_t* targets, const float* maxima, const float* sums,
                                                    const float* logit_sums, double vocabulary, std::int64_t N,
                                                    float* losses) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= N) return;
  const double mean = static_cast<double>(logit_sums[i]) / vocabulary;
  losses[i] = targets[i] < 0 ? 0.0f : static_cast<float>(static_cast<double>(maxima[i]) - mean) + logf(sums[i]);
}

// A thread writes where it has read, so dlogits may be logits. A kernel of its own where labels are not smoothed: there the
// compiler may contract the two lines of the target's column, and gives it the bits of one that knows no smoothing.
template <class A, int W, bool smoothed>
__global__ void cross_entropy_backward_kernel(const float* logits, const std::int32_t* targets, std::int64_t first,
                                              int V, const float* logsumexp, double scale, const float* token_scales,
                                              A* dlogits, LabelSmoothing smoothing) {
  const float* row = logits + std::int64_t{blockIdx.x} * V;
  A* drow = dlogits + std::int64_t{blockIdx.x} * V;
  const std::int32_t target = targets[blockIdx.x];
  const std::int64_t column = target - first;
  const float lse = logsumexp[blockIdx.x];
  const double of_token = token_scales ? scale * static_cast<double>(token_scales[blockIdx.x]) : scale;
  const auto s = static_cast<float>(of_token);
  float hit = s, everywhere = 0;
  if constexpr (smoothed) {
    hit = static_cast<float>(of_token * (1 - smoothing.amount));
    everywhere = static_cast<float>(of_token * smoothing.amount / static_cast<double>(smoothing.vocabulary));
  }
  for (int v = threadIdx.x * W; v < V; v += blockDim.x * W) {
    float numbers[W];
    if (target < 0) {
#pragma unroll
      for (int w = 0; w < W; ++w) numbers[w] = 0;
    } else {
      load(row + v, numbers);
#pragma unroll
      for (int w = 0; w < W; ++w) {
        numbers[w] = s * expf(numbers[w] - lse);
        if constexpr (smoothed) numbers[w] -= everywhere;
        if (v + w == column) numbers[w] -= hit;
      }
    }
    store(drow + v, numbers);
  }
}

}  // namespace

void CudaBackend::do_cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t first,
                                              const Tensor& maxima, const Tensor& sums, const Tensor& target_logits,
                                              const Tensor& logit_sums) {
  const std::int64_t N = logits.dim(0), V = logits.dim(1);
  by_width<float>(V, {logits}, [&]<class A, int W>() {
    const auto kernel =
        logit_sums.empty() ? cross_entropy_statistics_kernel<W, false> : cross_entropy_statistics_kernel<W, true>;
    launch(stream_, "cross_entropy_statistics", {N, threads_for(V / W, most_logit_threads)}, kernel, logits.f32(),
           targets.i32(), first, static_cast<int>(V), maxima.f32(), sums.f32(), target_logits.f32(),
           data<float>(logit_sums));
  });
}

void CudaBackend::do_cross_entropy_merge(const Tensor& parts, const Tensor& maxima, const Tensor& sums,
                                         const Tensor& target_logits, const Tensor& logit_sums) {
  const std::int64_t N = maxima.dim(0);
  launch(stream_, "cross_entropy_merge", over(N), cross_entropy_merge_kernel, parts.f32(),
         static_cast<int>(parts.dim(0)), parts.dim(1) * N, N, maxima.f32(), sums.f32(), target_logits.f32(),
         data<float>(logit_sums));
}

void CudaBackend::do_cross_entropy_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                                          const Tensor& target_logits, const Tensor& logsumexp, const Tensor& losses) {
  const std::int64_t N = losses.dim(0);
  launch(stream_, "cross_entropy_losses", over(N), cross_entropy_losses_kernel, targets.i32(), maxima.f32(), sums.f32(),
         target_logits.f32(), N, logsumexp.f32(), losses.f32());
}

void CudaBackend::do_cross_entropy_uniform_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                                                  const Tensor& logit_sums, std::int64_t vocabulary,
                                                  const Tensor& losses) {
  const std::int64_t N = losses.dim(0);
  launch(stream_, "cross_entropy_uniform_losses", over(N), cross_entropy_uniform_losses_kernel, targets.i32(),
         maxima.f32(), sums.f32(), logit_sums.f32(), static_cast<double>(vocabulary), N, losses.f32());
}

void CudaBackend::do_cross_entropy_backward(const Tensor& logits, const Tensor& targets, std::int64_t first,
                                            const Tensor& logsumexp, double scale, const Tensor& token_scales,
                                            const LabelSmoothing& smoothing, const Tensor& dlogits) {
  const std::int64_t N = logits.dim(0), V = logits.dim(1);
  by_type_and_width(dlogits.type(), V, {logits, dlogits}, [&]<class A, int W>() {
    const auto kernel =
        smoothing.amount > 0 ? cross_entropy_backward_kernel<A, W, true> : cross_entropy_backward_kernel<A, W, false>;
    launch(stream_, "cross_entropy_backward", {N, threads_for(V / W, most_logit_threads)}, kernel, logits.f32(),
           targets.i32(), first, static_cast<int>(V), logsumexp.f32(), scale, data<float>(token_scales),
           data<A>(dlogits), smoothing);
  });
}

}  // namespace smoe
