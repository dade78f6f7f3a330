// What one call of an op has to do at least: floating-point operations of its definition, and bytes that are read and
// written once. The one place for these formulas: tests/kernels/op_calls*.cpp, tests/bench and TimedBackend hold times
// against them. Letters are those of kernels/backend.h; n is a number of elements, `a` the bytes of a number of the type
// that is marked A there; all others have four.
#pragma once

#include <algorithm>
#include <cstdint>

namespace smoe {

struct Work {
  double flops = 0, bytes = 0;

  Work& operator+=(const Work& other) {
    flops += other.flops;
    bytes += other.bytes;
    return *this;
  }
  friend Work operator*(double times, const Work& work) { return {times * work.flops, times * work.bytes}; }
  bool operator==(const Work&) const = default;
};

// What an op can reach at best is set by the slower of arithmetic and memory. CPUs do 5 to 15 flops in the time of one
// byte; the ops of a training step do at most 4 a byte, or at least 25.
enum class Bound : std::uint8_t { matrix, memory };
constexpr Bound bound_of(const Work& work) { return work.flops > 16 * work.bytes ? Bound::matrix : Bound::memory; }

namespace op_work {

using Index = std::int64_t;

// ---- memory, elementwise, reductions ----
inline Work copy(Index n, double a = 4) { return {0, 2 * a * double(n)}; }  // and to and from the host
inline Work fill(Index n, double a = 4) { return {0, a * double(n)}; }
inline Work add(Index n, double a = 4) { return {double(n), 3 * a * double(n)}; }
inline Work sum_rows(Index P, Index n, double a = 4) { return {double(P * n), a * double((P + 1) * n)}; }
inline Work sum(Index n) { return {double(n), 4.0 * double(n)}; }
inline Work sum_of_squares(Index n) { return {2.0 * double(n), 4.0 * double(n)}; }

// ---- embedding, norm, rotary embedding ----
inline Work embedding_forward(Index T, Index D, double a = 4) { return {0, double(T) * (2 * a * double(D) + 4)}; }
inline Work embedding_backward(Index T, Index D, double a = 4) {
  return {double(T * D), double(T) * ((8.0 + a) * double(D) + 4)};
}
// The integer work of philox is not counted; a number a row is not either.
inline Work add_noise(Index n, double a = 4) { return {4.0 * double(n), 2 * a * double(n)}; }
inline Work rms_norm_forward(Index T, Index D, double a = 4) { return {4.0 * double(T * D), 2 * a * double(T * D)}; }
inline Work rms_norm_backward(Index T, Index D, double a = 4) { return {9.0 * double(T * D), 4 * a * double(T * D)}; }
inline Work rope_table(Index n) { return {0, 4.0 * double(n)}; }
inline Work rope(Index T, Index rotated_heads, Index C, double a = 4) {
  const double rotated = double(T * rotated_heads * C);
  return {3.0 * rotated, 2 * a * rotated};
}

// ---- matrix products: m, n, k as in enum Gemm, whichever operand is read transposed ----
inline Work gemm(Index m, Index n, Index k, double a = 4, double c = 4) {  // c: of a number of C
  return {2.0 * double(m) * double(n) * double(k), a * double(m * k + n * k) + c * double(m * n)};
}
// R rows of `experts` experts through weights, or to gradients, of out x in elements each. experts: those that have rows;
// rows, weights: bytes of a number of these.
inline Work grouped_gemm(Index experts, Index R, Index out, Index in, double rows = 4, double weights = 4) {
  return {2.0 * double(R) * double(out * in),
          rows * double(R) * double(out + in) + weights * double(experts * out * in)};
}

// ---- low-rank adapters ----
// The integer work of philox is not counted.
inline Work dropout(Index n, double a = 4) { return {double(n), 2 * a * double(n)}; }
inline Work spread_blocks(Index blocks, Index matrices, double a = 4) {
  return {double(blocks), a * double(blocks + matrices)};
}
inline Work gather_blocks(Index blocks) { return {2.0 * double(blocks), 12.0 * double(blocks)}; }

// ---- attention: the pairs that causality and the window leave; documents are not counted off ----
inline double visible_pairs(Index B, Index S, Index window) {  // of one head
  const double seen = double(window == 0 ? S : std::min(S, window));
  return double(B) * (seen * (seen + 1) / 2 + (double(S) - seen) * seen);
}
inline Work attention_forward(Index B, Index S, Index H, Index G, Index C, Index window, double a = 4) {
  const double read = double(B * S * (H + 2 * G) * C), written = double(B * S * H * C);
  return {4.0 * double(H * C) * visible_pairs(B, S, window), a * (read + written)};
}
inline Work attention_backward(Index B, Index S, Index H, Index G, Index C, Index window, double a = 4) {
  const double qkv = double(B * S * (H + 2 * G) * C), out = double(B * S * H * C);
  return {10.0 * double(H * C) * visible_pairs(B, S, window), a * (2 * qkv + 2 * out)};
}
// N queries behind `past` cached positions. The cached keys and values inside the window are read, the new ones written.
inline Work attention_cached(Index N, Index past, Index H, Index G, Index C, Index window, double a = 4) {
  double pairs = 0;
  for (Index i = 0; i < N; ++i) pairs += double(window == 0 ? past + i + 1 : std::min(past + i + 1, window));
  const double cache = double(window == 0 ? past + N : std::min(past + N, window + N)) * double(G * C);
  return {4.0 * double(H * C) * pairs, a * (2 * cache + double(N * (2 * H + 2 * G) * C))};
}

// ---- router and dispatch: T K = R assignments ----
inline Work router_forward(Index T, Index E, Index K) {
  return {4.0 * double(T * E), 4.0 * double(T * (2 * E + 2 * K + 1))};
}
inline Work router_backward(Index T, Index E, Index K) {
  return {6.0 * double(T * E), 4.0 * double(T * (2 * E + 3 * K + 1))};
}
inline Work balance_statistics(Index T, Index E, Index K) {
  return {double(T * (E + K + 2)), 4.0 * double(T * (E + K + 1))};
}
inline Work router_measures(Index T, Index E, Index K) { return {7.0 * double(T * E), 4.0 * double(T * (2 * E + K))}; }
// The integer work of philox is not counted.
inline Work jitter(Index n, double a = 4) { return {4.0 * double(n), 2 * a * double(n)}; }
inline Work routing_map(Index R) { return {0, 12.0 * double(R)}; }
inline Work permute(Index T, Index K, Index D, double a = 4) { return {0, a * double(T * (K + 1) * D)}; }
inline Work unpermute(Index T, Index K, Index D, double a = 4) {
  return {double(T * K * D), a * double(T * (K + 1) * D)};
}
inline Work permute_weights(Index R) { return {0, 12.0 * double(R)}; }  // and unpermute_weights

// ---- SwiGLU ----
inline Work swiglu_forward(Index R, Index F, double a = 4) { return {7.0 * double(R * F), 3 * a * double(R * F)}; }
inline Work swiglu_backward(Index R, Index F, double a = 4) { return {16.0 * double(R * F), 6 * a * double(R * F)}; }

// ---- cross-entropy of N rows over V columns; P: ranges that are merged ----
// smoothed: with the sums of the logits.
inline Work cross_entropy_statistics(Index N, Index V, bool smoothed = false) {
  return {(smoothed ? 4.0 : 3.0) * double(N * V), 4.0 * double(N * V)};
}
inline Work cross_entropy_merge(Index P, Index N, bool smoothed = false) {
  return {(smoothed ? 4.0 : 3.0) * double(P * N), (smoothed ? 16.0 : 12.0) * double(P * N)};
}
inline Work cross_entropy_losses(Index N) { return {3.0 * double(N), 24.0 * double(N)}; }
inline Work cross_entropy_uniform_losses(Index N) { return {4.0 * double(N), 20.0 * double(N)}; }
inline Work cross_entropy_backward(Index N, Index V, double a = 4) {
  return {3.0 * double(N * V), (4.0 + a) * double(N * V)};
}

// ---- AdamW: weight, gradient and both moments are read and written ----
// rounded: bytes of a value that is written beside its master.
inline Work adamw(Index n, double rounded = 0) { return {14.0 * double(n), (32.0 + rounded) * double(n)}; }

}  // namespace op_work
}  // namespace smoe
