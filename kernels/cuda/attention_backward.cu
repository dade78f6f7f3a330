// Attention backward (Dao 2023, algorithm 2): probabilities are recomputed from the log-sum-exp. With q already scaled,
// P = exp(q k^T - lse), delta = rowsum(dout * out), dS = P * (dout v^T - delta):
//   dv = P^T dout, dk = dS^T q, dq = scale * dS k.
//
// Two kernels, so that every gradient has one block that sums it up, in one order: the first owns a tile of queries and
// sums over keys, the second owns a tile of keys and sums over queries, of one head of its group after another.
#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"

namespace smoe {
namespace {
using namespace cuda;

// dq and delta of a tile of queries of one head.
template <class A, int columns, int queries, int keys>
__global__ void __launch_bounds__(attention_threads, 1)
    attention_query_gradients_kernel(AttentionProblem<A> p, AttentionOutput<A> of) {
  constexpr int stride = columns + 4, R = queries / attention_rows, N = keys / attention_lanes, M = columns / 32;
  float* q_tile = dynamic_shared<float>();
  float* dout_tile = q_tile + queries * stride;
  float* k_tile = dout_tile + queries * stride;
  float* v_tile = k_tile + keys * stride;
  float* dscores = v_tile + keys * stride;  // [queries, weights_stride(keys)]
  const int tx = threadIdx.x % attention_lanes, ty = threadIdx.x / attention_lanes;

  const int lanes = p.sequences * p.heads, lane = static_cast<int>(blockIdx.x) % lanes;
  const int b = lane / p.heads, h = lane % p.heads, g = h / p.group();
  const int first = ((p.queries + queries - 1) / queries - 1 - static_cast<int>(blockIdx.x) / lanes) * queries;
  const int last = first + queries < p.queries ? first + queries : p.queries;
  const std::int64_t first_token = std::int64_t{b} * p.queries, tokens = std::int64_t{p.sequences} * p.queries;

  load_tile<A, queries, columns>(q_tile, p.queries_from(first_token + first, h, last - first), p.head_dim, p.wide,
                                 p.scale);
  load_tile<A, queries, columns>(dout_tile, of.dout_from(p, first_token + first, h, last - first), p.head_dim, p.wide);
  __syncthreads();

  int first_seen[R], last_seen[R];
  float lse[R], delta[R], sums[R][M][4];
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int row = ty + r * attention_rows, i = first + row;
    const bool there = i < last;
    first_seen[r] = there ? p.first_key(b, i) : 0;
    last_seen[r] = there ? i : -1;
    const std::int64_t at = h * tokens + first_token + i;
    lse[r] = there ? of.lse[at] : 0.0f;
    float dot = 0;
    if (there)
      for (int c = tx; c < p.head_dim; c += attention_lanes)
        dot += to_float(of.out[((first_token + i) * p.heads + h) * p.head_dim + c]) * dout_tile[row * stride + c];
    delta[r] = row_all<Sum>(dot);
    if (there && tx == 0) of.delta[at] = delta[r];
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < 4; ++n) sums[r][m][n] = 0;
  }

  for (int j0 = p.lowest_key(b, first, last); j0 < last; j0 += keys) {
    __syncthreads();  // the tiles before these have been read
    load_tile<A, keys, columns>(k_tile, p.keys_from(first_token + j0, g, last - j0), p.head_dim, p.wide);
    load_tile<A, keys, columns>(v_tile, p.values_from(first_token + j0, g, last - j0), p.head_dim, p.wide);
    __syncthreads();
    float scores[R][N], dweights[R][N];
    multiply_rows<R, N, columns>(q_tile, k_tile, p.head_dim, scores);
    multiply_rows<R, N, columns>(dout_tile, v_tile, p.head_dim, dweights);
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int n = 0; n < N; ++n) {
        const int j = j0 + tx + n * attention_lanes;
        const bool seen = j >= first_seen[r] && j <= last_seen[r];
        dscores[(ty + r * attention_rows) * weights_stride(keys) + tx + n * attention_lanes] =
            seen ? expf(scores[r][n] - lse[r]) * (dweights[r][n] - delta[r]) : 0.0f;
      }
    __syncwarp();  // a row's numbers are written and read by the 8 threads that have the row
    add_weighted_rows<R, M, columns, keys>(dscores, k_tile, sums);
  }
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int i = first + ty + r * attention_rows;
    if (i >= last) continue;
    store_row(of.dqkv + (first_token + i) * p.q_stride + std::int64_t{h} * p.head_dim, sums[r], p.head_dim, p.wide,
              p.scale);
  }
}

