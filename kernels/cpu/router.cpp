#include <algorithm>
#include <cmath>

#include "kernels/cpu/checks.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/vector_math.h"

namespace smoe {
namespace {

// The K largest of E, best first, the lowest index among equals. Chosen by logit: two logits that differ may have the
// same probability after rounding. Whatever the values (NaN among them), the K indices are distinct and in range.
void top_k(const float* logits, std::int64_t E, std::int64_t K, std::int32_t* chosen) {
  for (std::int64_t k = 0; k < K; ++k) {
    std::int64_t best = -1;
    for (std::int64_t e = 0; e < E; ++e) {
      if (std::find(chosen, chosen + k, static_cast<std::int32_t>(e)) != chosen + k) continue;
      if (best < 0 || logits[e] > logits[best]) best = e;
    }
    chosen[k] = static_cast<std::int32_t>(best);
  }
}

}  // namespace

void CpuBackend::do_router_forward(const Tensor& logits, const Tensor& probabilities, const Tensor& logsumexp,
                                   const Tensor& experts, const Tensor& weights) {
  const std::int64_t T = logits.dim(0), E = logits.dim(1), K = experts.dim(1);
  const float* plogits = logits.f32();
  float *pprobabilities = probabilities.f32(), *plse = logsumexp.f32(), *pweights = weights.f32();
  std::int32_t* pexperts = experts.i32();
  cpu::for_blocks(threads_, T, cpu::block_rows(8 * E * K), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) {
      const float* l = plogits + t * E;
      float* p = pprobabilities + t * E;
      const float maximum = *std::max_element(l, l + E);
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (std::int64_t e = 0; e < E; ++e) {
        p[e] = cpu::vector_exp(l[e] - maximum);
        sum += p[e];
      }
#pragma omp simd
      for (std::int64_t e = 0; e < E; ++e) p[e] /= sum;
      plse[t] = maximum + std::log(sum);

      std::int32_t* chosen = pexperts + t * K;
      float* w = pweights + t * K;
      top_k(l, E, K, chosen);
      float kept = 0;
      for (std::int64_t k = 0; k < K; ++k) kept += p[chosen[k]];
      for (std::int64_t k = 0; k < K; ++k) w[k] = p[chosen[k]] / kept;
    }
  });
}

void CpuBackend::do_router_backward(const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                                    const Tensor& weights, const Tensor& dweights, const Tensor& balance_gradient,
                                    double z_scale, const Tensor& dlogits) {
  const std::int64_t T = dlogits.dim(0), E = dlogits.dim(1), K = experts.dim(1);
  const std::int64_t groups = balance_gradient.empty() ? 1 : balance_gradient.dim(0);
  const std::int32_t* pexperts = experts.i32();
  cpu::expect_in_range("router_backward", "experts", pexperts, T * K, E);
  const float *pprobabilities = probabilities.f32(), *plse = logsumexp.f32(), *pweights = weights.f32();
  const float* pdweights = dweights.f32();
  const float* pbalance = balance_gradient.empty() ? nullptr : balance_gradient.f32();
  float* pdlogits = dlogits.f32();
  const std::int64_t group_tokens = std::max<std::int64_t>(1, T / groups);
  cpu::for_blocks(threads_, T, cpu::block_rows(8 * E), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) {
      const float* p = pprobabilities + t * E;
      float* d = pdlogits + t * E;
      std::fill_n(d, E, 0.0f);
      // Renormalised weights are the softmax over the chosen logits alone, so only those have a gradient.
      const float *w = pweights + t * K, *dw = pdweights + t * K;
      float mean = 0;
      for (std::int64_t k = 0; k < K; ++k) mean += w[k] * dw[k];
      for (std::int64_t k = 0; k < K; ++k) d[pexperts[t * K + k]] = w[k] * (dw[k] - mean);
      if (pbalance) {
        const float* b = pbalance + t / group_tokens * E;
        float dot = 0;
        for (std::int64_t e = 0; e < E; ++e) dot += p[e] * b[e];
        for (std::int64_t e = 0; e < E; ++e) d[e] += p[e] * (b[e] - dot);
      }
      if (z_scale != 0) {
        const auto z = static_cast<float>(2 * z_scale * static_cast<double>(plse[t]));
        for (std::int64_t e = 0; e < E; ++e) d[e] += z * p[e];
      }
    }
  });
}

void CpuBackend::do_balance_statistics(const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                                       const Tensor& counts, const Tensor& probability_sums, const Tensor& z_sums) {
  const std::int64_t T = probabilities.dim(0), E = probabilities.dim(1), K = experts.dim(1), N = counts.dim(0);
  const std::int32_t* pexperts = experts.i32();
  cpu::expect_in_range("balance_statistics", "experts", pexperts, T * K, E);
  const float *pprobabilities = probabilities.f32(), *plse = logsumexp.f32();
  float *pcounts = counts.f32(), *psums = probability_sums.f32(), *pz = z_sums.f32();
  const std::int64_t group = T / N;
  // A task is one expert's column of one group (column E: the z sum), added in double in token order.
  cpu::for_blocks(threads_, N * (E + 1), cpu::block_rows(group), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t task = first; task < last; ++task) {
      const std::int64_t n = task / (E + 1), e = task % (E + 1);
      double total = 0;
      if (e == E) {
        for (std::int64_t t = n * group; t < (n + 1) * group; ++t)
          total += static_cast<double>(plse[t]) * static_cast<double>(plse[t]);
        pz[n] = static_cast<float>(total);
        continue;
      }
      for (std::int64_t t = n * group; t < (n + 1) * group; ++t) total += static_cast<double>(pprobabilities[t * E + e]);
      psums[n * E + e] = static_cast<float>(total);
      const std::int32_t* chosen = pexperts + n * group * K;
      pcounts[n * E + e] = static_cast<float>(std::count(chosen, chosen + group * K, static_cast<std::int32_t>(e)));
    }
  });
}

}  // namespace smoe
