#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/vector_math.h"

namespace smoe {
namespace {

struct RowStatistics {
  float maximum, sum, logit_sum;
};

// One pass over memory: a piece that lies in the first-level cache is read twice, once for its maximum, once for the
// exponentials; what was summed before is rescaled when the maximum rises (online softmax). Pieces are added in double,
// so that the error does not grow with the vocabulary.
template <bool with_logit_sum>
RowStatistics row_statistics(const float* row, std::int64_t n) {
  constexpr std::int64_t piece = 512;
  float maximum = -std::numeric_limits<float>::infinity();
  double total = 0, logit_total = 0;
  for (std::int64_t first = 0; first < n; first += piece) {
    const std::int64_t last = std::min(n, first + piece);
    float higher = maximum;
#pragma omp simd reduction(max : higher)
    for (std::int64_t i = first; i < last; ++i) higher = row[i] > higher ? row[i] : higher;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = first; i < last; ++i) sum += cpu::vector_exp(row[i] - higher);
    if (higher != maximum) total *= std::exp(static_cast<double>(maximum) - static_cast<double>(higher));
    total += static_cast<double>(sum);
    maximum = higher;
    if constexpr (with_logit_sum) {
      float of_logits = 0;
#pragma omp simd reduction(+ : of_logits)
      for (std::int64_t i = first; i < last; ++i) of_logits += row[i];
      logit_total += static_cast<double>(of_logits);
    }
  }
  return {maximum, static_cast<float>(total), static_cast<float>(logit_total)};
}

}  // namespace

void CpuBackend::do_cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t first_column,
                                             const Tensor& maxima, const Tensor& sums, const Tensor& target_logits,
                                             const Tensor& logit_sums) {
  const std::int64_t N = logits.dim(0), V = logits.dim(1);
  const float* pl = logits.f32();
  const std::int32_t* target = targets.i32();
  float *pmax = maxima.f32(), *psum = sums.f32(), *ptarget = target_logits.f32(),
        *plogits = logit_sums.empty() ? nullptr : logit_sums.f32();
  cpu::for_blocks(threads_, N, cpu::block_rows(V), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const float* row = pl + i * V;
      const auto [maximum, sum, logit_sum] = plogits ? row_statistics<true>(row, V) : row_statistics<false>(row, V);
      const std::int64_t column = target[i] - first_column;
      pmax[i] = maximum;
      psum[i] = sum;
      if (plogits) plogits[i] = logit_sum;
      ptarget[i] = target[i] >= 0 && column >= 0 && column < V ? row[column] : 0.0f;
    }
  });
}

// Sums in double, and in the order of the ranges: every rank that merges the same parts gets the same bits.
void CpuBackend::do_cross_entropy_merge(const Tensor& parts, const Tensor& maxima, const Tensor& sums,
                                        const Tensor& target_logits, const Tensor& logit_sums) {
  const std::int64_t P = parts.dim(0), N = maxima.dim(0), stride = parts.dim(1) * N;
  const float* part = parts.f32();
  float *pmax = maxima.f32(), *psum = sums.f32(), *ptarget = target_logits.f32(),
        *plogits = logit_sums.empty() ? nullptr : logit_sums.f32();
  for (std::int64_t i = 0; i < N; ++i) {
    float maximum = part[i];
    for (std::int64_t p = 1; p < P; ++p) maximum = std::max(maximum, part[stride * p + i]);
    double sum = 0, target = 0, logit_sum = 0;
    for (std::int64_t p = 0; p < P; ++p) {
      const float* of = part + stride * p;
      sum += static_cast<double>(of[N + i]) * std::exp(static_cast<double>(of[i]) - static_cast<double>(maximum));
      target += static_cast<double>(of[2 * N + i]);
      if (plogits) logit_sum += static_cast<double>(of[3 * N + i]);
    }
    pmax[i] = maximum;
    psum[i] = static_cast<float>(sum);
    ptarget[i] = static_cast<float>(target);
    if (plogits) plogits[i] = static_cast<float>(logit_sum);
  }
}

void CpuBackend::do_cross_entropy_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                                         const Tensor& target_logits, const Tensor& logsumexp, const Tensor& losses) {
  const std::int64_t N = losses.dim(0);
  const std::int32_t* target = targets.i32();
  const float *pmax = maxima.f32(), *psum = sums.f32(), *ptarget = target_logits.f32();
  float *plse = logsumexp.f32(), *ploss = losses.f32();
  for (std::int64_t i = 0; i < N; ++i) {
    plse[i] = pmax[i] + std::log(psum[i]);
    // The sum that the definition asks for, in an order that keeps the digits of a small loss.
    ploss[i] = target[i] < 0 ? 0.0f : (pmax[i] - ptarget[i]) + std::log(psum[i]);
  }
}

void CpuBackend::do_cross_entropy_uniform_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                                                 const Tensor& logit_sums, std::int64_t vocabulary,
                                                 const Tensor& losses) {
  const std::int64_t N = losses.dim(0);
  const std::int32_t* target = targets.i32();
  const float *pmax = maxima.f32(), *psum = sums.f32(), *plogits = logit_sums.f32();
  float* ploss = losses.f32();
  for (std::int64_t i = 0; i < N; ++i) {
    const double mean = static_cast<double>(plogits[i]) / static_cast<double>(vocabulary);
    ploss[i] = target[i] < 0 ? 0.0f : static_cast<float>(static_cast<double>(pmax[i]) - mean) + std::log(psum[i]);
  }
}

void CpuBackend::do_cross_entropy_backward(const Tensor& logits, const Tensor& targets, std::int64_t first_column,
                                           const Tensor& logsumexp, double scale, const Tensor& token_scales,
                                           const LabelSmoothing& smoothing, const Tensor& dlogits) {
  const std::int64_t N = logits.dim(0), V = logits.dim(1);
  const float* pl = logits.f32();
  float* pd = dlogits.f32();
  const std::int32_t* target = targets.i32();
  const float *plse = logsumexp.f32(), *ptoken = token_scales.empty() ? nullptr : token_scales.f32();
  cpu::for_blocks(threads_, N, cpu::block_rows(V), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const float* row = pl + i * V;
      float* drow = pd + i * V;
      if (target[i] < 0) {
        std::fill_n(drow, V, 0.0f);
        continue;
      }
      const double of_token = ptoken ? scale * static_cast<double>(ptoken[i]) : scale;
      const auto s = static_cast<float>(of_token), hit = static_cast<float>(of_token * (1 - smoothing.amount));
      const float lse = plse[i];
      if (smoothing.amount == 0) {
#pragma omp simd
        for (std::int64_t v = 0; v < V; ++v) drow[v] = s * cpu::vector_exp(row[v] - lse);
      } else {
        const auto everywhere =
            static_cast<float>(of_token * smoothing.amount / static_cast<double>(smoothing.vocabulary));
#pragma omp simd
        for (std::int64_t v = 0; v < V; ++v) drow[v] = s * cpu::vector_exp(row[v] - lse) - everywhere;
      }
      const std::int64_t column = target[i] - first_column;
      if (column >= 0 && column < V) drow[column] -= hit;
    }
  });
}

}  // namespace smoe
