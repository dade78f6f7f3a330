// Attention backward (Dao 2023, algorithm 2): probabilities are recomputed from the log-sum-exp. With q already scaled,
// P = exp(q k^T - lse), delta = rowsum(dout * out), dS = P * (dout v^T - delta):
//   dv = P^T dout, dk = dS^T q, dq = scale * dS k.
//
// A task owns the dk and dv of one block of keys. The dq of a block of queries receives one part from each block of
// keys that it sees; the parts are added in the order of the keys, so that their sum has one value: a task waits until
// the block of keys to its left has added its part. Tasks are handed out left to right, so that one is always ahead.
#include <omp.h>

#include <atomic>
#include <thread>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/vector_math.h"

namespace smoe {
namespace {

using cpu::AttentionProblem;
using cpu::ProductKernel;

struct Gradients {
  const float *lse, *delta;   // [H, T]
  const float* dout;          // [T, H, C]
  float *dq, *dk, *dv;        // strides as q, k, v
  std::int32_t* parts_added;  // [sequence, key-value head, query block]: how many parts its dq has
};

std::int64_t workspace_floats(const AttentionProblem& p) {
  const std::int64_t rows = p.group() * p.query_block(), C = p.head_dim, keys = p.key_block();
  const auto size = cpu::Carver::size;
  return 3 * size(rows * C) + 5 * size(keys * C) + 2 * size(cpu::score_rows * keys);
}

// Adds part [rows, C] to dq once the `earlier` parts before it are there; the first one is assigned.
void add_in_turn(const AttentionProblem& p, const Gradients& d, std::int64_t lane, std::int64_t block,
                 std::int64_t earlier, const float* part, std::int64_t rows) {
  const std::int64_t C = p.head_dim, b = lane / p.kv_heads, g = lane % p.kv_heads, n = rows / p.group();
  std::atomic_ref<std::int32_t> added(d.parts_added[lane * p.query_blocks() + block]);
  while (added.load(std::memory_order_acquire) != earlier) std::this_thread::yield();
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t t = b * p.queries + block * p.query_block() + row % n, h = g * p.group() + row / n;
    float* to = d.dq + t * p.q_stride + h * C;
    const float* from = part + row * C;
    if (earlier == 0) {
      std::copy_n(from, C, to);
    } else {
#pragma omp simd
      for (std::int64_t c = 0; c < C; ++c) to[c] += from[c];
    }
  }
  added.store(static_cast<std::int32_t>(earlier) + 1, std::memory_order_release);
}

// scores become P and dp becomes dS, for one row; columns [first, last) are seen.
void probabilities_and_gradient(float* score, float* dp, std::int64_t columns, std::int64_t first, std::int64_t last,
                                float lse, float delta) {
#pragma omp simd
  for (std::int64_t j = first; j < last; ++j) {
    score[j] = cpu::vector_exp(score[j] - lse);
    dp[j] = score[j] * (dp[j] - delta);
  }
  for (float* row : {score, dp}) {
    std::fill(row, row + first, 0.0f);
    std::fill(row + last, row + columns, 0.0f);
  }
}

void backward_block(const AttentionProblem& p, const Gradients& d, std::int64_t lane, std::int64_t key_block_index,
                    float* workspace) {
  const std::int64_t b = lane / p.kv_heads, g = lane % p.kv_heads, C = p.head_dim, T = p.tokens();
  const std::int64_t j0 = key_block_index * p.key_block(), j1 = std::min(p.queries, j0 + p.key_block()),
                     columns = j1 - j0;
  const std::int64_t most_rows = p.group() * p.query_block();
  cpu::Carver carve(workspace);
  float *q = carve(most_rows * C), *dout = carve(most_rows * C), *dq = carve(most_rows * C);
  float *keys_t = carve(columns * C), *values_t = carve(columns * C), *scaled_keys = carve(columns * C);
  float *dk = carve(columns * C), *dv = carve(columns * C);
  float *scores = carve(cpu::score_rows * columns), *dp = carve(cpu::score_rows * columns);

  const ProductKernel kernel = cpu::product_kernel_for(Gemm::nn, cpu::score_rows, columns, C);
  const ProductKernel kernel_tn = cpu::product_kernel_for(Gemm::tn, columns, C, cpu::score_rows);
  const float scale = p.scale();
  const std::int64_t key_offset = (b * p.queries + j0) * p.kv_stride + g * C;
  cpu::transpose(p.k + key_offset, p.kv_stride, columns, C, keys_t, columns);
  cpu::transpose(p.v + key_offset, p.kv_stride, columns, C, values_t, columns);
  for (std::int64_t j = 0; j < columns; ++j)
    for (std::int64_t c = 0; c < C; ++c) scaled_keys[j * C + c] = p.k[key_offset + j * p.kv_stride + c] * scale;
  std::fill_n(dk, columns * C, 0.0f);
  std::fill_n(dv, columns * C, 0.0f);

  for (std::int64_t block = j0 / p.query_block(); block < p.query_blocks(); ++block) {
    const std::int64_t first = block * p.query_block(), last = std::min(p.queries, first + p.query_block());
    const std::int64_t n = last - first, rows = p.group() * n;
    const std::int64_t first_seen = p.first_key(b, first, last);
    if (first_seen >= j1) continue;
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t t = b * p.queries + first + row % n, h = g * p.group() + row / n;
      const float *from_q = p.q + t * p.q_stride + h * C, *from_dout = d.dout + (t * p.heads + h) * C;
#pragma omp simd
      for (std::int64_t c = 0; c < C; ++c) {
        q[row * C + c] = from_q[c] * scale;
        dout[row * C + c] = from_dout[c];
      }
    }
    for (std::int64_t row0 = 0; row0 < rows; row0 += cpu::score_rows) {
      const std::int64_t count = std::min(cpu::score_rows, rows - row0);
      cpu::product(kernel, Gemm::nn, count, columns, C, q + row0 * C, C, keys_t, columns, scores, columns, false);
      cpu::product(kernel, Gemm::nn, count, columns, C, dout + row0 * C, C, values_t, columns, dp, columns, false);
      for (std::int64_t row = row0; row < row0 + count; ++row) {
        const std::int64_t i = first + row % n, h = g * p.group() + row / n;
        const std::int64_t seen_first = std::clamp<std::int64_t>(p.first_key(b, i) - j0, 0, columns);
        const std::int64_t seen_last = std::clamp<std::int64_t>(i + 1 - j0, seen_first, columns);
        const std::int64_t at = h * T + b * p.queries + i;
        probabilities_and_gradient(scores + (row - row0) * columns, dp + (row - row0) * columns, columns, seen_first,
                                   seen_last, d.lse[at], d.delta[at]);
      }
      cpu::product(kernel_tn, Gemm::tn, columns, C, count, scores, columns, dout + row0 * C, C, dv, C, true);
      cpu::product(kernel_tn, Gemm::tn, columns, C, count, dp, columns, q + row0 * C, C, dk, C, true);
      cpu::product(kernel, Gemm::nn, count, C, columns, dp, columns, scaled_keys, C, dq + row0 * C, C, false);
    }
    add_in_turn(p, d, lane, block, key_block_index - first_seen / p.key_block(), dq, rows);
  }
  for (std::int64_t j = 0; j < columns; ++j) {
    std::copy_n(dk + j * C, C, d.dk + key_offset + j * p.kv_stride);
    std::copy_n(dv + j * C, C, d.dv + key_offset + j * p.kv_stride);
  }
}

}  // namespace

