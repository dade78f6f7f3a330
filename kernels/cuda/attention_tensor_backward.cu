// The gradients of attention in bf16 on tensor cores, as attention_backward.cu has them in f32: the same order of sums. The other side's
// tiles come in two stages, as in attention_tensor.cu. A warp has 16 rows: it keeps their queries and dout in registers, or their keys.
#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_tensor.h"
#include "kernels/cuda/launch.h"

namespace smoe::cuda {
namespace {

constexpr int backward_rows = rows_of_a_slab * attention_threads / warp;
template <int columns>
constexpr int other_rows = columns <= 64 ? 64 : 32;  // of a tile of the other side

// dq and delta of a tile of queries of the heads of a group.
template <bool wide, int columns>
__global__ void __launch_bounds__(attention_threads, 2)
    tensor_query_gradients_kernel(AttentionProblem<Bf16> p, AttentionOutput<Bf16> of) {
  constexpr int stride = tensor_stride(columns), keys = other_rows<columns>, N = keys / 8, M = columns / 8;
  constexpr int tile_of_keys = tile_numbers(keys, columns);
  Bf16* const q_tile = dynamic_shared<Bf16>();
  Bf16* const dout_tile = q_tile + tile_numbers(backward_rows, columns);
  Bf16* const stages = dout_tile + tile_numbers(backward_rows, columns);  // keys, values, keys, values
  auto* const ranges = reinterpret_cast<KeyRange*>(stages + 4 * tile_of_keys);
  const auto tile = QueryTile<backward_rows>::of_block(p);
  const int warp_row = static_cast<int>(threadIdx.x) / warp * rows_of_a_slab;
  const std::int64_t tokens = std::int64_t{p.sequences} * p.queries;

  const int end = tile.end_query(), begin = p.lowest_key(tile.b, tile.query(tile.first), end);
  const auto copy_keys = [&](Bf16* stage, int j0) {
    copy_tile<wide, keys, columns>(stage, p.keys_from(tile.first_token + j0, tile.g, end - j0), p.head_dim);
    copy_tile<wide, keys, columns>(stage + tile_of_keys, p.values_from(tile.first_token + j0, tile.g, end - j0),
                                   p.head_dim);
  };
  copy_tile<wide, backward_rows, columns>(q_tile, tile.rows(p.q, p.q_stride, p.head_dim), p.head_dim);
  copy_tile<wide, backward_rows, columns>(dout_tile, tile.rows(of.dout, std::int64_t{p.heads} * p.head_dim, p.head_dim),
                                          p.head_dim);
  commit_copies();
  copy_keys(stages, begin);
  commit_copies();

  const KeysSeen<1> seen(ranges + warp_row, [&](int r) {
    r += tile.first + warp_row;
    return r < tile.end ? KeyRange{p.first_key(tile.b, tile.query(r)), tile.query(r) + 1} : KeyRange{0, 0};
  });
  wait_for_copies<1>();
  __syncthreads();
  Slab<columns> q, dout;
  load_slab<columns>(q, q_tile + warp_row * stride);
  load_slab<columns>(dout, dout_tile + warp_row * stride);

  float exponent[2], delta[2], sums[1][M][4];
  fill(sums[0]);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int in_tile = warp_row + row_of_warp(0, half), r = tile.first + in_tile;
    const bool there = r < tile.end;
    const std::int64_t at = there ? tile.head(r) * tokens + tile.token(r) : 0;
    exponent[half] = there ? -of.lse[at] * log2_of_e : 0.0f;
    float dot = 0;
    if (there) {
      constexpr int W = wide ? 8 : 1;
      const Bf16* const out = of.out + (tile.token(r) * p.heads + tile.head(r)) * p.head_dim;
      for (int c = threadIdx.x % 4 * W; c < p.head_dim; c += 4 * W) {
        float x[W], y[W];
        load(out + c, x);
        load(dout_tile + in_tile * stride + c, y);
#pragma unroll
        for (int w = 0; w < W; ++w) dot += x[w] * y[w];
      }
    }
    delta[half] = four_all<Sum>(dot);
    if (there && threadIdx.x % 4 == 0) of.delta[at] = delta[half];
  }

  const float scale = p.scale * log2_of_e;
  int stage = 0;
  for (int j0 = begin; j0 < end; j0 += keys, stage ^= 1) {
    const Bf16* const k_tile = stages + stage * 2 * tile_of_keys;
    wait_for_copies<0>();
    __syncthreads();
    if (j0 + keys < end) copy_keys(stages + (stage ^ 1) * 2 * tile_of_keys, j0 + keys);
    commit_copies();
    if (!seen.any(j0, j0 + keys)) continue;
    float scores[N][4], dscores[1][N][4];  // dscores from -delta on
    fill(scores);
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) dscores[0][n][i] = -delta[i / 2];
    multiply_slab<columns>(q, k_tile, scores);
    multiply_slab<columns>(dout, k_tile + tile_of_keys, dscores[0]);
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) dscores[0][n][i] *= power_of_two(fmaf(scores[n][i], scale, exponent[i / 2]));
    if (!seen.all(j0, j0 + keys)) seen.mask(dscores, j0, 0);
    add_weighted_tile<columns>(dscores, k_tile, sums);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half)
    if (const int r = tile.first + warp_row + row_of_warp(0, half); r < tile.end)
      store_half<wide>(of.dqkv + tile.token(r) * p.q_stride + std::int64_t{tile.head(r)} * p.head_dim, sums[0], half,
                       p.head_dim, p.scale);
}

