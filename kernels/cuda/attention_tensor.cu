// Attention in bf16 on tensor cores, as attention.cu and attention_backward.cu have it in f32: the same tiles, the same order of
// sums. Each of a block's four warps has 16 rows of the tile that the block owns, and all columns of a tile of scores:
// so what it makes of the scores, rounded to bf16, is in its registers just as the next product wants it.
//
// A tile lies in shared memory as bf16, rows 8 numbers longer than they need be: the 8 rows that load_matrices() reads
// at once then lie in banks of their own.
#include <cmath>
#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/launch.h"

namespace smoe::cuda {
namespace {

constexpr int own_rows = 64, rows_of_a_warp = 16;
constexpr int tensor_stride(int columns) { return columns + 8; }

// to [rows, tensor_stride(columns)] = the rows that row_at names; where it names none, zeros.
template <int rows, int columns, class RowAt>
__device__ void copy_tile(Bf16* to, const RowAt& row_at, int head_dim, bool wide) {
  constexpr int W = 8, pieces_of_a_row = columns / W;
#pragma unroll 4
  for (int piece = threadIdx.x; piece < rows * pieces_of_a_row; piece += attention_threads) {
    const int row = piece / pieces_of_a_row, c = piece % pieces_of_a_row * W;
    Pack<Bf16, W> pack{};
    if (const Bf16* from = row_at(row); from && c < head_dim) {
      if (wide) {
        pack = *reinterpret_cast<const Pack<Bf16, W>*>(from + c);
      } else {
#pragma unroll
        for (int w = 0; w < W; ++w)
          if (c + w < head_dim) pack.at[w] = from[c + w];
      }
    }
    *reinterpret_cast<Pack<Bf16, W>*>(to + row * tensor_stride(columns) + c) = pack;
  }
}

// dots = 16 rows of a times 8 N rows of b, in the layout of multiply_add().
template <int N, int columns>
__device__ void multiply_tiles(const Bf16* a, const Bf16* b, float (&dots)[N][4]) {
  constexpr int stride = tensor_stride(columns);
  const int lane = threadIdx.x % warp, matrix = lane / 8;
  a += (lane % 8 + matrix % 2 * 8) * stride + matrix / 2 * 8;
  b += (lane % 8 + matrix / 2 * 8) * stride + matrix % 2 * 8;
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) dots[n][i] = 0;
#pragma unroll
  for (int c = 0; c < columns; c += 16) {
    std::uint32_t x[4];
    load_matrices(x, a + c);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      std::uint32_t y[4];
      load_matrices(y, b + n * 8 * stride + c);
      multiply_add(dots[n], x, y[0], y[1]);
      multiply_add(dots[n + 1], x, y[2], y[3]);
    }
  }
}

// sums += weights, 16 x 8 N, times 8 N rows.
template <int N, int M, int columns>
__device__ void add_weighted_tile(const float (&weights)[N][4], const Bf16* rows, float (&sums)[M][4]) {
  constexpr int stride = tensor_stride(columns);
  const int lane = threadIdx.x % warp, matrix = lane / 8;
  rows += (lane % 8 + matrix % 2 * 8) * stride + matrix / 2 * 8;
#pragma unroll
  for (int n = 0; n < N; n += 2) {
    const std::uint32_t w[4] = {bf16_pair(weights[n][0], weights[n][1]), bf16_pair(weights[n][2], weights[n][3]),
                                bf16_pair(weights[n + 1][0], weights[n + 1][1]),
                                bf16_pair(weights[n + 1][2], weights[n + 1][3])};
#pragma unroll
    for (int m = 0; m < M; m += 2) {
      std::uint32_t x[4];
      load_matrices_transposed(x, rows + n * 8 * stride + m * 8);
      multiply_add(sums[m], w, x[0], x[1]);
      multiply_add(sums[m + 1], w, x[2], x[3]);
    }
  }
}

// Over the 4 lanes of a row.
template <class How>
__device__ float four_all(float x) {
  x = How::of(x, __shfl_xor_sync(all_lanes, x, 2));
  return How::of(x, __shfl_xor_sync(all_lanes, x, 1));
}

