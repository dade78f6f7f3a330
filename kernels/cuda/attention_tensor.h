// What the kernels of attention on tensor cores share: tiles of bf16 in shared memory, their products, and what a warp has of them.
//
// Each of a block's four warps has R times 16 rows of the tile that the block owns, and all columns of a tile of scores: so
// what it makes of the scores, rounded to bf16, is in its registers just as the next product wants it. A tile's rows are 8
// numbers longer than they need be: the 8 rows that load_matrices() reads at once then lie in banks of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/launch.h"

namespace smoe::cuda {

inline constexpr int rows_of_a_slab = 16;                          // what a warp multiplies at once
inline constexpr std::size_t shared_bytes_of_a_block = 99 * 1024;  // on any card since Ampere
inline constexpr float log2_of_e = 1.44269504f, log_of_2 = 0.69314718f;

constexpr int tensor_stride(int columns) { return columns + 8; }
constexpr int tile_numbers(int rows, int columns) { return rows * tensor_stride(columns); }

// to [rows, tensor_stride(columns)] = the rows that `of` names; where it names none, zeros. Wide rows come by copy_async(), a thread
// copying one piece of every so many; others number by number, at once.
template <bool wide, int rows, int columns, class RowAt>
__device__ void copy_tile(Bf16* to, const RowAt& of, int head_dim) {
  constexpr int stride = tensor_stride(columns), pieces_of_a_row = columns / 8;
  constexpr int rows_at_once = attention_threads / pieces_of_a_row;
  static_assert(rows % rows_at_once == 0);
  if constexpr (wide) {
    const int first = static_cast<int>(threadIdx.x) / pieces_of_a_row, c = threadIdx.x % pieces_of_a_row * 8;
    to += first * stride + c;
    if constexpr (std::is_same_v<RowAt, HeadRows<Bf16>>) {  // one row behind the other
      const Bf16* from = of.first + first * of.stride + c;
#pragma unroll
      for (int row = 0; row < rows; row += rows_at_once, from += rows_at_once * of.stride)
        copy_async<16>(to + row * stride, from, first + row < of.count && c < head_dim);
    } else {
#pragma unroll 2
      for (int row = 0; row < rows; row += rows_at_once) {
        const Bf16* const from = of(first + row);
        copy_async<16>(to + row * stride, from ? from + c : nullptr, from && c < head_dim);
      }
    }
  } else {
#pragma unroll 1
    for (int i = threadIdx.x; i < rows * columns; i += attention_threads) {
      const int row = i / columns, c = i % columns;
      const Bf16* const from = of(row);
      to[row * stride + c] = from && c < head_dim ? from[c] : Bf16{};
    }
  }
}

// ---- products of a warp ----

template <int N, int M>
__device__ void fill(float (&sums)[N][M], float with = 0) {
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int i = 0; i < M; ++i) sums[n][i] = with;
}

// 16 rows of a tile, columns 16 k and on at [k], as multiply_add() wants them on its left.
template <int columns>
using Slab = std::uint32_t[columns / 16][4];

// Where a lane begins to read rows of the left, and of the right, of a product.
template <int columns>
__device__ const Bf16* left_rows(const Bf16* rows) {
  const int lane = threadIdx.x % warp, matrix = lane / 8;
  return rows + (lane % 8 + matrix % 2 * 8) * tensor_stride(columns) + matrix / 2 * 8;
}
template <int columns>
__device__ const Bf16* right_rows(const Bf16* rows) {
  const int lane = threadIdx.x % warp, matrix = lane / 8;
  return rows + (lane % 8 + matrix / 2 * 8) * tensor_stride(columns) + matrix % 2 * 8;
}

template <int columns>
__device__ void load_slab(Slab<columns>& slab, const Bf16* rows) {
  rows = left_rows<columns>(rows);
#pragma unroll
  for (int k = 0; k < columns / 16; ++k) load_matrices(slab[k], rows + k * 16);
}

// dots += 16 R rows of a times 8 N rows of b, in the layout of multiply_add().
template <int columns, int R, int N>
__device__ void multiply_tiles(const Bf16* a, const Bf16* b, float (&dots)[R][N][4]) {
  constexpr int stride = tensor_stride(columns);
  a = left_rows<columns>(a);
  b = right_rows<columns>(b);
#pragma unroll
  for (int c = 0; c < columns; c += 16) {
    std::uint32_t x[R][4];
#pragma unroll
    for (int r = 0; r < R; ++r) load_matrices(x[r], a + r * rows_of_a_slab * stride + c);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      std::uint32_t y[4];
      load_matrices(y, b + n * 8 * stride + c);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        multiply_add(dots[r][n], x[r], y[0], y[1]);
        multiply_add(dots[r][n + 1], x[r], y[2], y[3]);
      }
    }
  }
}
template <int columns, int N>
__device__ void multiply_slab(const Slab<columns>& a, const Bf16* b, float (&dots)[N][4]) {
  b = right_rows<columns>(b);
#pragma unroll
  for (int k = 0; k < columns / 16; ++k)
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      std::uint32_t y[4];
      load_matrices(y, b + n * 8 * tensor_stride(columns) + k * 16);
      multiply_add(dots[n], a[k], y[0], y[1]);
      multiply_add(dots[n + 1], a[k], y[2], y[3]);
    }
}