// dk and dv of a tile of keys. Here the keys are the rows of a tile of scores, the queries its columns.
template <class A, int columns, int keys, int queries>
__global__ void __launch_bounds__(attention_threads, 1)
    attention_key_gradients_kernel(AttentionProblem<A> p, AttentionOutput<A> of) {
  constexpr int stride = columns + 4, R = keys / attention_rows, N = queries / attention_lanes, M = columns / 32;
  float* k_tile = dynamic_shared<float>();
  float* v_tile = k_tile + keys * stride;
  float* q_tile = v_tile + keys * stride;
  float* dout_tile = q_tile + queries * stride;
  float* weights = dout_tile + queries * stride;  // [keys, weights_stride(queries)]
  float* dscores = weights + keys * weights_stride(queries);
  const int tx = threadIdx.x % attention_lanes, ty = threadIdx.x / attention_lanes;

  // Early keys are seen by the most queries: their tiles come first.
  const int lanes = p.sequences * p.kv_heads, lane = static_cast<int>(blockIdx.x) % lanes;
  const int b = lane / p.kv_heads, g = lane % p.kv_heads, group = p.group();
  const int first = static_cast<int>(blockIdx.x) / lanes * keys;
  const int last = first + keys < p.queries ? first + keys : p.queries;
  const std::int64_t first_token = std::int64_t{b} * p.queries, tokens = std::int64_t{p.sequences} * p.queries;

  load_tile<A, keys, columns>(k_tile, p.keys_from(first_token + first, g, last - first), p.head_dim, p.wide);
  load_tile<A, keys, columns>(v_tile, p.values_from(first_token + first, g, last - first), p.head_dim, p.wide);

  float dk[R][M][4], dv[R][M][4];
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < 4; ++n) dk[r][m][n] = dv[r][m][n] = 0;

  // No query from here on sees a key of the tile.
  const int end = p.window > 0 && p.window < p.queries - last ? last - 1 + p.window : p.queries;
  for (int h = g * group; h < (g + 1) * group; ++h) {
    for (int i0 = first; i0 < end; i0 += queries) {
      const int i1 = i0 + queries < end ? i0 + queries : end;
      if (p.lowest_key(b, i0, i1) >= last) continue;
      __syncthreads();  // the tiles before these have been read
      load_tile<A, queries, columns>(q_tile, p.queries_from(first_token + i0, h, i1 - i0), p.head_dim, p.wide, p.scale);
      load_tile<A, queries, columns>(dout_tile, of.dout_from(p, first_token + i0, h, i1 - i0), p.head_dim, p.wide);
      __syncthreads();
      float scores[R][N], dweights[R][N];
      multiply_rows<R, N, columns>(k_tile, q_tile, p.head_dim, scores);
      multiply_rows<R, N, columns>(v_tile, dout_tile, p.head_dim, dweights);
#pragma unroll
      for (int n = 0; n < N; ++n) {
        const int i = i0 + tx + n * attention_lanes;
        const bool there = i < i1;
        const std::int64_t at = h * tokens + first_token + i;
        const int first_seen = there ? p.first_key(b, i) : 0, last_seen = there ? i : -1;
        const float lse = there ? of.lse[at] : 0.0f, delta = there ? of.delta[at] : 0.0f;
#pragma unroll
        for (int r = 0; r < R; ++r) {
          const int row = ty + r * attention_rows, j = first + row;
          const bool seen = j >= first_seen && j <= last_seen;
          const float weight = seen ? expf(scores[r][n] - lse) : 0.0f;
          const int to = row * weights_stride(queries) + tx + n * attention_lanes;
          weights[to] = weight;
          dscores[to] = seen ? weight * (dweights[r][n] - delta) : 0.0f;
        }
      }
      __syncwarp();  // a row's numbers are written and read by the 8 threads that have the row
      add_weighted_rows<R, M, columns, queries>(weights, dout_tile, dv);
      add_weighted_rows<R, M, columns, queries>(dscores, q_tile, dk);
    }
  }
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int j = first + ty + r * attention_rows;
    if (j >= last) continue;
    A* to = of.dqkv + (first_token + j) * p.kv_stride + std::int64_t{p.heads + g} * p.head_dim;
    store_row(to, dk[r], p.head_dim, p.wide, 1.0f);
    store_row(to + std::int64_t{p.kv_heads} * p.head_dim, dv[r], p.head_dim, p.wide, 1.0f);
  }
}

