// Attention forward: FlashAttention's tiling (Dao et al. 2022; Dao 2023) with an online softmax, in f32. A block takes a tile of
// queries, the query heads of a key-value head side by side, so that each tile of keys is read once for all of them.
#include "kernels/cuda/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"

namespace smoe {
namespace cuda {
namespace {

// The lowest key that any of 16 queries sees.
__global__ void lowest_keys_kernel(AttentionProblem<float> p, std::int32_t* lowest_keys, int entries) {
  const int entry = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (entry >= entries) return;
  const int entries_of_a_sequence = entries / p.sequences;
  const int b = entry / entries_of_a_sequence, first = entry % entries_of_a_sequence * rows_of_a_lowest_key;
  int lowest = first;
  for (int i = first; i < first + rows_of_a_lowest_key && i < p.queries; ++i) {
    const int key = p.first_key(b, i);
    lowest = lowest < key ? lowest : key;
  }
  lowest_keys[entry] = lowest;
}

}  // namespace

std::int64_t lowest_keys_of(const AttentionShape& shape) {
  return shape.sequences * ceil_div(shape.sequence_length, rows_of_a_lowest_key);
}

void find_lowest_keys(cudaStream_t stream, const char* op, const AttentionShape& shape, const Tensor& document_start,
                      std::int32_t* lowest_keys) {
  AttentionProblem<float> p{};
  p.sequences = static_cast<int>(shape.sequences);
  p.queries = static_cast<int>(shape.sequence_length);
  p.window = static_cast<int>(std::min<std::int64_t>(shape.window, shape.sequence_length));
  p.document_start = document_start.i32();
  const std::int64_t entries = lowest_keys_of(shape);
  launch(stream, op, over(entries), lowest_keys_kernel, p, lowest_keys, static_cast<int>(entries));
}

void expect_head_dim(const char* op, std::int64_t head_dim) {
  if (head_dim > most_head_columns)
    throw std::invalid_argument(std::string(op) + ": head_dim " + std::to_string(head_dim) + ", expected at most " +
                                std::to_string(most_head_columns) + " on a GPU");
}

}  // namespace cuda

namespace {
using namespace cuda;

// What blocks that share the keys of a tile of queries leave to be merged: of each, a row of sums, its maximum and its sum of
// exponentials.
struct Parts {
  int count;  // 1: there are none, and the block writes its rows itself
  float *rows, *maxima, *sums;
};

template <class A, int columns, int queries, int keys>
__global__ void __launch_bounds__(attention_threads, 1)
    attention_forward_kernel(AttentionProblem<A> p, A* out, float* lse, Parts parts) {
  constexpr int stride = columns + 4, R = queries / attention_rows, N = keys / attention_lanes, M = columns / 32;
  float* q_tile = dynamic_shared<float>();
  float* k_tile = q_tile + queries * stride;
  float* v_tile = k_tile + keys * stride;
  float* weights = v_tile + keys * stride;  // [queries, weights_stride(keys)]
  const int tx = threadIdx.x % attention_lanes, ty = threadIdx.x / attention_lanes;

  // Row r of a lane is query r / group, head r % group. Late queries see the most keys: their tiles come first.
  const int group = p.group(), rows = p.queries * group, lanes = p.sequences * p.kv_heads;
  const int part = static_cast<int>(blockIdx.x) % parts.count, task = static_cast<int>(blockIdx.x) / parts.count;
  const int lane = task % lanes, b = lane / p.kv_heads, g = lane % p.kv_heads;
  const int first_row = ((rows + queries - 1) / queries - 1 - task / lanes) * queries;
  const int end_row = first_row + queries < rows ? first_row + queries : rows;
  const std::int64_t first_token = std::int64_t{b} * p.queries, first_of_keys = std::int64_t{b} * p.keys();

  load_tile<A, queries, columns>(
      q_tile,
      [&](int row) -> const A* {
        row += first_row;
        if (row >= end_row) return nullptr;
        return p.q + (first_token + row / group) * p.q_stride + std::int64_t{g * group + row % group} * p.head_dim;
      },
      p.head_dim, p.wide, p.scale);

  int first_seen[R], last_seen[R];
  float maximum[R], sum[R], sums[R][M][4];
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int row = first_row + ty + r * attention_rows;
    first_seen[r] = row < end_row ? p.first_key(b, row / group) : 0;
    last_seen[r] = row < end_row ? p.past + row / group : -1;
    maximum[r] = -INFINITY;
    sum[r] = 0;  // of this thread's keys
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[r][m][i] = 0;
  }

