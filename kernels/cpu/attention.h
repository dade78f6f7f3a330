// What attention's forward and backward share: where queries, keys and values lie, which keys a query sees, and how
// the work is cut. Tiles of scores are sized so that each product stays below 100^3 multiplications, where OpenBLAS's
// AVX-512 kernels pack nothing (on AVX2 our own for few rows run them); the score tiles then also stay in the
// second-level cache.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/parallel.h"

namespace smoe::cpu {

constexpr std::int64_t score_rows = 64;  // rows of one tile of scores

struct AttentionProblem {
  std::int64_t sequences, queries, past, heads, kv_heads, head_dim, window;
  const float* q;  // query head h of token t at q + t * q_stride + h * head_dim
  std::int64_t q_stride;
  const float *k, *v;  // key-value head g of key j at k + j * kv_stride + g * head_dim
  std::int64_t kv_stride;
  const std::int32_t* document_start;  // or null
  float *out, *lse;                    // lse may be null

  std::int64_t keys() const { return past + queries; }  // of one sequence
  std::int64_t tokens() const { return sequences * queries; }
  std::int64_t group() const { return heads / kv_heads; }  // query heads that share a key-value head
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }

  // The query heads of a group are stacked: `group() * query_block()` rows share each tile of keys.
  std::int64_t query_block() const { return std::clamp<std::int64_t>(256 / group(), 16, 128); }
  std::int64_t key_block() const { return head_dim <= 96 ? 128 : 64; }
  std::int64_t query_blocks() const { return ceil_div(queries, query_block()); }
  std::int64_t key_blocks() const { return ceil_div(keys(), key_block()); }

  // Query i of sequence b sees keys [first_key(b, i), past + i]. It always sees itself.
  std::int64_t first_key(std::int64_t b, std::int64_t i) const {
    const std::int64_t position = past + i;
    std::int64_t first = window > 0 ? position - window + 1 : 0;
    if (document_start) first = std::max<std::int64_t>(first, document_start[b * queries + i]);
    return std::clamp<std::int64_t>(first, 0, position);
  }
  // The first key that any of the queries [first, last) sees.
  std::int64_t first_key(std::int64_t b, std::int64_t first, std::int64_t last) const {
    std::int64_t lowest = past + first;
    for (std::int64_t i = first; i < last; ++i) lowest = std::min(lowest, first_key(b, i));
    return lowest;
  }
};

// to [columns, rows] = from [rows, columns]^T, row strides given. Eight rows at a time: their cache lines stay in the
// first-level cache, and eight neighbours are written at once.
inline void transpose(const float* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns, float* to,
                      std::int64_t to_stride) {
  std::int64_t i = 0;
  for (; i + 8 <= rows; i += 8)
    for (std::int64_t j = 0; j < columns; ++j)
#pragma GCC unroll 8
      for (std::int64_t k = 0; k < 8; ++k) to[j * to_stride + i + k] = from[(i + k) * from_stride + j];
  for (; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j) to[j * to_stride + i] = from[i * from_stride + j];
}

// Cuts one allocation into arrays that start on cache lines.
class Carver {
 public:
  explicit Carver(float* memory) : next_(memory) {}
  float* operator()(std::int64_t count) {
    float* result = next_;
    next_ += size(count);
    return result;
  }
  static std::int64_t size(std::int64_t count) { return round_up(count, 16); }

 private:
  float* next_;
};

}  // namespace smoe::cpu