template <int M>
__device__ void clear(float (&sums)[M][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[m][i] = 0;
}

// to[c] = scale times this lane's numbers of its upper (half 0) or lower row.
template <int M>
__device__ void store_half(Bf16* to, const float (&sums)[M][4], int half, int head_dim, bool wide, float scale) {
#pragma unroll
  for (int m = 0; m < M; ++m) {
    const int c = m * 8 + threadIdx.x % 4 * 2;
    const float x[2] = {sums[m][2 * half] * scale, sums[m][2 * half + 1] * scale};
    if (wide) {
      if (c < head_dim) store(to + c, x);
    } else {
      if (c < head_dim) to[c] = from_float<Bf16>(x[0]);
      if (c + 1 < head_dim) to[c + 1] = from_float<Bf16>(x[1]);
    }
  }
}

// A tile of 64 rows of a sequence and a key-value head: row r is query r / group, head r % group of the group.
struct QueryTile {
  int b, g, group, first, end;  // rows [first, end)
  std::int64_t first_token;

  template <class A>
  static __device__ QueryTile of_block(const AttentionProblem<A>& p) {
    const int group = p.group(), rows = p.queries * group, lanes = p.sequences * p.kv_heads;
    const int lane = static_cast<int>(blockIdx.x) % lanes, b = lane / p.kv_heads;
    // Late queries see the most keys: their tiles come first.
    const int first = ((rows + own_rows - 1) / own_rows - 1 - static_cast<int>(blockIdx.x) / lanes) * own_rows;
    return {b,
            lane % p.kv_heads,
            group,
            first,
            first + own_rows < rows ? first + own_rows : rows,
            std::int64_t{b} * p.queries};
  }
  __device__ int query(int row) const { return row / group; }
  __device__ int head(int row) const { return g * group + row % group; }
  __device__ std::int64_t token(int row) const { return first_token + query(row); }
  __device__ int end_query() const { return query(end - 1) + 1; }
  // Where the tile's rows lie, head h of token t at of + t * stride + h * head_dim.
  __device__ auto rows(const Bf16* of, std::int64_t stride, int head_dim) const {
    return [=, tile = *this](int r) -> const Bf16* {
      r += tile.first;
      return r < tile.end ? of + tile.token(r) * stride + std::int64_t{tile.head(r)} * head_dim : nullptr;
    };
  }
};

template <int columns>
__global__ void __launch_bounds__(attention_threads, 2)
    tensor_forward_kernel(AttentionProblem<Bf16> p, Bf16* out, float* lse) {
  constexpr int stride = tensor_stride(columns), keys = 64, N = keys / 8, M = columns / 8;
  Bf16* q_tile = dynamic_shared<Bf16>();
  Bf16* k_tile = q_tile + own_rows * stride;
  Bf16* v_tile = k_tile + keys * stride;
  const QueryTile tile = QueryTile::of_block(p);
  const int warp_row = static_cast<int>(threadIdx.x) / warp * rows_of_a_warp;
  const int row = tile.first + warp_row + static_cast<int>(threadIdx.x) % warp / 4;  // the upper one

  copy_tile<own_rows, columns>(q_tile, tile.rows(p.q, p.q_stride, p.head_dim), p.head_dim, p.wide);

  int first_seen[2], last_seen[2];
  float maximum[2], sum[2], sums[M][4];
  clear(sums);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = row + half * 8;
    first_seen[half] = r < tile.end ? p.first_key(tile.b, tile.query(r)) : 0;
    last_seen[half] = r < tile.end ? p.past + tile.query(r) : -1;
    maximum[half] = -INFINITY;
    sum[half] = 0;  // of this lane's keys
  }

  const int end = p.past + tile.end_query();
  const std::int64_t first_of_keys = std::int64_t{tile.b} * p.keys();
  for (int j0 = p.lowest_key(tile.b, tile.query(tile.first), tile.end_query()); j0 < end; j0 += keys) {
    __syncthreads();  // the tiles before these have been read
    copy_tile<keys, columns>(k_tile, p.keys_from(first_of_keys + j0, tile.g, end - j0), p.head_dim, p.wide);
    copy_tile<keys, columns>(v_tile, p.values_from(first_of_keys + j0, tile.g, end - j0), p.head_dim, p.wide);
    __syncthreads();
    float scores[N][4];
    multiply_tiles<N, columns>(q_tile + warp_row * stride, k_tile, scores);
    float higher[2] = {maximum[0], maximum[1]}, shrink[2];
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int j = j0 + n * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + i % 2;
        scores[n][i] *= p.scale;
        if (j >= first_seen[i / 2] && j <= last_seen[i / 2]) higher[i / 2] = Max::of(scores[n][i], higher[i / 2]);
      }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      higher[half] = four_all<Max>(higher[half]);
      shrink[half] = higher[half] == maximum[half] ? 1.0f : expf(maximum[half] - higher[half]);
      maximum[half] = higher[half];
      sum[half] *= shrink[half];
    }
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int j = j0 + n * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + i % 2;
        const bool seen = j >= first_seen[i / 2] && j <= last_seen[i / 2];
        scores[n][i] = seen ? expf(scores[n][i] - maximum[i / 2]) : 0.0f;
        sum[i / 2] += scores[n][i];
      }
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[m][i] *= shrink[i / 2];
    add_weighted_tile<N, M, columns>(scores, v_tile, sums);
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float whole = four_all<Sum>(sum[half]);
    const int r = row + half * 8;
    if (r >= tile.end) continue;
    const std::int64_t t = tile.token(r);
    store_half(out + (t * p.heads + tile.head(r)) * p.head_dim, sums, half, p.head_dim, p.wide, 1.0f / whole);
    if (lse && threadIdx.x % 4 == 0)
      lse[tile.head(r) * (std::int64_t{p.sequences} * p.queries) + t] = maximum[half] + logf(whole);
  }
}

