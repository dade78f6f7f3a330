// Attention forward: FlashAttention's tiling (Dao et al. 2022; Dao 2023) with an online softmax.
#include "kernels/cpu/attention.h"

#include <omp.h>

#include <limits>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/vector_math.h"

namespace smoe {
namespace {

using cpu::AttentionProblem;
using cpu::ProductKernel;

// Turns a row of scores into exp(score - maximum) where the query sees the key and 0 elsewhere, and moves the running
// maximum, sum and output along. Columns [first, last) are seen.
void online_softmax(float* score, std::int64_t columns, std::int64_t first, std::int64_t last, float& maximum,
                    float& sum, float* output, std::int64_t head_dim) {
  float higher = maximum;
#pragma omp simd reduction(max : higher)
  for (std::int64_t j = first; j < last; ++j) higher = score[j] > higher ? score[j] : higher;
  float added = 0;
#pragma omp simd reduction(+ : added)
  for (std::int64_t j = first; j < last; ++j) {
    score[j] = cpu::vector_exp(score[j] - higher);
    added += score[j];
  }
  std::fill(score, score + first, 0.0f);
  std::fill(score + last, score + columns, 0.0f);
  if (higher != maximum) {
    const float shrink = std::exp(maximum - higher);
    sum *= shrink;
#pragma omp simd
    for (std::int64_t c = 0; c < head_dim; ++c) output[c] *= shrink;
  }
  sum += added;
  maximum = higher;
}

std::int64_t workspace_floats(const AttentionProblem& p) {
  const std::int64_t rows = p.group() * p.query_block(), C = p.head_dim;
  const auto size = cpu::Carver::size;
  return 2 * size(rows * C) + 2 * size(rows) + size(C * p.key_block()) + size(cpu::score_rows * p.key_block());
}

// Queries [first, last) of sequence b, all query heads of key-value head g.
void forward_block(const AttentionProblem& p, std::int64_t b, std::int64_t g, std::int64_t first, std::int64_t last,
                   float* workspace) {
  const std::int64_t C = p.head_dim, n = last - first, rows = p.group() * n, key_block = p.key_block();
  cpu::Carver carve(workspace);
  float *q = carve(rows * C), *output = carve(rows * C), *maxima = carve(rows), *sums = carve(rows);
  float *keys_t = carve(C * key_block), *scores = carve(cpu::score_rows * key_block);

  const ProductKernel kernel = cpu::product_kernel_for(Gemm::nn, cpu::score_rows, key_block, C);
  const float scale = p.scale();
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* from = p.q + (b * p.queries + first + row % n) * p.q_stride + (g * p.group() + row / n) * C;
#pragma omp simd
    for (std::int64_t c = 0; c < C; ++c) q[row * C + c] = from[c] * scale;
  }
  std::fill_n(output, rows * C, 0.0f);
  std::fill_n(maxima, rows, -std::numeric_limits<float>::infinity());
  std::fill_n(sums, rows, 0.0f);

  const std::int64_t end = p.past + last;  // no query of the block sees this key or a later one
  for (std::int64_t j0 = p.first_key(b, first, last) / key_block * key_block; j0 < end; j0 += key_block) {
    const std::int64_t j1 = std::min(end, j0 + key_block), columns = j1 - j0;
    const float* keys = p.k + (b * p.keys() + j0) * p.kv_stride + g * C;
    const float* values = p.v + (b * p.keys() + j0) * p.kv_stride + g * C;
    cpu::transpose(keys, p.kv_stride, columns, C, keys_t, columns);
    for (std::int64_t row0 = 0; row0 < rows; row0 += cpu::score_rows) {
      const std::int64_t count = std::min(cpu::score_rows, rows - row0);
      cpu::product(kernel, Gemm::nn, count, columns, C, q + row0 * C, C, keys_t, columns, scores, columns, false);
      for (std::int64_t row = row0; row < row0 + count; ++row) {
        const std::int64_t i = first + row % n;
        const std::int64_t seen_first = std::clamp<std::int64_t>(p.first_key(b, i) - j0, 0, columns);
        const std::int64_t seen_last = std::clamp<std::int64_t>(p.past + i + 1 - j0, seen_first, columns);
        float* score = scores + (row - row0) * columns;
        if (seen_first == seen_last)
          std::fill_n(score, columns, 0.0f);
        else
          online_softmax(score, columns, seen_first, seen_last, maxima[row], sums[row], output + row * C, C);
      }
      cpu::product(kernel, Gemm::nn, count, C, columns, scores, columns, values, p.kv_stride, output + row0 * C, C,
                   true);
    }
  }

  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t t = b * p.queries + first + row % n, h = g * p.group() + row / n;
    float* to = p.out + (t * p.heads + h) * C;
    const float inverse = 1.0f / sums[row];
#pragma omp simd
    for (std::int64_t c = 0; c < C; ++c) to[c] = output[row * C + c] * inverse;
    if (p.lse) p.lse[h * p.tokens() + t] = maxima[row] + std::log(sums[row]);
  }
}

}  // namespace

void CpuBackend::run_attention_forward(const AttentionProblem& p) {
  const std::int64_t blocks = p.query_blocks(), lanes = p.sequences * p.kv_heads;
  const auto floats = static_cast<std::size_t>(workspace_floats(p));
  cpu::for_tasks(threads_, blocks * lanes, [&](std::int64_t task) {
    // Late queries see the most keys: they start first.
    const std::int64_t block = blocks - 1 - task / lanes, lane = task % lanes;
    const std::int64_t first = block * p.query_block(), last = std::min(p.queries, first + p.query_block());
    float* workspace = per_thread_[static_cast<std::size_t>(omp_get_thread_num())].take<float>(floats);
    forward_block(p, lane / p.kv_heads, lane % p.kv_heads, first, last, workspace);
  });
}

void CpuBackend::do_attention_forward(const AttentionShape& shape, const Tensor& qkv, const Tensor& document_start,
                                      const Tensor& out, const Tensor& lse) {
  const auto [B, S, H, G, C, window] = shape;
  if (B * S == 0) return;
  const std::int64_t stride = (H + 2 * G) * C;
  const float* q = qkv.f32();
  run_attention_forward({B, S, 0, H, G, C, window, q, stride, q + H * C, q + (H + G) * C, stride,
                         document_start.empty() ? nullptr : document_start.i32(), out.f32(), lse.f32()});
}

void CpuBackend::do_attention_cached(const AttentionShape& shape, const Tensor& qkv, std::int64_t past,
                                     const Tensor& key_cache, const Tensor& value_cache, const Tensor& out) {
  const std::int64_t N = qkv.dim(0), H = shape.heads, G = shape.kv_heads, C = shape.head_dim;
  if (N == 0) return;
  const std::int64_t stride = (H + 2 * G) * C;
  const float* q = qkv.f32();
  float *keys = key_cache.f32(), *values = value_cache.f32();
  for (std::int64_t i = 0; i < N; ++i) {
    std::copy_n(q + i * stride + H * C, G * C, keys + (past + i) * G * C);
    std::copy_n(q + i * stride + (H + G) * C, G * C, values + (past + i) * G * C);
  }
  run_attention_forward(
      {1, N, past, H, G, C, shape.window, q, stride, keys, values, G * C, nullptr, out.f32(), nullptr});
}

}  // namespace smoe
