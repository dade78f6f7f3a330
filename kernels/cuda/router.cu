// A warp has a token: lane i the experts i, i + 32, ..., in registers.
#include <algorithm>
#include <cstdint>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/experts.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"

namespace smoe {
namespace {
using namespace cuda;

constexpr int tokens_of_a_block = 4;

// Calls f.operator()<N>() for the least N for which 32 N experts are enough.
template <class F>
void by_experts_of_a_lane(std::int64_t experts, const F& f) {
  if (experts <= 1 * warp)
    f.template operator()<1>();
  else if (experts <= 2 * warp)
    f.template operator()<2>();
  else if (experts <= 4 * warp)
    f.template operator()<4>();
  else if (experts <= 8 * warp)
    f.template operator()<8>();
  else if (experts <= 16 * warp)
    f.template operator()<16>();
  else
    f.template operator()<32>();
}
static_assert(most_experts <= 32 * warp);

// A score times a factor: that which keeps the score of a logit of this size from vanishing.
__device__ float scaled_score(Score score, float logit, float size) {
  if (score == Score::softmax) return expf(logit - size);
  return size > 0 ? sigmoid(logit) : expf(logit - size) / (1.0f + expf(logit));
}

// Numbers in their order as integers, zeros of both signs alike, NaN before all others. None is 0.
__device__ unsigned ordered(float x) {
  if (isnan(x)) return 1;
  const unsigned bits = __float_as_uint(x + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// A row of the lane's numbers, `otherwise` behind its end.
template <int N>
__device__ void load_row(const float* row, int count, float otherwise, float (&x)[N]) {
  const int lane = threadIdx.x % warp;
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = lane + i * warp < count ? row[lane + i * warp] : otherwise;
}

// A NaN is lost here, and met again in the exponentials of what it was among.
template <int N>
__device__ float largest_of(const float (&x)[N]) {
  float largest = x[0];
#pragma unroll
  for (int i = 1; i < N; ++i) largest = fmaxf(largest, x[i]);
  return warp_all<Max>(largest);
}

template <int N>
__device__ float sum_of_lanes(const float (&x)[N]) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < N; ++i) sum += x[i];
  return warp_sum(sum);
}

// The K largest of what is ordered, best first, the lowest index among equals; lane k has those of rank k, k + 32, ... and
// their logits. What is chosen becomes 0.
template <int N>
__device__ void choose(unsigned (&order)[N], const float (&logit)[N], int K, int (&chosen)[N], float (&of_chosen)[N]) {
  const int lane = threadIdx.x % warp;
#pragma unroll
  for (int i = 0; i < N; ++i) chosen[i] = 0, of_chosen[i] = -INFINITY;
  for (int k = 0; k < K; ++k) {
    unsigned most = 0, at = 0;
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (order[i] > most) most = order[i], at = lane + i * warp;
    const unsigned best = __reduce_max_sync(all_lanes, most);
    const auto e = static_cast<int>(__reduce_min_sync(all_lanes, most == best ? at : ~0u));
    float picked = 0;
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (e == lane + i * warp) order[i] = 0, picked = logit[i];
    picked = __shfl_sync(all_lanes, picked, e % warp);
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (k == lane + i * warp) chosen[i] = e, of_chosen[i] = picked;
  }
}

template <int N>
__global__ void __launch_bounds__(tokens_of_a_block* warp)
    router_forward_kernel(RoutingRule rule, const float* logits, const float* bias, int bias_of_token,
                          std::int64_t tokens, int E, int K, float* probabilities, float* logsumexp,
                          std::int32_t* experts, float* weights) {
  const int lane = threadIdx.x % warp;
  const std::int64_t t = std::int64_t{blockIdx.x} * tokens_of_a_block + threadIdx.x / warp;
  if (t >= tokens) return;
  const bool softmax = rule.score == Score::softmax;
  if (bias) bias += t * bias_of_token;
  float l[N], p[N];
  load_row(logits + t * E, E, -INFINITY, l);
  const float maximum = largest_of(l);
#pragma unroll
  for (int i = 0; i < N; ++i) p[i] = lane + i * warp < E ? expf(l[i] - maximum) : 0.0f;
  float sum = sum_of_lanes(p);
  const float lse = maximum + logf(sum);
  if (lane == 0) logsumexp[t] = lse;
  const float sum_of_exponentials = sum;
  if (!softmax) {
#pragma unroll
    for (int i = 0; i < N; ++i) p[i] = lane + i * warp < E ? scaled_score(rule.score, l[i], maximum) : 0.0f;
    sum = sum_of_lanes(p);
  }

  unsigned order[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int e = lane + i * warp;
    p[i] /= sum;
    if (e < E) probabilities[t * E + e] = p[i];
    // Chosen by logit where nothing is added: two logits that differ may have the same score after rounding.
    order[i] = e >= E ? 0 : ordered(bias ? (softmax ? p[i] : sigmoid(l[i])) + bias[e] : l[i]);
  }
  int chosen[N];
  float of_chosen[N], w[N];
  choose(order, l, K, chosen, of_chosen);

  // The scores that were chosen may all vanish, where the bias alone decided or every logit is far below zero: a
  // renormalised weight is one of scores that do not.
  const float size = rule.renormalise ? largest_of(of_chosen) : maximum;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const bool there = lane + i * warp < K;
    if (rule.renormalise)
      w[i] = there ? scaled_score(rule.score, of_chosen[i], size) : 0.0f;
    else
      w[i] = softmax ? expf(of_chosen[i] - size) / sum_of_exponentials : sigmoid(of_chosen[i]);
  }
  const float kept = rule.renormalise ? sum_of_lanes(w) : 1.0f;
  const float spoilt = 0.0f * lse;  // a NaN or an infinity spoils all of a softmax, so it does here
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int k = lane + i * warp;
    if (k >= K) continue;
    experts[t * K + k] = chosen[i];
    weights[t * K + k] = rule.scale * (w[i] / kept) + spoilt;
  }
}

