// Causal grouped-query attention with document starts and a sliding window, one query at a time.
// qkv [T, (H + 2G) * C]: H query heads, G key heads, G value heads; query head h reads key-value head h / (H / G).
// Query i of a sequence sees key j where document_start[i] <= j <= i and (no window or i - j < window).
#pragma once

#include <algorithm>
#include <limits>

#include "tests/reference/matrix.h"

namespace smoe::reference {

struct AttentionShape {
  Index sequences, sequence_length, heads, kv_heads, head_dim;
  Index window = 0;  // 0: none

  Index query_column(Index head) const { return head * head_dim; }
  Index key_column(Index head) const { return (heads + head / (heads / kv_heads)) * head_dim; }
  Index value_column(Index head) const { return (heads + kv_heads + head / (heads / kv_heads)) * head_dim; }
  double scale() const { return 1.0 / std::sqrt(double(head_dim)); }
  // The first position that the query at position i may see. document_start [T], empty: 0 everywhere.
  Index first_visible(Index sequence, Index i, const Ids& document_start) const {
    const Index start = document_start.empty() ? 0 : document_start[sequence * sequence_length + i];
    return window == 0 ? start : std::max(start, i - window + 1);
  }
};

template <typename T>
struct Attention {
  Matrix<T> out;  // [T, H * C]
  Matrix<T> lse;  // [H, T]: log-sum-exp of the scaled scores
};

template <typename T>
Attention<T> attention_forward(const AttentionShape& shape, const Matrix<T>& qkv, const Ids& document_start) {
  const Index C = shape.head_dim, S = shape.sequence_length;
  Attention<T> result{Matrix<T>(qkv.rows, shape.heads * C), Matrix<T>(shape.heads, qkv.rows)};
  std::vector<T> scores(S);
  for (Index b = 0; b < shape.sequences; ++b)
    for (Index h = 0; h < shape.heads; ++h)
      for (Index i = 0; i < S; ++i) {
        const Index query = b * S + i, first = shape.first_visible(b, i, document_start);
        double maximum = -std::numeric_limits<double>::infinity();
        for (Index j = first; j <= i; ++j) {
          T score(0);
          for (Index c = 0; c < C; ++c)
            score += qkv(query, shape.query_column(h) + c) * qkv(b * S + j, shape.key_column(h) + c);
          scores[j] = score * T(shape.scale());
          maximum = std::max(maximum, real_part(scores[j]));
        }
        T total(0);
        for (Index j = first; j <= i; ++j) total += scores[j] = std::exp(scores[j] - T(maximum));
        for (Index j = first; j <= i; ++j)
          for (Index c = 0; c < C; ++c)
            result.out(query, h * C + c) += scores[j] / total * qkv(b * S + j, shape.value_column(h) + c);
        result.lse(h, query) = std::log(total) + T(maximum);
      }
  return result;
}

// With p = exp(score - lse) and delta = dout . out: dscore = p * (dout . value - delta).
template <typename T>
Matrix<T> attention_backward(const AttentionShape& shape, const Matrix<T>& qkv, const Ids& document_start,
                             const Attention<T>& forward, const Matrix<T>& dout) {
  const Index C = shape.head_dim, S = shape.sequence_length;
  Matrix<T> dqkv(qkv.rows, qkv.cols);
  for (Index b = 0; b < shape.sequences; ++b)
    for (Index h = 0; h < shape.heads; ++h)
      for (Index i = 0; i < S; ++i) {
        const Index query = b * S + i, q = shape.query_column(h), k = shape.key_column(h), v = shape.value_column(h);
        T delta(0);
        for (Index c = 0; c < C; ++c) delta += dout(query, h * C + c) * forward.out(query, h * C + c);
        for (Index j = shape.first_visible(b, i, document_start); j <= i; ++j) {
          const Index key = b * S + j;
          T score(0), dprobability(0);
          for (Index c = 0; c < C; ++c) {
            score += qkv(query, q + c) * qkv(key, k + c);
            dprobability += dout(query, h * C + c) * qkv(key, v + c);
          }
          const T probability = std::exp(score * T(shape.scale()) - forward.lse(h, query));
          const T dscore = probability * (dprobability - delta) * T(shape.scale());
          for (Index c = 0; c < C; ++c) {
            dqkv(query, q + c) += dscore * qkv(key, k + c);
            dqkv(key, k + c) += dscore * qkv(query, q + c);
            dqkv(key, v + c) += probability * dout(query, h * C + c);
          }
        }
      }
  return dqkv;
}

// Inference, one sequence: stores the keys and values of qkv [N, (H + 2G) * C] at rows [past, past + N) of the caches
// [capacity, G * C]; query i then sees cache rows up to past + i, inside the window.
template <typename T>
Matrix<T> attention_cached(const AttentionShape& shape, const Matrix<T>& qkv, Index past, Matrix<T>& key_cache,
                           Matrix<T>& value_cache) {
  const Index C = shape.head_dim, kv_size = shape.kv_heads * C;
  for (Index i = 0; i < qkv.rows; ++i)
    for (Index c = 0; c < kv_size; ++c) {
      key_cache(past + i, c) = qkv(i, shape.heads * C + c);
      value_cache(past + i, c) = qkv(i, shape.heads * C + kv_size + c);
    }
  // The whole history as one sequence; the queries of the past are not known and their outputs are dropped.
  const Index total = past + qkv.rows;
  Matrix<T> history(total, qkv.cols);
  for (Index t = 0; t < total; ++t)
    for (Index c = 0; c < kv_size; ++c) {
      history(t, shape.heads * C + c) = key_cache(t, c);
      history(t, shape.heads * C + kv_size + c) = value_cache(t, c);
    }
  for (Index i = 0; i < qkv.rows; ++i)
    for (Index c = 0; c < shape.heads * C; ++c) history(past + i, c) = qkv(i, c);
  AttentionShape whole = shape;
  whole.sequences = 1;
  whole.sequence_length = total;
  const Attention<T> result = attention_forward(whole, history, {});
  Matrix<T> out(qkv.rows, shape.heads * C);
  for (Index i = 0; i < qkv.rows; ++i)
    for (Index c = 0; c < out.cols; ++c) out(i, c) = result.out(past + i, c);
  return out;
}

}  // namespace smoe::reference