  const int end_query = (end_row - 1) / group + 1;
  int begin = p.lowest_key(b, first_row / group, end_query), end = p.past + end_query;
  if (parts.count > 1) {
    const int tiles = (end - begin + keys - 1) / keys, of_a_part = (tiles + parts.count - 1) / parts.count * keys;
    begin = begin + part * of_a_part;
    end = begin + of_a_part < end ? begin + of_a_part : end;
  }
  for (int j0 = begin; j0 < end; j0 += keys) {
    __syncthreads();  // the tiles before these have been read
    load_tile<A, keys, columns>(k_tile, p.keys_from(first_of_keys + j0, g, end - j0), p.head_dim, p.wide);
    load_tile<A, keys, columns>(v_tile, p.values_from(first_of_keys + j0, g, end - j0), p.head_dim, p.wide);
    __syncthreads();
    float scores[R][N];
    multiply_rows<R, N, columns>(q_tile, k_tile, p.head_dim, scores);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      float higher = maximum[r];
#pragma unroll
      for (int n = 0; n < N; ++n) {
        const int j = j0 + tx + n * attention_lanes;
        if (j >= first_seen[r] && j <= last_seen[r]) higher = Max::of(scores[r][n], higher);
      }
      higher = row_all<Max>(higher);
      const float shrink = higher == maximum[r] ? 1.0f : expf(maximum[r] - higher);
      float added = 0;
#pragma unroll
      for (int n = 0; n < N; ++n) {
        const int j = j0 + tx + n * attention_lanes;
        const bool seen = j >= first_seen[r] && j <= last_seen[r];
        const float weight = seen ? expf(scores[r][n] - higher) : 0.0f;
        weights[(ty + r * attention_rows) * weights_stride(keys) + tx + n * attention_lanes] = weight;
        added += weight;
      }
      sum[r] = sum[r] * shrink + added;
      maximum[r] = higher;
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[r][m][i] *= shrink;
    }
    __syncwarp();  // a row's weights are written and read by the 8 threads that have the row
    add_weighted_rows<R, M, columns, keys>(weights, v_tile, sums);
  }

#pragma unroll
  for (int r = 0; r < R; ++r) {
    const float whole = row_all<Sum>(sum[r]);
    const int row = first_row + ty + r * attention_rows;
    if (row >= end_row) continue;
    const int h = g * group + row % group;
    const std::int64_t t = first_token + row / group;
    if (parts.count == 1) {
      store_row(out + (t * p.heads + h) * p.head_dim, sums[r], p.head_dim, p.wide, 1.0f / whole);
      if (lse && tx == 0) lse[h * (std::int64_t{p.sequences} * p.queries) + t] = maximum[r] + logf(whole);
    } else {
      const std::int64_t at = (t * p.heads + h) * parts.count + part;
      store_row(parts.rows + at * p.head_dim, sums[r], p.head_dim, p.wide, 1.0f);
      if (tx == 0) parts.maxima[at] = maximum[r], parts.sums[at] = whole;
    }
  }
}

template <class A, int columns, int queries, int keys>
void launch_forward(cudaStream_t stream, const char* op, const AttentionProblem<A>& p, A* out, float* lse,
                    const Parts& parts) {
  const std::int64_t rows = std::int64_t{p.queries} * p.group();
  const std::int64_t blocks = ceil_div(rows, queries) * p.sequences * p.kv_heads * parts.count;
  const std::size_t floats = (queries + 2 * keys) * (columns + 4) + queries * weights_stride(keys);
  launch(stream, op, {blocks, attention_threads, floats * sizeof(float)},
         attention_forward_kernel<A, columns, queries, keys>, p, out, lse, parts);
}

template <class A, int columns>
void launch_forward_of_many(cudaStream_t stream, const char* op, const AttentionProblem<A>& p, A* out, float* lse) {
  if constexpr (on_tensor_cores<A, columns>) {
    attention_forward_on_tensor_cores(stream, op, p, out, lse);
  } else {
    // Of heads above 128 a block has half as many rows, so that its tiles fit into the shared memory of any card.
    constexpr int queries = columns <= 128 ? 64 : 32, keys = columns <= 128 ? 32 : 16;
    launch_forward<A, columns, queries, keys>(stream, op, p, out, lse, {1, nullptr, nullptr, nullptr});
  }
}

}  // namespace

void CudaBackend::do_attention_forward(const AttentionShape& shape, const Tensor& qkv, const Tensor& document_start,
                                       const Tensor& out, const Tensor& lse) {
  const auto [B, S, H, G, C, window] = shape;
  if (B * S == 0) return;
  if (sdpa_.takes(cuda::Sdpa::Pass::forward, shape, qkv.type(), document_start))
    return sdpa_.forward(shape, qkv, out, lse);
  const char* const op = "attention_forward";
  expect_head_dim(op, C);
  std::int32_t* lowest_keys = nullptr;
  if (!document_start.empty()) {
    lowest_keys = workspace_.take<std::int32_t>(lowest_keys_of(shape));
    find_lowest_keys(stream_, op, shape, document_start, lowest_keys);
  }
  by_type(qkv.type(), [&]<class A>() {
    const AttentionProblem<A> p = attention_problem<A>(shape, qkv, document_start, lowest_keys, {qkv, out});
    by_head_columns(
        C, [&]<int columns>() { launch_forward_of_many<A, columns>(stream_, op, p, data<A>(out), lse.f32()); });
  });
}

