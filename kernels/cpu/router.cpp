#include <algorithm>
#include <cmath>

#include "kernels/cpu/checks.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/vector_math.h"

namespace smoe {
namespace {

// The K largest of E values, best first, the lowest index among equals. Whatever the values (NaN among them), the K indices
// are distinct and in range.
template <class Value>
void top_k(std::int64_t E, std::int64_t K, std::int32_t* chosen, const Value& value) {
  for (std::int64_t k = 0; k < K; ++k) {
    std::int64_t best = -1;
    for (std::int64_t e = 0; e < E; ++e) {
      if (std::find(chosen, chosen + k, static_cast<std::int32_t>(e)) != chosen + k) continue;
      if (best < 0 || value(e) > value(best)) best = e;
    }
    chosen[k] = static_cast<std::int32_t>(best);
  }
}

// A score times a factor: that which keeps the score of a logit of this size from vanishing.
[[gnu::always_inline]] inline float scaled_score(Score score, float logit, float size) {
  if (score == Score::softmax) return cpu::vector_exp(logit - size);
  return size > 0 ? cpu::vector_sigmoid(logit) : cpu::vector_exp(logit - size) / (1.0f + cpu::vector_exp(logit));
}

// exp(logits - maximum) and their sum.
[[gnu::always_inline]] inline float exponentials(const float* logits, std::int64_t E, float maximum, float* out) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t e = 0; e < E; ++e) {
    out[e] = cpu::vector_exp(logits[e] - maximum);
    sum += out[e];
  }
  return sum;
}

// The gradient by one token's logits of its K weights and, b given, of its probabilities p. Through a softmax,
// renormalised weights are the softmax over the chosen logits alone, so only those have a gradient.
void softmax_backward(const RoutingRule& rule, const float* p, const std::int32_t* chosen, const float* w,
                      const float* dw, std::int64_t K, const float* b, std::int64_t E, float* d) {
  float all = 0;
  for (std::int64_t k = 0; k < K; ++k) all += w[k] * dw[k];
  const float mean = rule.renormalise ? all / rule.scale : 0.0f;
  for (std::int64_t k = 0; k < K; ++k) d[chosen[k]] = w[k] * (dw[k] - mean);
  if (!rule.renormalise)
    for (std::int64_t e = 0; e < E; ++e) d[e] -= p[e] * all;
  if (!b) return;
  float dot = 0;
  for (std::int64_t e = 0; e < E; ++e) dot += p[e] * b[e];
  for (std::int64_t e = 0; e < E; ++e) d[e] += p[e] * (b[e] - dot);
}

// Likewise; a sigmoid's logarithm has the slope 1 - s = sigmoid(-l), and no other logit moves it.
void sigmoid_backward(const RoutingRule& rule, const float* l, const float* p, const std::int32_t* chosen,
                      const float* w, const float* dw, std::int64_t K, const float* b, std::int64_t E, float* d) {
  float all = 0, dot = 0;
  for (std::int64_t k = 0; k < K; ++k) all += w[k] * dw[k];
  const float mean = rule.renormalise ? all / rule.scale : 0.0f;
  for (std::int64_t k = 0; k < K; ++k) d[chosen[k]] = w[k] * (dw[k] - mean) * cpu::vector_sigmoid(-l[chosen[k]]);
  for (std::int64_t e = 0; e < E && b; ++e) dot += p[e] * b[e];
  for (std::int64_t e = 0; e < E && b; ++e) d[e] += p[e] * (b[e] - dot) * cpu::vector_sigmoid(-l[e]);
}

}  // namespace