// ---- backward ----

// dq and delta of a tile of queries of the heads of a group.
template <int columns>
__global__ void __launch_bounds__(attention_threads, 2)
    tensor_query_gradients_kernel(AttentionProblem<Bf16> p, AttentionOutput<Bf16> of) {
  constexpr int stride = tensor_stride(columns), keys = columns <= 64 ? 64 : 32, N = keys / 8, M = columns / 8;
  Bf16* q_tile = dynamic_shared<Bf16>();
  Bf16* dout_tile = q_tile + own_rows * stride;
  Bf16* k_tile = dout_tile + own_rows * stride;
  Bf16* v_tile = k_tile + keys * stride;
  const QueryTile tile = QueryTile::of_block(p);
  const int warp_row = static_cast<int>(threadIdx.x) / warp * rows_of_a_warp;
  const int row = tile.first + warp_row + static_cast<int>(threadIdx.x) % warp / 4;
  const std::int64_t tokens = std::int64_t{p.sequences} * p.queries;

  copy_tile<own_rows, columns>(q_tile, tile.rows(p.q, p.q_stride, p.head_dim), p.head_dim, p.wide);
  copy_tile<own_rows, columns>(dout_tile, tile.rows(of.dout, std::int64_t{p.heads} * p.head_dim, p.head_dim),
                               p.head_dim, p.wide);
  __syncthreads();

  int first_seen[2], last_seen[2];
  float lse[2], delta[2], sums[M][4];
  clear(sums);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = row + half * 8;
    const bool there = r < tile.end;
    first_seen[half] = there ? p.first_key(tile.b, tile.query(r)) : 0;
    last_seen[half] = there ? tile.query(r) : -1;
    const std::int64_t at = there ? tile.head(r) * tokens + tile.token(r) : 0;
    lse[half] = there ? of.lse[at] : 0.0f;
    float dot = 0;
    if (there)
      for (int c = threadIdx.x % 4; c < p.head_dim; c += 4)
        dot += to_float(of.out[(tile.token(r) * p.heads + tile.head(r)) * p.head_dim + c]) *
               to_float(dout_tile[(r - tile.first) * stride + c]);
    delta[half] = four_all<Sum>(dot);
    if (there && threadIdx.x % 4 == 0) of.delta[at] = delta[half];
  }

  const int end = tile.end_query();
  for (int j0 = p.lowest_key(tile.b, tile.query(tile.first), end); j0 < end; j0 += keys) {
    __syncthreads();  // the tiles before these have been read
    copy_tile<keys, columns>(k_tile, p.keys_from(tile.first_token + j0, tile.g, end - j0), p.head_dim, p.wide);
    copy_tile<keys, columns>(v_tile, p.values_from(tile.first_token + j0, tile.g, end - j0), p.head_dim, p.wide);
    __syncthreads();
    float scores[N][4], dscores[N][4];
    multiply_tiles<N, columns>(q_tile + warp_row * stride, k_tile, scores);
    multiply_tiles<N, columns>(dout_tile + warp_row * stride, v_tile, dscores);
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int j = j0 + n * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + i % 2;
        const bool seen = j >= first_seen[i / 2] && j <= last_seen[i / 2];
        dscores[n][i] = seen ? expf(scores[n][i] * p.scale - lse[i / 2]) * (dscores[n][i] - delta[i / 2]) : 0.0f;
      }
    add_weighted_tile<N, M, columns>(dscores, k_tile, sums);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half)
    if (const int r = row + half * 8; r < tile.end)
      store_half(of.dqkv + tile.token(r) * p.q_stride + std::int64_t{tile.head(r)} * p.head_dim, sums, half, p.head_dim,
                 p.wide, p.scale);
}