// sums += weights, 16 R x 8 N, times 8 N rows.
template <int columns, int R, int N, int M>
__device__ void add_weighted_tile(const float (&weights)[R][N][4], const Bf16* rows, float (&sums)[R][M][4]) {
  rows = left_rows<columns>(rows);
#pragma unroll
  for (int n = 0; n < N; n += 2) {
    std::uint32_t w[R][4];
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        w[r][i] = bf16_pair(weights[r][n + i / 2][i % 2 * 2], weights[r][n + i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (int m = 0; m < M; m += 2) {
      std::uint32_t x[4];
      load_matrices_transposed(x, rows + n * 8 * tensor_stride(columns) + m * 8);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        multiply_add(sums[r][m], w[r], x[0], x[1]);
        multiply_add(sums[r][m + 1], w[r], x[2], x[3]);
      }
    }
  }
}

// ---- what a lane has of a warp's rows: of each slab, rows i and i + 8, whose numbers are in 4 lanes ----

template <class How>
__device__ float four_all(float x) {
  x = How::of(x, __shfl_xor_sync(all_lanes, x, 2));
  return How::of(x, __shfl_xor_sync(all_lanes, x, 1));
}

// The row of the warp that numbers [r][...][2 half] and the next belong to, and the column of [...][n][0].
__device__ inline int row_of_warp(int r, int half) { return r * rows_of_a_slab + half * 8 + threadIdx.x % warp / 4; }
__device__ inline int column_of_lane(int n) { return n * 8 + threadIdx.x % 4 * 2; }

// to[c] = scale times this lane's numbers of its upper (half 0) or lower row.
template <bool wide, int M>
__device__ void store_half(Bf16* to, const float (&sums)[M][4], int half, int head_dim, float scale) {
#pragma unroll
  for (int m = 0; m < M; ++m) {
    const int c = column_of_lane(m);
    const float x[2] = {sums[m][2 * half] * scale, sums[m][2 * half + 1] * scale};
    if constexpr (wide) {
      if (c < head_dim) store(to + c, x);
    } else {
      if (c < head_dim) to[c] = from_float<Bf16>(x[0]);
      if (c + 1 < head_dim) to[c + 1] = from_float<Bf16>(x[1]);
    }
  }
}

// A tile of `own` rows of a sequence and a key-value head: row r is query r / group, head r % group of the group.
template <int own>
struct QueryTile {
  int b, g, group, first, end;  // rows [first, end)
  std::int64_t first_token;

  template <class A>
  static __device__ QueryTile of_block(const AttentionProblem<A>& p) {
    const int group = p.group(), rows = p.queries * group, lanes = p.sequences * p.kv_heads;
    const int lane = static_cast<int>(blockIdx.x) % lanes, b = lane / p.kv_heads;
    // Late queries see the most keys: their tiles come first.
    const int first = ((rows + own - 1) / own - 1 - static_cast<int>(blockIdx.x) / lanes) * own;
    return {b, lane % p.kv_heads, group, first, first + own < rows ? first + own : rows, std::int64_t{b} * p.queries};
  }
  template <class A>
  static std::int64_t blocks(const AttentionProblem<A>& p) {
    return ceil_div(std::int64_t{p.queries} * p.group(), own) * p.sequences * p.kv_heads;
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

// Keys [first, end); none for a row that is not there.
struct alignas(8) KeyRange {
  int first, end;
};

// Which keys the rows of a warp see. Of most tiles of keys every row sees all or none: there nothing is compared number by number, so
// the rows' own ranges lie in shared memory and not in registers.
template <int R>
class KeysSeen {
 public:
  // Of row r of the warp of(r), kept at ranges[r].
  template <class Of>
  __device__ KeysSeen(KeyRange* ranges, const Of& of) : ranges_(ranges) {
    static_assert(R * rows_of_a_slab <= warp);
    const int lane = threadIdx.x % warp;
    KeyRange own{0, 0};
    if (lane < R * rows_of_a_slab) ranges[lane] = own = of(lane);
    const bool there = own.end > 0;
    constexpr unsigned far = 0x7fffffffu;
    least_first_ = static_cast<int>(__reduce_min_sync(all_lanes, there ? static_cast<unsigned>(own.first) : far));
    most_first_ = static_cast<int>(__reduce_max_sync(all_lanes, static_cast<unsigned>(own.first)));
    least_end_ = static_cast<int>(__reduce_min_sync(all_lanes, there ? static_cast<unsigned>(own.end) : far));
    most_end_ = static_cast<int>(__reduce_max_sync(all_lanes, static_cast<unsigned>(own.end)));
  }
  // Whether some row sees some of the keys [first, end), and whether every row sees all of them.
  __device__ bool any(int first, int end) const { return first < most_end_ && end > least_first_; }
  __device__ bool all(int first, int end) const { return first >= most_first_ && end <= least_end_; }

  // Numbers of keys that their row does not see become `with`; the first column is of key j0.
  template <int N>
  __device__ void mask(float (&numbers)[R][N][4], int j0, float with) const {
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const KeyRange range = ranges_[row_of_warp(r, half)];
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
          for (int right = 0; right < 2; ++right) {
            const int j = j0 + column_of_lane(n) + right;
            if (j < range.first || j >= range.end) numbers[r][n][2 * half + right] = with;
          }
      }
  }

 private:
  const KeyRange* ranges_;
  int least_first_, most_first_, least_end_, most_end_;
};

// f.operator()<wide, columns>() for the tiles that rows of this size lie in.
template <class F>
void by_rows(const AttentionProblem<Bf16>& p, const F& f) {
  by_head_columns(p.head_dim, [&]<int columns>() {
    if constexpr (on_tensor_cores<Bf16, columns>) {
      if (p.wide)
        f.template operator()<true, columns>();
      else
        f.template operator()<false, columns>();
    }
  });
}

}  // namespace smoe::cuda