// What a tile of queries brings beside its rows, for the columns of a tile of scores.
template <int queries>
struct QueryNumbers {
  float lse[queries], delta[queries];
  int start[queries];  // of the document
};

// The tiles of queries that see some of the keys [first, last) of a sequence and key-value head, head by head.
template <int queries>
struct QueryTiles {
  const AttentionProblem<Bf16>& p;
  int b, first, last, end, end_head;
  int h, i0;  // of the tile

  __device__ QueryTiles(const AttentionProblem<Bf16>& problem, int b_, int g, int first_, int last_)
      : p(problem), b(b_), first(first_), last(last_), h(g * p.group()), i0(first_) {
    // No query from here on sees a key of the tile.
    end = p.window > 0 && p.window < p.queries - last ? last - 1 + p.window : p.queries;
    end_head = h + p.group();
  }
  __device__ bool there() const { return h < end_head; }
  __device__ void advance() {
    do {
      i0 += queries;
      if (i0 >= end) {
        i0 = first;  // whose queries see themselves
        ++h;
        return;
      }
    } while (!sees());
  }

 private:
  __device__ bool sees() const {
    static_assert(backward_rows % rows_of_a_lowest_key == 0 && queries % rows_of_a_lowest_key == 0);
    if (!p.document_start) return p.first_key(b, i0) < last;
    const int entries = (p.queries + rows_of_a_lowest_key - 1) / rows_of_a_lowest_key;
    const std::int32_t* const lowest = p.lowest_keys + std::int64_t{b} * entries + i0 / rows_of_a_lowest_key;
    bool some = false;
#pragma unroll
    for (int i = 0; i < queries; i += rows_of_a_lowest_key)
      some = some || (i0 + i < end && lowest[i / rows_of_a_lowest_key] < last);
    return some;
  }
};

