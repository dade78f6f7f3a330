// What the kernels of attention share: where queries, keys and values lie, which keys a query sees, and products of tiles.
//
// A tile is rows of one head in shared memory, as f32, `columns` numbers wide: the head size rounded up, zeros behind it. The
// 128 threads of a block are 16 x 8: a thread has rows ty + 16 r of a tile of scores, and its columns tx + 8 n. The rows
// are 4 numbers longer than they need be: then the 8 threads that read 16 bytes at once, each from a row of its own, read
// from all 32 banks.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <type_traits>

#include "kernels/backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda_device.h"

namespace smoe::cuda {

inline constexpr int attention_threads = 128, attention_lanes = 8, attention_rows = 16;
inline constexpr int most_head_columns = static_cast<int>(most_cuda_head_dim);
inline constexpr int rows_of_a_lowest_key = 16;  // queries to which an entry of lowest_keys belongs

// Rows of one head that follow each other, for a tile of them: none from `count` on.
template <class A>
struct HeadRows {
  const A* first;
  std::int64_t stride;
  int count;
  __device__ const A* operator()(int row) const { return row < count ? first + row * stride : nullptr; }
};

template <class A>
struct AttentionProblem {
  int sequences, queries, past, heads, kv_heads, head_dim, window;
  const A* q;  // query head h of token t at q + t * q_stride + h * head_dim
  std::int64_t q_stride;
  const A *k, *v;  // key-value head g of key j at k + j * kv_stride + g * head_dim
  std::int64_t kv_stride;
  const std::int32_t *document_start, *lowest_keys;  // or null, both
  float scale;
  bool wide;  // rows of a head can be read and written in pieces of 16 bytes

  __host__ __device__ int group() const { return heads / kv_heads; }
  __device__ int keys() const { return past + queries; }

  // Of query head h from token t on, and of key-value head g from key j on: `count` of them.
  __device__ HeadRows<A> queries_from(std::int64_t t, int h, int count) const {
    return {q + t * q_stride + std::int64_t{h} * head_dim, q_stride, count};
  }
  __device__ HeadRows<A> keys_from(std::int64_t j, int g, int count) const {
    return {k + j * kv_stride + std::int64_t{g} * head_dim, kv_stride, count};
  }
  __device__ HeadRows<A> values_from(std::int64_t j, int g, int count) const {
    return {v + j * kv_stride + std::int64_t{g} * head_dim, kv_stride, count};
  }

  // Query i of sequence b sees keys [first_key(b, i), past + i]: itself always.
  __device__ int first_key(int b, int i) const {
    return first_key_from(document_start ? document_start[std::int64_t{b} * queries + i] : 0, i);
  }
  __device__ int first_key_from(int start, int i) const {  // start of its document, or 0
    const int position = past + i;
    int first = window > 0 && position >= window ? position - window + 1 : 0;
    if (start > first) first = start;
    return first < position ? first : position;
  }
  // A key at or before the first that any of the queries [first, last) sees.
  __device__ int lowest_key(int b, int first, int last) const {
    if (!document_start) return first_key(b, first);
    const int entries = (queries + rows_of_a_lowest_key - 1) / rows_of_a_lowest_key;
    const std::int32_t* of_sequence = lowest_keys + std::int64_t{b} * entries;
    int lowest = past + first;
    for (int entry = first / rows_of_a_lowest_key; entry * rows_of_a_lowest_key < last; ++entry)
      lowest = lowest < of_sequence[entry] ? lowest : of_sequence[entry];
    return lowest;
  }
};

template <class A>
AttentionProblem<A> attention_problem(const AttentionShape& shape, const Tensor& qkv, const Tensor& document_start,
                                      const std::int32_t* lowest_keys, std::initializer_list<Tensor> tensors) {
  const auto [B, S, H, G, C, window] = shape;
  const A* q = data<A>(qkv);
  const std::int64_t stride = (H + 2 * G) * C, most = std::numeric_limits<int>::max();
  return {.sequences = static_cast<int>(B),
          .queries = static_cast<int>(S),
          .past = 0,
          .heads = static_cast<int>(H),
          .kv_heads = static_cast<int>(G),
          .head_dim = static_cast<int>(C),
          .window = static_cast<int>(std::min(window, most)),
          .q = q,
          .q_stride = stride,
          .k = q + H * C,
          .v = q + (H + G) * C,
          .kv_stride = stride,
          .document_start = document_start.empty() ? nullptr : document_start.i32(),
          .lowest_keys = lowest_keys,
          .scale = 1.0f / std::sqrt(static_cast<float>(C)),
          .wide = in_pieces(C, 16 / sizeof(A), tensors)};
}

// What backward has of the outputs, and where it writes.
template <class A>
struct AttentionOutput {
  const A *out, *dout;  // [T, H, C]
  const float* lse;     // [H, T]
  float* delta;         // [H, T]: the kernel for the queries' gradients writes it, the one for the keys' reads it
  A* dqkv;

