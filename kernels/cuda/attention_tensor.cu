// Attention in bf16 on tensor cores, as attention.cu has it in f32. A block has four warps of 16 R rows each; tiles of keys and values
// come by copy_async() in two stages: the next tile is on its way while one is multiplied, and one barrier a tile is
// enough, behind which the tile is there and nobody reads the other stage any more.
#include "kernels/cuda/attention_tensor.h"

#include <cmath>
#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/launch.h"

namespace smoe::cuda {
namespace {

// Rows of a block, and keys of a tile. At heads of 128 that is shared memory for two blocks on an A100, and for one on a card that has
// 100 KiB of it.
constexpr int forward_slabs = 2, forward_rows = forward_slabs * rows_of_a_slab * attention_threads / warp;
template <int columns>
constexpr int forward_keys = columns <= 64 ? 64 : 32;

// How far, in powers of two, weights may be above 1 before what was summed is scaled anew.
constexpr float most_above = 8;

// The softmax of the rows of a warp, tile by tile. Scores are products of queries and keys as they are; a row's weights are powers of
// two, relative to `base`, a score that is not much below the row's highest: the first tile sets it, and few move it.
template <int R>
struct OnlineSoftmax {
  float scale;                  // of a score, as an exponent of two
  float base[R][2], sum[R][2];  // the sum is of this lane's keys

  __device__ explicit OnlineSoftmax(float scale_of_scores) : scale(scale_of_scores * log2_of_e) {
    fill(base, -INFINITY);
    fill(sum);
  }

  // Scores become weights, and what was summed before is made relative to the same base.
  template <int N, int M>
  __device__ void weigh(float (&scores)[R][N][4], float (&sums)[R][M][4]) {
    float highest[R][2];
    bool rises = false;
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        highest[r][half] = fmaxf(scores[r][0][2 * half], scores[r][0][2 * half + 1]);
#pragma unroll
        for (int n = 1; n < N; ++n)
          highest[r][half] = fmaxf(highest[r][half], fmaxf(scores[r][n][2 * half], scores[r][n][2 * half + 1]));
        highest[r][half] = four_all<Higher>(highest[r][half]);
        rises = rises || is_far_above(highest[r][half], base[r][half]);
      }
    if (__any_sync(all_lanes, rises)) {
#pragma unroll
      for (int r = 0; r < R; ++r)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if (!is_far_above(highest[r][half], base[r][half])) continue;
          const float shrink = power_of_two((base[r][half] - highest[r][half]) * scale);
          base[r][half] = highest[r][half];
          sum[r][half] *= shrink;
#pragma unroll
          for (int m = 0; m < M; ++m) {
            sums[r][m][2 * half] *= shrink;
            sums[r][m][2 * half + 1] *= shrink;
          }
        }
    }
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const float below[2] = {-exponent(r, 0), -exponent(r, 1)};
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          scores[r][n][i] = power_of_two(fmaf(scores[r][n][i], scale, below[i / 2]));
          sum[r][i / 2] += scores[r][n][i];
        }
    }
  }

  // Of a row that has seen no key yet it is 0: then unseen keys, whose scores are minus infinity, weigh 0 there too.
  __device__ float exponent(int r, int half) const { return base[r][half] == -INFINITY ? 0.0f : base[r][half] * scale; }
  __device__ float lse(int r, int half, float whole) const { return exponent(r, half) * log_of_2 + logf(whole); }

 private:
  // A NaN is lost here, as in Max, and met again in the sum.
  struct Higher {
    static __device__ float of(float a, float b) { return fmaxf(a, b); }
  };
  __device__ bool is_far_above(float score, float base_of_row) const {
    return (score - base_of_row) * scale > most_above;
  }
};