// The gradient by one token's logits of its K weights and, b given, of its probabilities p. Through a softmax,
// renormalised weights are the softmax over the chosen logits alone, so only those have a gradient. A sigmoid's logarithm
// has the slope 1 - s = sigmoid(-l), and no other logit moves it.
template <class A, int N>
__global__ void __launch_bounds__(tokens_of_a_block* warp)
    router_backward_kernel(RoutingRule rule, const float* logits, const float* probabilities, const float* logsumexp,
                           const std::int32_t* experts, IdCheck check, const float* weights, const float* dweights,
                           const float* balance, std::int64_t group_tokens, double z_scale, std::int64_t tokens, int E,
                           int K, A* dlogits) {
  const int lane = threadIdx.x % warp;
  const std::int64_t t = std::int64_t{blockIdx.x} * tokens_of_a_block + threadIdx.x / warp;
  if (t >= tokens) return;
  const bool softmax = rule.score == Score::softmax;
  experts += t * K, weights += t * K, dweights += t * K;
  float l[N] = {}, p[N], d[N];  // l: read where it is needed
  load_row(probabilities + t * E, E, 0.0f, p);
  if (!softmax) load_row(logits + t * E, E, -INFINITY, l);

  float all = 0;
  for (int k = lane; k < K; k += warp) all += weights[k] * dweights[k];
  all = warp_sum(all);
  const float mean = rule.renormalise ? all / rule.scale : 0.0f;
#pragma unroll
  for (int i = 0; i < N; ++i) d[i] = 0;
  for (int first = 0; first < K; first += warp) {
    const int k = first + lane;
    const std::int32_t mine = k < K ? experts[k] : 0;
    if (k < K) check(mine, t * K + k);
    const float gradient = k < K ? weights[k] * (dweights[k] - mean) : 0.0f;
    for (int from = 0; from < warp && first + from < K; ++from) {
      const std::int32_t e = __shfl_sync(all_lanes, mine, from);
      const float of_e = __shfl_sync(all_lanes, gradient, from);
#pragma unroll
      for (int i = 0; i < N; ++i)
        if (e == lane + i * warp) d[i] = of_e;
    }
  }
  if (!softmax) {
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (lane + i * warp < E) d[i] *= sigmoid(-l[i]);
  } else if (!rule.renormalise) {
#pragma unroll
    for (int i = 0; i < N; ++i) d[i] -= p[i] * all;
  }

  if (balance) {
    float b[N];
    load_row(balance + t / group_tokens * E, E, 0.0f, b);
    float dot = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) dot += p[i] * b[i];
    dot = warp_sum(dot);
#pragma unroll
    for (int i = 0; i < N; ++i) d[i] += p[i] * (b[i] - dot) * (softmax ? 1.0f : sigmoid(-l[i]));
  }
  if (z_scale != 0) {
    const auto z = static_cast<float>(2 * z_scale * static_cast<double>(logsumexp[t]));
    if (softmax) {
#pragma unroll
      for (int i = 0; i < N; ++i) d[i] += z * p[i];
    } else {
      const float maximum = largest_of(l);
#pragma unroll
      for (int i = 0; i < N; ++i) l[i] = expf(l[i] - maximum);
      const float of_one = z / sum_of_lanes(l);
#pragma unroll
      for (int i = 0; i < N; ++i) d[i] += of_one * l[i];
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i)
    if (lane + i * warp < E) dlogits[t * E + lane + i * warp] = from_float<A>(d[i]);
}