void CpuBackend::do_router_forward(const RoutingRule& rule, const Tensor& logits, const Tensor& selection_bias,
                                   const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                                   const Tensor& weights) {
  const std::int64_t T = logits.dim(0), E = logits.dim(1), K = experts.dim(1);
  const float *plogits = logits.f32(), *pbias = selection_bias.empty() ? nullptr : selection_bias.f32();
  const std::int64_t bias_of_token = selection_bias.rank() == 2 ? E : 0;
  float *pprobabilities = probabilities.f32(), *plse = logsumexp.f32(), *pweights = weights.f32();
  std::int32_t* pexperts = experts.i32();
  const bool softmax = rule.score == Score::softmax;
  cpu::for_blocks(threads_, T, cpu::block_rows(8 * E * K), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) {
      const float *l = plogits + t * E, *bias = pbias ? pbias + t * bias_of_token : nullptr;
      float* p = pprobabilities + t * E;
      const float maximum = *std::max_element(l, l + E);
      float sum = exponentials(l, E, maximum, p);
      plse[t] = maximum + std::log(sum);
      if (!softmax) {
        sum = 0;
        for (std::int64_t e = 0; e < E; ++e) sum += p[e] = scaled_score(rule.score, l[e], maximum);
      }
#pragma omp simd
      for (std::int64_t e = 0; e < E; ++e) p[e] /= sum;

      std::int32_t* chosen = pexperts + t * K;
      float* w = pweights + t * K;
      const auto score = [&](std::int64_t e) { return softmax ? p[e] : cpu::vector_sigmoid(l[e]); };
      // Chosen by logit: two logits that differ may have the same score after rounding.
      if (!bias)
        top_k(E, K, chosen, [&](std::int64_t e) { return l[e]; });
      else
        top_k(E, K, chosen, [&](std::int64_t e) { return score(e) + bias[e]; });

      float kept = 0;
      if (softmax && rule.renormalise && !bias) {
        for (std::int64_t k = 0; k < K; ++k) kept += p[chosen[k]];
        for (std::int64_t k = 0; k < K; ++k) w[k] = rule.scale * (p[chosen[k]] / kept);
        continue;
      }
      // A NaN or an infinity spoils all of a softmax, so it does here.
      const float spoilt = 0.0f * plse[t];
      if (!rule.renormalise) {
        for (std::int64_t k = 0; k < K; ++k) w[k] = rule.scale * score(chosen[k]) + spoilt;
        continue;
      }
      // The scores that were chosen may all vanish, where the bias alone decided or every logit is far below zero.
      float largest = l[chosen[0]];
      for (std::int64_t k = 1; k < K; ++k) largest = std::max(largest, l[chosen[k]]);
      for (std::int64_t k = 0; k < K; ++k) kept += w[k] = scaled_score(rule.score, l[chosen[k]], largest);
      for (std::int64_t k = 0; k < K; ++k) w[k] = rule.scale * (w[k] / kept) + spoilt;
    }
  });
}

void CpuBackend::do_router_backward(const RoutingRule& rule, const Tensor& logits, const Tensor& probabilities,
                                    const Tensor& logsumexp, const Tensor& experts, const Tensor& weights,
                                    const Tensor& dweights, const Tensor& balance_gradient, double z_scale,
                                    const Tensor& dlogits) {
  const std::int64_t T = dlogits.dim(0), E = dlogits.dim(1), K = experts.dim(1);
  const std::int64_t groups = balance_gradient.empty() ? 1 : balance_gradient.dim(0);
  const std::int32_t* pexperts = experts.i32();
  cpu::expect_in_range("router_backward", "experts", pexperts, T * K, E, -1);
  const float *plogits = logits.f32(), *pprobabilities = probabilities.f32(), *plse = logsumexp.f32(),
              *pweights = weights.f32();
  const float* pdweights = dweights.f32();
  const float* pbalance = balance_gradient.empty() ? nullptr : balance_gradient.f32();
  float* pdlogits = dlogits.f32();
  const std::int64_t group_tokens = std::max<std::int64_t>(1, T / groups);
  cpu::for_blocks(threads_, T, cpu::block_rows(8 * E), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) {
      const float *l = plogits + t * E, *p = pprobabilities + t * E, *w = pweights + t * K, *dw = pdweights + t * K;
      const float* b = pbalance ? pbalance + t / group_tokens * E : nullptr;
      const std::int32_t* chosen = pexperts + t * K;
      float* d = pdlogits + t * E;
      std::fill_n(d, E, 0.0f);
      if (chosen[0] < 0) continue;
      if (rule.score == Score::softmax)
        softmax_backward(rule, p, chosen, w, dw, K, b, E, d);
      else
        sigmoid_backward(rule, l, p, chosen, w, dw, K, b, E, d);
      if (z_scale == 0) continue;
      const auto z = static_cast<float>(2 * z_scale * static_cast<double>(plse[t]));
      if (rule.score == Score::softmax) {
        for (std::int64_t e = 0; e < E; ++e) d[e] += z * p[e];
        continue;
      }
      const float maximum = *std::max_element(l, l + E);
      float sum = 0;
      for (std::int64_t e = 0; e < E; ++e) sum += cpu::vector_exp(l[e] - maximum);
      for (std::int64_t e = 0; e < E; ++e) d[e] += z / sum * cpu::vector_exp(l[e] - maximum);
    }
  });
}