  // Of dout, head h from token t on.
  __device__ HeadRows<A> dout_from(const AttentionProblem<A>& p, std::int64_t t, int h, int count) const {
    return {dout + (t * p.heads + h) * p.head_dim, std::int64_t{p.heads} * p.head_dim, count};
  }
};

// The same on tensor cores (attention_tensor.cu): products of bf16, and of weights rounded to it.
template <class A, int columns>
inline constexpr bool on_tensor_cores = std::is_same_v<A, Bf16>&& columns <= 128;
void attention_forward_on_tensor_cores(cudaStream_t stream, const char* op, const AttentionProblem<Bf16>& p, Bf16* out,
                                       float* lse);
void attention_backward_on_tensor_cores(cudaStream_t stream, const char* op, const AttentionProblem<Bf16>& p,
                                        const AttentionOutput<Bf16>& of);

// The room and the launch for lowest_keys, which document_start needs (attention.cu).
std::int64_t lowest_keys_of(const AttentionShape& shape);
void find_lowest_keys(cudaStream_t stream, const char* op, const AttentionShape& shape, const Tensor& document_start,
                      std::int32_t* lowest_keys);

// Throws std::invalid_argument for a head size that these kernels have no tiles for.
void expect_head_dim(const char* op, std::int64_t head_dim);

// f.operator()<columns>() for the tiles that heads of this size lie in.
template <class F>
void by_head_columns(std::int64_t head_dim, const F& f) {
  if (head_dim <= 32) return f.template operator()<32>();
  if (head_dim <= 64) return f.template operator()<64>();
  if (head_dim <= 128) return f.template operator()<128>();
  return f.template operator()<most_head_columns>();
}

// to [rows, columns + 4] = scale times the rows that row_at names; where it names none, zeros.
template <class A, int rows, int columns, class RowAt>
__device__ void load_tile(float* to, const RowAt& row_at, int head_dim, bool wide, float scale = 1) {
  constexpr int W = 16 / sizeof(A), pieces_of_a_row = columns / W;
#pragma unroll 4
  for (int piece = threadIdx.x; piece < rows * pieces_of_a_row; piece += attention_threads) {
    const int row = piece / pieces_of_a_row, c = piece % pieces_of_a_row * W;
    float x[W] = {};
    if (const A* from = row_at(row); from && c < head_dim) {
      if (wide) {
        load(from + c, x);
      } else {
#pragma unroll
        for (int w = 0; w < W; ++w)
          if (c + w < head_dim) x[w] = to_float(from[c + w]);
      }
    }
#pragma unroll
    for (int w = 0; w < W; ++w) x[w] *= scale;
    store(to + row * (columns + 4) + c, x);
  }
}

// dots[r][n] = row ty + 16 r of a times row tx + 8 n of b.
template <int R, int N, int columns>
__device__ void multiply_rows(const float* a, const float* b, int head_dim, float (&dots)[R][N]) {
  constexpr int stride = columns + 4;
  a += threadIdx.x / attention_lanes * stride;
  b += threadIdx.x % attention_lanes * stride;
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int n = 0; n < N; ++n) dots[r][n] = 0;
#pragma unroll 2
  for (int c = 0; c < head_dim; c += 4) {  // zeros behind it
    float x[R][4], y[N][4];
#pragma unroll
    for (int r = 0; r < R; ++r) load(a + r * attention_rows * stride + c, x[r]);
#pragma unroll
    for (int n = 0; n < N; ++n) load(b + n * attention_lanes * stride + c, y[n]);
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) dots[r][n] += x[r][i] * y[n][i];
  }
}

// A tile of weights lies with 8 numbers behind each row: then the 4 rows that a warp writes to lie in banks of their own.
constexpr int weights_stride(int count) { return count + 8; }

// sums[r][m] += the sum over j < count of weights[ty + 16 r][j] times numbers 4 tx + 32 m ... + 3 of row j.
template <int R, int M, int columns, int count>
__device__ void add_weighted_rows(const float* weights, const float* rows, float (&sums)[R][M][4]) {
  constexpr int stride = columns + 4;
  weights += threadIdx.x / attention_lanes * weights_stride(count);
  rows += threadIdx.x % attention_lanes * 4;
#pragma unroll 2
  for (int j = 0; j < count; j += 4) {
    float w[R][4];
#pragma unroll
    for (int r = 0; r < R; ++r) load(weights + r * attention_rows * weights_stride(count) + j, w[r]);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int m = 0; m < M; ++m) {
        float x[4];
        load(rows + (j + i) * stride + m * 4 * attention_lanes, x);
#pragma unroll
        for (int r = 0; r < R; ++r)
#pragma unroll
          for (int n = 0; n < 4; ++n) sums[r][m][n] += w[r][i] * x[n];
      }
  }
}

// Over the 8 threads of a row.
template <class How>
__device__ float row_all(float x) {
#pragma unroll
  for (int distance = attention_lanes / 2; distance > 0; distance /= 2)
    x = How::of(x, __shfl_xor_sync(all_lanes, x, distance));
  return x;
}

// to[c] = scale times this thread's numbers of a row, as add_weighted_rows() leaves them.
template <class A, int M>
__device__ void store_row(A* to, const float (&row)[M][4], int head_dim, bool wide, float scale) {
#pragma unroll
  for (int m = 0; m < M; ++m) {
    const int c = (threadIdx.x % attention_lanes + m * attention_lanes) * 4;
    float x[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = row[m][i] * scale;
    if (wide) {
      if (c < head_dim) store(to + c, x);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (c + i < head_dim) to[c + i] = from_float<A>(x[i]);
    }
  }
}

}  // namespace smoe::cuda