constexpr std::size_t tiles_bytes(int columns, int own, int other, int tiles_of_weights) {
  return sizeof(float) * (2 * (own + other) * (columns + 4) + tiles_of_weights * own * weights_stride(other));
}

template <class A, int columns>
void launch_backward(cudaStream_t stream, const char* op, const AttentionProblem<A>& p, const AttentionOutput<A>& of) {
  if constexpr (on_tensor_cores<A, columns>) {
    attention_backward_on_tensor_cores(stream, op, p, of);
  } else {
    // A tile is what leaves room for another block on the same multiprocessor, or, of larger heads, what fits into the
    // shared memory of any card (99 KiB).
    constexpr int own = columns <= 128 ? 64 : 16, other = columns <= 64 ? 32 : 16;
    const std::int64_t tiles = ceil_div(p.queries, own) * p.sequences;
    launch(stream, op, {tiles * p.heads, attention_threads, tiles_bytes(columns, own, other, 1)},
           attention_query_gradients_kernel<A, columns, own, other>, p, of);
    launch(stream, op, {tiles * p.kv_heads, attention_threads, tiles_bytes(columns, own, other, 2)},
           attention_key_gradients_kernel<A, columns, own, other>, p, of);
  }
}

}  // namespace

void CudaBackend::do_attention_backward(const AttentionShape& shape, const Tensor& qkv, const Tensor& document_start,
                                        const Tensor& out, const Tensor& lse, const Tensor& dout, const Tensor& dqkv) {
  const auto [B, S, H, G, C, window] = shape;
  const std::int64_t T = B * S;
  if (T == 0) return;
  if (sdpa_.takes(cuda::Sdpa::Pass::backward, shape, qkv.type(), document_start))
    return sdpa_.backward(shape, qkv, out, lse, dout, dqkv);
  const char* const op = "attention_backward";
  expect_head_dim(op, C);
  auto* delta = workspace_.take<float>(H * T + lowest_keys_of(shape));
  std::int32_t* lowest_keys = nullptr;
  if (!document_start.empty()) {
    lowest_keys = reinterpret_cast<std::int32_t*>(delta + H * T);
    find_lowest_keys(stream_, op, shape, document_start, lowest_keys);
  }
  by_type(qkv.type(), [&]<class A>() {
    const AttentionProblem<A> p = attention_problem<A>(shape, qkv, document_start, lowest_keys, {qkv, out, dout, dqkv});
    const AttentionOutput<A> of{data<A>(out), data<A>(dout), lse.f32(), delta, data<A>(dqkv)};
    by_head_columns(C, [&]<int columns>() { launch_backward<A, columns>(stream_, op, p, of); });
  });
}

}  // namespace smoe