void CpuBackend::do_attention_backward(const AttentionShape& shape, const Tensor& qkv, const Tensor& document_start,
                                       const Tensor& out, const Tensor& lse, const Tensor& dout, const Tensor& dqkv) {
  const auto [B, S, H, G, C, window] = shape;
  const std::int64_t T = B * S, heads = H;
  if (T == 0) return;

  const std::int64_t stride = (H + 2 * G) * C, head_dim = C;
  const float* q = qkv.f32();
  const AttentionProblem p{B,
                           S,
                           0,
                           H,
                           G,
                           C,
                           window,
                           q,
                           stride,
                           q + H * C,
                           q + (H + G) * C,
                           stride,
                           document_start.empty() ? nullptr : document_start.i32(),
                           nullptr,
                           nullptr};

  const float *pout = out.f32(), *pdout = dout.f32();
  float* delta = shared_.take<float>(static_cast<std::size_t>(H * T));
  cpu::for_blocks(threads_, T, cpu::block_rows(H * C), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t)
      for (std::int64_t h = 0; h < heads; ++h) {
        const float *o = pout + (t * heads + h) * head_dim, *g = pdout + (t * heads + h) * head_dim;
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (std::int64_t c = 0; c < head_dim; ++c) dot += o[c] * g[c];
        delta[h * T + t] = dot;
      }
  });

  const std::int64_t lanes = B * G, tasks = lanes * p.key_blocks();
  auto* parts_added = counters_.take<std::int32_t>(static_cast<std::size_t>(lanes * p.query_blocks()));
  std::fill_n(parts_added, lanes * p.query_blocks(), 0);
  float* to = dqkv.f32();
  const Gradients d{lse.f32(), delta, pdout, to, to + H * C, to + (H + G) * C, parts_added};
  const auto floats = static_cast<std::size_t>(workspace_floats(p));
  // A task waits for tasks of lower number only, and for_tasks has started all of those.
  cpu::for_tasks(threads_, tasks, [&](std::int64_t task) {
    float* workspace = per_thread_[static_cast<std::size_t>(omp_get_thread_num())].take<float>(floats);
    backward_block(p, d, task % lanes, task / lanes, workspace);
  });
}

}  // namespace smoe