// ---- from a cache ----

namespace {

// The new rows of keys and values behind those that the caches have.
template <class A, int W>
__global__ void append_kernel(const A* keys_and_values, std::int64_t stride, int pieces_of_a_row, std::int64_t pieces,
                              A* key_cache, A* value_cache) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= pieces) return;
  const std::int64_t row = i / pieces_of_a_row, piece = i % pieces_of_a_row;
  const A* from = keys_and_values + row * stride;
  reinterpret_cast<Pack<A, W>*>(key_cache)[i] = reinterpret_cast<const Pack<A, W>*>(from)[piece];
  reinterpret_cast<Pack<A, W>*>(value_cache)[i] = reinterpret_cast<const Pack<A, W>*>(from)[pieces_of_a_row + piece];
}

// A block a row: its parts, in order. A part without a key that the row sees weighs nothing.
template <class A>
__global__ void merge_parts_kernel(Parts parts, int head_dim, A* out) {
  const std::int64_t row = blockIdx.x, first = row * parts.count;
  float maximum = -INFINITY, sum = 0;
  for (int i = 0; i < parts.count; ++i) maximum = Max::of(parts.maxima[first + i], maximum);
  for (int i = 0; i < parts.count; ++i) sum += parts.sums[first + i] * expf(parts.maxima[first + i] - maximum);
  for (int c = threadIdx.x; c < head_dim; c += blockDim.x) {
    float number = 0;
    for (int i = 0; i < parts.count; ++i)
      number += parts.rows[(first + i) * head_dim + c] * expf(parts.maxima[first + i] - maximum);
    out[row * head_dim + c] = from_float<A>(number / sum);
  }
}

}  // namespace

// One token after another: few queries, and a cache that may be long. Blocks of 16 rows share its keys, twice as many blocks as
// there are multiprocessors, each with two tiles of keys at least; what they found is merged in order.
void CudaBackend::do_attention_cached(const AttentionShape& shape, const Tensor& qkv, std::int64_t past,
                                      const Tensor& key_cache, const Tensor& value_cache, const Tensor& out) {
  const std::int64_t N = qkv.dim(0), H = shape.heads, G = shape.kv_heads, C = shape.head_dim;
  if (N == 0) return;
  const char* const op = "attention_cached";
  expect_head_dim(op, C);
  by_type(qkv.type(), [&]<class A>() {
    AttentionProblem<A> p =
        attention_problem<A>({1, N, H, G, C, shape.window}, qkv, {}, nullptr, {qkv, key_cache, value_cache, out});
    p.past = static_cast<int>(past);
    A *keys = data<A>(key_cache), *values = data<A>(value_cache);
    by_width<A>(C, {qkv, key_cache, value_cache}, [&]<class, int W>() {
      const std::int64_t pieces = N * G * C / W;
      launch(stream_, op, over(pieces), append_kernel<A, W>, p.k, p.q_stride, static_cast<int>(G * C / W), pieces,
             keys + past * G * C, values + past * G * C);
    });
    p.k = keys, p.v = values, p.kv_stride = G * C;
    by_head_columns(C, [&]<int columns>() {
      constexpr int few = 16, tile = columns <= 128 ? 32 : 16;
      const std::int64_t rows = N * p.group(),
                         seen = p.window > 0 ? std::min<std::int64_t>(past, p.window) + N : past + N;
      if (rows > few) {
        launch_forward_of_many<A, columns>(stream_, op, p, data<A>(out), nullptr);
        return;
      }
      const std::int64_t most = std::max<std::int64_t>(2 * multiprocessors_ / G, 1);
      Parts parts{static_cast<int>(std::clamp<std::int64_t>(ceil_div(seen, 2 * tile), 1, most)), nullptr, nullptr,
                  nullptr};
      if (parts.count > 1) {
        const std::int64_t all = N * H * parts.count;
        parts.rows = workspace_.take<float>(all * (C + 2));
        parts.maxima = parts.rows + all * C;
        parts.sums = parts.maxima + all;
      }
      launch_forward<A, columns, few, tile>(stream_, op, p, data<A>(out), nullptr, parts);
      if (parts.count > 1)
        launch(stream_, op, {N * H, threads_for(C, 256)}, merge_parts_kernel<A>, parts, static_cast<int>(C),
               data<A>(out));
    });
  });
}

}  // namespace smoe