// dk and dv of a tile of keys. Here the keys are the rows of a tile of scores, the queries its columns.
template <bool wide, int columns>
__global__ void __launch_bounds__(attention_threads, 2)
    tensor_key_gradients_kernel(AttentionProblem<Bf16> p, AttentionOutput<Bf16> of) {
  constexpr int stride = tensor_stride(columns), queries = other_rows<columns>, N = queries / 8, M = columns / 8;
  constexpr int tile_of_queries = tile_numbers(queries, columns);
  Bf16* const k_tile = dynamic_shared<Bf16>();
  Bf16* const v_tile = k_tile + tile_numbers(backward_rows, columns);
  Bf16* const stages = v_tile + tile_numbers(backward_rows, columns);  // queries, dout, queries, dout
  auto* const numbers = reinterpret_cast<QueryNumbers<queries>*>(stages + 4 * tile_of_queries);

  // Early keys are seen by the most queries: their tiles come first.
  const int lanes = p.sequences * p.kv_heads, lane = static_cast<int>(blockIdx.x) % lanes;
  const int b = lane / p.kv_heads, g = lane % p.kv_heads;
  const int first = static_cast<int>(blockIdx.x) / lanes * backward_rows;
  const int last = first + backward_rows < p.queries ? first + backward_rows : p.queries;
  const int warp_row = static_cast<int>(threadIdx.x) / warp * rows_of_a_slab;
  const int warp_key = first + warp_row;
  const std::int64_t first_token = std::int64_t{b} * p.queries;

  const auto copy_queries = [&](int stage, const QueryTiles<queries>& tile) {
    const int i0 = tile.i0, h = tile.h;
    Bf16* const to = stages + stage * 2 * tile_of_queries;
    copy_tile<wide, queries, columns>(to, p.queries_from(first_token + i0, h, tile.end - i0), p.head_dim);
    copy_tile<wide, queries, columns>(to + tile_of_queries, of.dout_from(p, first_token + i0, h, tile.end - i0),
                                      p.head_dim);
    if (const int t = static_cast<int>(threadIdx.x); t < queries) {
      const std::int64_t i = first_token + i0 + t, at = h * (std::int64_t{p.sequences} * p.queries) + i;
      const bool there = i0 + t < tile.end, in_document = there && p.document_start;
      copy_async<4>(numbers[stage].lse + t, there ? of.lse + at : nullptr, there);
      copy_async<4>(numbers[stage].delta + t, there ? of.delta + at : nullptr, there);
      copy_async<4>(numbers[stage].start + t, in_document ? p.document_start + i : nullptr, in_document);
    }
  };
  copy_tile<wide, backward_rows, columns>(k_tile, p.keys_from(first_token + first, g, last - first), p.head_dim);
  copy_tile<wide, backward_rows, columns>(v_tile, p.values_from(first_token + first, g, last - first), p.head_dim);
  commit_copies();
  QueryTiles<queries> next(p, b, g, first, last);
  copy_queries(0, next);
  commit_copies();
  wait_for_copies<1>();
  __syncthreads();
  Slab<columns> k;
  load_slab<columns>(k, k_tile + warp_row * stride);

  float dk[1][M][4], dv[1][M][4];
  fill(dk[0]);
  fill(dv[0]);
  for (int stage = 0; next.there(); stage ^= 1) {
    const int i0 = next.i0;
    next.advance();
    wait_for_copies<0>();
    __syncthreads();
    if (next.there()) copy_queries(stage ^ 1, next);
    commit_copies();
    const Bf16* const q_tile = stages + stage * 2 * tile_of_queries;
    const Bf16* const dout_tile = q_tile + tile_of_queries;
    const QueryNumbers<queries>& of_tile = numbers[stage];

    // Of the first keys that the queries see, a lane has one of every 32, and all have the least and the most: whether the warp's keys
    // are seen by none, or by all.
    int first_seen[queries / warp];
    unsigned least_first = p.queries, most_first = 0;
#pragma unroll
    for (int t = 0; t < queries / warp; ++t) {
      const int i = t * warp + static_cast<int>(threadIdx.x) % warp;
      first_seen[t] = i0 + i < next.end ? p.first_key_from(of_tile.start[i], i0 + i) : p.queries;
      const auto key = static_cast<unsigned>(first_seen[t]);
      least_first = key < least_first ? key : least_first;
      most_first = key > most_first ? key : most_first;
    }
    const int least = static_cast<int>(__reduce_min_sync(all_lanes, least_first)),
              most = static_cast<int>(__reduce_max_sync(all_lanes, most_first));
    if (warp_key >= i0 + queries || warp_key >= last || warp_key + rows_of_a_slab <= least) continue;
    const bool all_seen = most <= warp_key && i0 >= warp_key + rows_of_a_slab - 1;

    float weights[1][N][4], dscores[1][N][4];  // dscores from -delta on
    fill(weights[0]);
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) dscores[0][n][i] = -of_tile.delta[column_of_lane(n) + i % 2];
    multiply_slab<columns>(k, q_tile, weights[0]);
    multiply_tiles<columns>(v_tile + warp_row * stride, dout_tile, dscores);
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float exponent = of_tile.lse[column_of_lane(n) + i % 2] * -log2_of_e;
        weights[0][n][i] = power_of_two(fmaf(weights[0][n][i], p.scale * log2_of_e, exponent));
        dscores[0][n][i] *= weights[0][n][i];
      }
    if (!all_seen) {
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int right = 0; right < 2; ++right) {
          const int column = column_of_lane(n) + right;
          const int first_key = __shfl_sync(all_lanes, first_seen[n * 8 / warp], column % warp);
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int j = warp_key + row_of_warp(0, half), i = 2 * half + right;
            if (j < first_key || j > i0 + column) weights[0][n][i] = dscores[0][n][i] = 0;
          }
        }
    }
    add_weighted_tile<columns>(weights, dout_tile, dv);
    add_weighted_tile<columns>(dscores, q_tile, dk);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int j = warp_key + row_of_warp(0, half);
    if (j >= last) continue;
    Bf16* to = of.dqkv + (first_token + j) * p.kv_stride + std::int64_t{p.heads + g} * p.head_dim;
    store_half<wide>(to, dk[0], half, p.head_dim, p.scale);
    store_half<wide>(to + std::int64_t{p.kv_heads} * p.head_dim, dv[0], half, p.head_dim, 1.0f);
  }
}

}  // namespace

void attention_backward_on_tensor_cores(cudaStream_t stream, const char* op, const AttentionProblem<Bf16>& p,
                                        const AttentionOutput<Bf16>& of) {
  by_rows(p, [&]<bool wide, int columns>() {
    constexpr std::size_t tiles = sizeof(Bf16) * tile_numbers(2 * backward_rows + 4 * other_rows<columns>, columns);
    constexpr std::size_t of_queries = tiles + sizeof(KeyRange) * backward_rows,
                          of_keys = tiles + 2 * sizeof(QueryNumbers<other_rows<columns>>);
    static_assert(of_queries <= shared_bytes_of_a_block && of_keys <= shared_bytes_of_a_block);
    launch(stream, op, {QueryTile<backward_rows>::blocks(p), attention_threads, of_queries},
           tensor_query_gradients_kernel<wide, columns>, p, of);
    launch(stream, op, {ceil_div(p.queries, backward_rows) * p.sequences * p.kv_heads, attention_threads, of_keys},
           tensor_key_gradients_kernel<wide, columns>, p, of);
  });
}

}  // namespace smoe::cuda