template <bool wide, int columns>
__global__ void __launch_bounds__(attention_threads, 2)
    tensor_forward_kernel(AttentionProblem<Bf16> p, Bf16* out, float* lse) {
  constexpr int keys = forward_keys<columns>, R = forward_slabs, N = keys / 8, M = columns / 8;
  constexpr int tile_of_keys = tile_numbers(keys, columns);
  Bf16* const q_tile = dynamic_shared<Bf16>();
  Bf16* const stages = q_tile + tile_numbers(forward_rows, columns);  // keys, values, keys, values
  auto* const ranges = reinterpret_cast<KeyRange*>(stages + 4 * tile_of_keys);
  const auto tile = QueryTile<forward_rows>::of_block(p);
  const int warp_row = static_cast<int>(threadIdx.x) / warp * R * rows_of_a_slab;

  const int begin = p.lowest_key(tile.b, tile.query(tile.first), tile.end_query()), end = p.past + tile.end_query();
  const std::int64_t first_of_keys = std::int64_t{tile.b} * p.keys();
  const auto copy_keys = [&](Bf16* stage, int j0) {
    copy_tile<wide, keys, columns>(stage, p.keys_from(first_of_keys + j0, tile.g, end - j0), p.head_dim);
    copy_tile<wide, keys, columns>(stage + tile_of_keys, p.values_from(first_of_keys + j0, tile.g, end - j0),
                                   p.head_dim);
  };
  copy_tile<wide, forward_rows, columns>(q_tile, tile.rows(p.q, p.q_stride, p.head_dim), p.head_dim);
  copy_keys(stages, begin);
  commit_copies();

  const KeysSeen<R> seen(ranges + warp_row, [&](int r) {
    r += tile.first + warp_row;
    return r < tile.end ? KeyRange{p.first_key(tile.b, tile.query(r)), p.past + tile.query(r) + 1} : KeyRange{0, 0};
  });
  OnlineSoftmax<R> softmax(p.scale);
  float sums[R][M][4];
#pragma unroll
  for (int r = 0; r < R; ++r) fill(sums[r]);

  int stage = 0;
  for (int j0 = begin; j0 < end; j0 += keys, stage ^= 1) {
    const Bf16* const k_tile = stages + stage * 2 * tile_of_keys;
    wait_for_copies<0>();
    __syncthreads();
    if (j0 + keys < end) copy_keys(stages + (stage ^ 1) * 2 * tile_of_keys, j0 + keys);
    commit_copies();
    if (!seen.any(j0, j0 + keys)) continue;
    float scores[R][N][4];
#pragma unroll
    for (int r = 0; r < R; ++r) fill(scores[r]);
    multiply_tiles<columns>(q_tile + warp_row * tensor_stride(columns), k_tile, scores);
    if (!seen.all(j0, j0 + keys)) seen.mask(scores, j0, -INFINITY);
    softmax.weigh(scores, sums);
    add_weighted_tile<columns>(scores, k_tile + tile_of_keys, sums);
  }

#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float whole = four_all<Sum>(softmax.sum[r][half]);
      const int row = tile.first + warp_row + row_of_warp(r, half);
      if (row >= tile.end) continue;
      const std::int64_t t = tile.token(row);
      store_half<wide>(out + (t * p.heads + tile.head(row)) * p.head_dim, sums[r], half, p.head_dim, 1.0f / whole);
      if (lse && threadIdx.x % 4 == 0)
        lse[tile.head(row) * (std::int64_t{p.sequences} * p.queries) + t] = softmax.lse(r, half, whole);
    }
}

}  // namespace

void attention_forward_on_tensor_cores(cudaStream_t stream, const char* op, const AttentionProblem<Bf16>& p, Bf16* out,
                                       float* lse) {
  by_rows(p, [&]<bool wide, int columns>() {
    constexpr std::size_t bytes = sizeof(Bf16) * tile_numbers(forward_rows + 4 * forward_keys<columns>, columns) +
                                  sizeof(KeyRange) * forward_rows;
    static_assert(bytes <= shared_bytes_of_a_block);
    launch(stream, op, {QueryTile<forward_rows>::blocks(p), attention_threads, bytes},
           tensor_forward_kernel<wide, columns>, p, out, lse);
  });
}

}  // namespace smoe::cuda