void CpuBackend::do_balance_statistics(const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                                       const Tensor& counts, const Tensor& probability_sums, const Tensor& z_sums) {
  const std::int64_t T = probabilities.dim(0), E = probabilities.dim(1), K = experts.dim(1), N = counts.dim(0);
  const std::int32_t* pexperts = experts.i32();
  cpu::expect_in_range("balance_statistics", "experts", pexperts, T * K, E, -1);
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
      for (std::int64_t t = n * group; t < (n + 1) * group; ++t)
        total += static_cast<double>(pprobabilities[t * E + e]);
      psums[n * E + e] = static_cast<float>(total);
      const std::int32_t* chosen = pexperts + n * group * K;
      pcounts[n * E + e] = static_cast<float>(std::count(chosen, chosen + group * K, static_cast<std::int32_t>(e)));
    }
  });
}

void CpuBackend::do_router_measures(const RoutingRule& rule, const Tensor& logits, const Tensor& selection_bias,
                                    const Tensor& probabilities, const Tensor& experts, const Tensor& sums) {
  const std::int64_t T = logits.dim(0), E = logits.dim(1), K = experts.dim(1);
  const float *plogits = logits.f32(), *pprobabilities = probabilities.f32(),
              *pbias = selection_bias.empty() ? nullptr : selection_bias.f32();
  const std::int64_t bias_of_token = selection_bias.rank() == 2 ? E : 0;
  const std::int32_t* pexperts = experts.i32();
  cpu::expect_in_range("router_measures", "experts", pexperts, T * K, E, -1);
  const bool softmax = rule.score == Score::softmax;
  // By blocks of fixed size, each in double, added in order: the same bits on any number of threads.
  const std::int64_t block = cpu::block_rows(32 * E);
  auto* parts = shared_.take<double>(static_cast<std::size_t>(3 * cpu::ceil_div(T, block)));
  cpu::for_blocks(threads_, T, block, [=](std::int64_t first, std::int64_t last) {
    double entropy = 0, norm = 0, margin = 0;
    for (std::int64_t t = first; t < last; ++t) {
      const float *l = plogits + t * E, *p = pprobabilities + t * E,
                  *bias = pbias ? pbias + t * bias_of_token : nullptr;
      const std::int32_t *chosen = pexperts + t * K, *behind = chosen + K;
      if (chosen[0] < 0) continue;
      double nats = 0, squares = 0;
      for (std::int64_t e = 0; e < E; ++e) {
        if (p[e] != 0) nats -= static_cast<double>(p[e] * std::log(p[e]));
        squares += static_cast<double>(l[e]) * static_cast<double>(l[e]);
      }
      entropy += nats;
      norm += std::sqrt(squares);
      if (K == E) continue;
      const auto preference = [&](std::int64_t e) {
        return bias ? (softmax ? p[e] : cpu::vector_sigmoid(l[e])) + bias[e] : l[e];
      };
      float next = -INFINITY;
      for (std::int64_t e = 0; e < E; ++e)
        if (std::find(chosen, behind, static_cast<std::int32_t>(e)) == behind) next = std::max(next, preference(e));
      // What is not finite in one logit shows, wherever it stands.
      margin += static_cast<double>(preference(behind[-1])) - static_cast<double>(next) + 0 * squares;
    }
    double* part = parts + 3 * (first / block);
    part[0] = entropy, part[1] = norm, part[2] = margin;
  });
  double* psums = sums.f64();
  double totals[3] = {};
  for (std::int64_t i = 0; i < 3 * cpu::ceil_div(T, block); ++i) totals[i % 3] += parts[i];
  for (int i = 0; i < 3; ++i) psums[i] += totals[i];
}

}  // namespace smoe
