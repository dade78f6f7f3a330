// The cases at which ops are timed, as a model's sizes make them (bench_shapes.h). They are too large for a reference: what is
// compared is in op_cases*.h.
#pragma once

#include <vector>

#include "tests/kernels/bench_shapes.h"
#include "tests/kernels/op_cases.h"
#include "tests/kernels/op_cases_attention.h"
#include "tests/kernels/op_cases_low_rank.h"
#include "tests/kernels/op_cases_moe.h"

namespace smoe::bench_cases {

using namespace op_cases;

inline std::vector<ElementwiseCase> elementwise(const BenchShape& s) { return {{"residual", s.tokens() * s.hidden}}; }

inline std::vector<EmbeddingCase> embedding(const BenchShape& s) { return {{"tokens", s.tokens(), s.vocab, s.hidden}}; }

inline std::vector<RmsNormCase> rms_norm(const BenchShape& s) { return {{"tokens", s.tokens(), s.hidden}}; }

inline std::vector<GemmCase> gemm(const BenchShape& s) {
  const Index T = s.tokens(), D = s.hidden, queries = s.heads * s.head_dim, both = 2 * s.kv_heads * s.head_dim;
  return {{"qkv", T, queries + both, D, false, s.all_products},
          {"out", T, D, queries, false, s.all_products},
          {"router", T, s.experts, D, true},
          {"lm_head_chunk", s.head_rows, s.vocab, D, true}};
}

inline std::vector<CrossEntropyCase> cross_entropy(const BenchShape& s) {
  return {{"chunk", s.head_rows, {s.vocab}, CrossEntropyCase::Mask::none}};
}

inline std::vector<RopeCase> rope(const BenchShape& s) {
  const Index rotated = s.heads + s.kv_heads;
  return {{"tokens", s.tokens(), rotated + s.kv_heads, rotated, s.head_dim, s.sequence_length}};
}

// Of 123M parameters all matrices of the experts, else one: an element takes 16 to 18 bytes.
inline std::vector<AdamWCase> adamw(const BenchShape& s) {
  const Index matrix = s.ffn * s.hidden, all = s.experts * 3 * matrix;
  return {{"experts", all <= (Index{1} << 25) ? all : matrix, 1}};
}

inline std::vector<AttentionCase> attention(const BenchShape& s) {
  std::vector<AttentionCase> cases;
  for (const BenchShape::Sequences& a : s.attention)
    cases.push_back({"sequences", a.count, a.length, s.heads, s.kv_heads, s.head_dim, a.window, a.document_length});
  return cases;
}

// A token more, behind a full context.
inline std::vector<CachedAttentionCase> cached_attention(const BenchShape& s) {
  const Index capacity = 2 * s.sequence_length;
  return {{"decode", capacity - 1, 1, capacity, s.heads, s.kv_heads, s.head_dim}};
}

inline std::vector<RouterCase> router(const BenchShape& s) {
  const auto random = RouterCase::Logits::random;
  return {{"tokens", s.tokens(), s.experts, s.top_k, s.sequences},
          {"biased_sigmoids", s.tokens(), s.experts, s.top_k, s.sequences, random, {Score::sigmoid, true, 2.5f}, 0.3}};
}

inline std::vector<JitterCase> jitter(const BenchShape& s) {
  return {{"tokens", s.tokens(), s.hidden, {9, 1000, 5, 0.01f}}};
}

inline std::vector<DropoutCase> dropout(const BenchShape& s) {
  return {{"tokens", s.tokens(), s.hidden, {9, 5, 0.05f}}};
}

// Of w1 and w3, at rank 16.
inline std::vector<BlocksCase> blocks(const BenchShape& s) {
  return {{"w13", s.experts, 2 * s.ffn, 32, {{0, s.ffn, 0, 16}, {s.ffn, s.ffn, 16, 16}}, 2}};
}

inline std::vector<DispatchCase> dispatch(const BenchShape& s) {
  const Index equal_share = s.sequence_length * s.top_k / s.experts;
  return {{"tokens", s.tokens(), s.experts, s.top_k, s.hidden},
          {"ranked",
           s.tokens(),
           s.experts,
           s.top_k,
           s.hidden,
           DispatchCase::Choice::random,
           {equal_share, s.sequence_length, CapacityOrder::probability}}};
}

inline std::vector<GroupedGemmCase> grouped_gemm(const BenchShape& s) {
  const Index D = s.hidden, F = s.ffn;
  std::vector<GroupedGemmCase> cases = {{"w13", s.even_rows(), 2 * F, D, s.all_products},
                                        {"w2", s.even_rows(), D, F, s.all_products},
                                        {"w13_skewed", s.skewed_rows(), 2 * F, D}};
  if (s.all_products) cases.push_back({"w2_skewed", s.skewed_rows(), D, F});
  return cases;
}

inline std::vector<SwigluCase> swiglu(const BenchShape& s) { return {{"rows", s.rows(), s.ffn}}; }

}  // namespace smoe::bench_cases