// The measures of a chunk of tokens, a token a warp in turn: parts [blocks,3].
template <int N>
__global__ void __launch_bounds__(tokens_of_a_block* warp)
    router_measures_kernel(RoutingRule rule, const float* logits, const float* bias, int bias_of_token,
                           const float* probabilities, const std::int32_t* experts, IdCheck check, std::int64_t tokens,
                           int chunk_tokens, int E, int K, double* parts) {
  __shared__ double of_warps[3][tokens_of_a_block];
  const int lane = threadIdx.x % warp, w = threadIdx.x / warp;
  const bool softmax = rule.score == Score::softmax;
  const std::int64_t begin = std::int64_t{blockIdx.x} * chunk_tokens;
  const std::int64_t end = begin + chunk_tokens < tokens ? begin + chunk_tokens : tokens;
  double entropy = 0, norm = 0, margin = 0;
  for (std::int64_t t = begin + w; t < end; t += tokens_of_a_block) {
    if (experts[t * K] == -1) continue;  // padding
    float l[N], p[N];
    load_row(logits + t * E, E, 0.0f, l);
    load_row(probabilities + t * E, E, 0.0f, p);
    double nats = 0, squares = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (p[i] != 0) nats -= static_cast<double>(p[i] * logf(p[i]));
      squares += static_cast<double>(l[i]) * static_cast<double>(l[i]);
    }
    squares = warp_sum(squares);
    entropy += warp_sum(nats);
    norm += sqrt(squares);
    if (K == E) continue;

    std::int32_t last = 0;
    unsigned chosen = 0;  // bit i: of the lane's expert i
    for (int k = 0; k < K; ++k) {
      last = experts[t * K + k];
      if (lane == 0) check(last, t * K + k);
      const auto place = static_cast<unsigned>(last);
      if (static_cast<int>(place % warp) == lane) chosen |= 1u << (place / warp % N);
    }
    float least = -INFINITY, next = -INFINITY;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int e = lane + i * warp;
      if (e >= E) continue;
      const float preference = bias ? (softmax ? p[i] : sigmoid(l[i])) + bias[t * bias_of_token + e] : l[i];
      if (e == last) least = preference;
      if (!(chosen >> i & 1)) next = fmaxf(next, preference);
    }
    // What is not finite in one logit shows, wherever it stands.
    margin += static_cast<double>(warp_all<Max>(least)) - static_cast<double>(warp_all<Max>(next)) + 0 * squares;
  }
  if (lane == 0) of_warps[0][w] = entropy, of_warps[1][w] = norm, of_warps[2][w] = margin;
  __syncthreads();
  if (threadIdx.x >= 3) return;
  double sum = 0;
  for (int i = 0; i < tokens_of_a_block; ++i) sum += of_warps[threadIdx.x][i];
  parts[std::int64_t{blockIdx.x} * 3 + threadIdx.x] = sum;
}