// What a tile of queries brings beside its rows, for the columns of a tile of scores.
template <int queries>
struct QueryNumbers {
  float lse[queries], delta[queries];
  int first_seen[queries];
};

// dk and dv of a tile of keys. Here the keys are the rows of a tile of scores, the queries its columns.
template <int columns>
__global__ void __launch_bounds__(attention_threads, 2)
    tensor_key_gradients_kernel(AttentionProblem<Bf16> p, AttentionOutput<Bf16> of) {
  constexpr int stride = tensor_stride(columns), queries = columns <= 64 ? 64 : 32, N = queries / 8, M = columns / 8;
  Bf16* k_tile = dynamic_shared<Bf16>();
  Bf16* v_tile = k_tile + own_rows * stride;
  Bf16* q_tile = v_tile + own_rows * stride;
  Bf16* dout_tile = q_tile + queries * stride;
  auto* numbers = reinterpret_cast<QueryNumbers<queries>*>(dout_tile + queries * stride);

  // Early keys are seen by the most queries: their tiles come first.
  const int lanes = p.sequences * p.kv_heads, lane = static_cast<int>(blockIdx.x) % lanes;
  const int b = lane / p.kv_heads, g = lane % p.kv_heads, group = p.group();
  const int first = static_cast<int>(blockIdx.x) / lanes * own_rows;
  const int last = first + own_rows < p.queries ? first + own_rows : p.queries;
  const int warp_row = static_cast<int>(threadIdx.x) / warp * rows_of_a_warp;
  const int key = first + warp_row + static_cast<int>(threadIdx.x) % warp / 4;
  const std::int64_t first_token = std::int64_t{b} * p.queries, tokens = std::int64_t{p.sequences} * p.queries;

  copy_tile<own_rows, columns>(k_tile, p.keys_from(first_token + first, g, last - first), p.head_dim, p.wide);
  copy_tile<own_rows, columns>(v_tile, p.values_from(first_token + first, g, last - first), p.head_dim, p.wide);
  float dk[M][4], dv[M][4];
  clear(dk);
  clear(dv);

  // No query from here on sees a key of the tile.
  const int end = p.window > 0 && p.window < p.queries - last ? last - 1 + p.window : p.queries;
  for (int h = g * group; h < (g + 1) * group; ++h) {
    for (int i0 = first; i0 < end; i0 += queries) {
      const int i1 = i0 + queries < end ? i0 + queries : end;
      if (p.lowest_key(b, i0, i1) >= last) continue;
      __syncthreads();  // the tiles before these have been read
      copy_tile<queries, columns>(q_tile, p.queries_from(first_token + i0, h, i1 - i0), p.head_dim, p.wide);
      copy_tile<queries, columns>(dout_tile, of.dout_from(p, first_token + i0, h, i1 - i0), p.head_dim, p.wide);
      if (threadIdx.x < queries) {
        const int i = i0 + static_cast<int>(threadIdx.x);
        const std::int64_t at = h * tokens + first_token + i;
        numbers->lse[threadIdx.x] = i < i1 ? of.lse[at] : 0.0f;
        numbers->delta[threadIdx.x] = i < i1 ? of.delta[at] : 0.0f;
        numbers->first_seen[threadIdx.x] = i < i1 ? p.first_key(b, i) : p.queries;
      }
      __syncthreads();
      float weights[N][4], dscores[N][4];
      multiply_tiles<N, columns>(k_tile + warp_row * stride, q_tile, weights);
      multiply_tiles<N, columns>(v_tile + warp_row * stride, dout_tile, dscores);
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int column = n * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + i % 2, j = key + i / 2 * 8;
          const bool seen = j >= numbers->first_seen[column] && j <= i0 + column;
          weights[n][i] = seen ? expf(weights[n][i] * p.scale - numbers->lse[column]) : 0.0f;
          dscores[n][i] = seen ? weights[n][i] * (dscores[n][i] - numbers->delta[column]) : 0.0f;
        }
      add_weighted_tile<N, M, columns>(weights, dout_tile, dv);
      add_weighted_tile<N, M, columns>(dscores, q_tile, dk);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int j = key + half * 8;
    if (j >= last) continue;
    Bf16* to = of.dqkv + (first_token + j) * p.kv_stride + std::int64_t{p.heads + g} * p.head_dim;
    store_half(to, dk, half, p.head_dim, p.wide, p.scale);
    store_half(to + std::int64_t{p.kv_heads} * p.head_dim, dv, half, p.head_dim, p.wide, 1.0f);
  }
}