// A warp adds up one measure.
__global__ void add_router_measures_kernel(const double* parts, int blocks, double* sums) {
  const int lane = threadIdx.x % warp, measure = threadIdx.x / warp;
  double sum = 0;
  for (int b = lane; b < blocks; b += warp) sum += parts[std::int64_t{b} * 3 + measure];
  sum = warp_sum(sum);
  if (lane == 0) sums[measure] += sum;
}

// From one token's to the next; 0 where all have the same.
int bias_of_token(const Tensor& bias) { return bias.rank() == 2 ? static_cast<int>(bias.dim(1)) : 0; }

constexpr Grid over_tokens(std::int64_t tokens) {
  return {ceil_div(tokens, tokens_of_a_block), tokens_of_a_block * warp};
}

}  // namespace

void CudaBackend::do_router_forward(const RoutingRule& rule, const Tensor& logits, const Tensor& selection_bias,
                                    const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                                    const Tensor& weights) {
  const std::int64_t T = logits.dim(0), E = logits.dim(1), K = experts.dim(1);
  expect_experts("router_forward", E);
  by_experts_of_a_lane(E, [&]<int N>() {
    launch(stream_, "router_forward", over_tokens(T), router_forward_kernel<N>, rule, logits.f32(),
           data<float>(selection_bias), bias_of_token(selection_bias), T, static_cast<int>(E), static_cast<int>(K),
           probabilities.f32(), logsumexp.f32(), experts.i32(), weights.f32());
  });
}

void CudaBackend::do_router_backward(const RoutingRule& rule, const Tensor& logits, const Tensor& probabilities,
                                     const Tensor& logsumexp, const Tensor& experts, const Tensor& weights,
                                     const Tensor& dweights, const Tensor& balance_gradient, double z_scale,
                                     const Tensor& dlogits) {
  const std::int64_t T = dlogits.dim(0), E = dlogits.dim(1), K = experts.dim(1);
  expect_experts("router_backward", E);
  const std::int64_t groups = balance_gradient.empty() ? 1 : balance_gradient.dim(0);
  by_type(dlogits.type(), [&]<class A>() {
    by_experts_of_a_lane(E, [&]<int N>() {
      launch(stream_, "router_backward", over_tokens(T), router_backward_kernel<A, N>, rule, logits.f32(),
             probabilities.f32(), logsumexp.f32(), experts.i32(), complaints_.ids("router_backward", "experts", E, -1),
             weights.f32(), dweights.f32(), data<float>(balance_gradient), T / groups, z_scale, T, static_cast<int>(E),
             static_cast<int>(K), data<A>(dlogits));
    });
  });
}

void CudaBackend::do_router_measures(const RoutingRule& rule, const Tensor& logits, const Tensor& selection_bias,
                                     const Tensor& probabilities, const Tensor& experts, const Tensor& sums) {
  const std::int64_t T = logits.dim(0), E = logits.dim(1), K = experts.dim(1);
  expect_experts("router_measures", E);
  if (T == 0) return;
  // By the size alone, and so is the order of the sums.
  const std::int64_t chunk_tokens = std::max<std::int64_t>(4 * tokens_of_a_block, ceil_div(T, 1024));
  const std::int64_t blocks = ceil_div(T, chunk_tokens);
  auto* parts = workspace_.take<double>(3 * blocks);
  by_experts_of_a_lane(E, [&]<int N>() {
    launch(stream_, "router_measures", {blocks, tokens_of_a_block * warp}, router_measures_kernel<N>, rule,
           logits.f32(), data<float>(selection_bias), bias_of_token(selection_bias), probabilities.f32(), experts.i32(),
           complaints_.ids("router_measures", "experts", E, -1), T, static_cast<int>(chunk_tokens), static_cast<int>(E),
           static_cast<int>(K), parts);
  });
  launch(stream_, "router_measures", {1, 3 * warp}, add_router_measures_kernel, parts, static_cast<int>(blocks),
         sums.f64());
}

}  // namespace smoe