constexpr std::size_t tile_bytes(int rows, int columns) { return sizeof(Bf16) * rows * tensor_stride(columns); }

}  // namespace

void attention_forward_on_tensor_cores(cudaStream_t stream, const char* op, const AttentionProblem<Bf16>& p, Bf16* out,
                                       float* lse) {
  const std::int64_t tiles = ceil_div(std::int64_t{p.queries} * p.group(), own_rows);
  by_head_columns(p.head_dim, [&]<int columns>() {
    if constexpr (on_tensor_cores<Bf16, columns>)
      launch(stream, op, {tiles * p.sequences * p.kv_heads, attention_threads, tile_bytes(own_rows + 2 * 64, columns)},
             tensor_forward_kernel<columns>, p, out, lse);
  });
}

void attention_backward_on_tensor_cores(cudaStream_t stream, const char* op, const AttentionProblem<Bf16>& p,
                                        const AttentionOutput<Bf16>& of) {
  const std::int64_t lanes = std::int64_t{p.sequences} * p.kv_heads;
  by_head_columns(p.head_dim, [&]<int columns>() {
    if constexpr (on_tensor_cores<Bf16, columns>) {
      constexpr int other = columns <= 64 ? 64 : 32;
      const std::size_t bytes = tile_bytes(2 * own_rows + 2 * other, columns);
      launch(stream, op, {ceil_div(std::int64_t{p.queries} * p.group(), own_rows) * lanes, attention_threads, bytes},
             tensor_query_gradients_kernel<columns>, p, of);
      launch(stream, op,
             {ceil_div(p.queries, own_rows) * lanes, attention_threads, bytes + sizeof(QueryNumbers<other>)},
             tensor_key_gradients_kernel<columns>, p, of);
    }
  });
}

}  // namespace smoe::cuda
