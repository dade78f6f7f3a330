#include <fmt/format.h>

#include "tests/bench/op_calls.h"
#include "tests/kernels/op_cases_attention.h"

namespace smoe::bench {
namespace {

using namespace op_cases;

void add_attention(std::vector<OpCall>& calls, const AttentionCase& c) {
  const AttentionShape shape{c.sequences, c.sequence_length, c.heads, c.kv_heads, c.head_dim, c.window};
  const std::string what = fmt::format("B{} S{} H{} G{} C{}{}", c.sequences, c.sequence_length, c.heads, c.kv_heads, c.head_dim,
                                       c.window ? fmt::format(" window {}", c.window) : "");
  const Shape all_heads{c.tokens(), c.heads + 2 * c.kv_heads, c.head_dim}, queries{c.tokens(), c.heads, c.head_dim};
  const Shape per_query{c.heads, c.tokens()};
  calls.push_back({"attention_forward", what, c.forward(), [=](Inputs& in) {
    return [&b = in.backend(), shape, qkv = in.uniform(all_heads), out = in.output(queries), lse = in.output(per_query)] {
      b.attention_forward(shape, qkv, {}, out, lse);
    };
  }});
  calls.push_back({"attention_backward", what, c.backward(), [=](Inputs& in) {
    const Tensor qkv = in.uniform(all_heads), out = in.output(queries), lse = in.output(per_query);
    in.backend().attention_forward(shape, qkv, {}, out, lse);
    return [&b = in.backend(), shape, qkv, out, lse, dout = in.uniform(queries), dqkv = in.output(all_heads)] {
      b.attention_backward(shape, qkv, {}, out, lse, dout, dqkv);
    };
  }});
}

void add_cached_attention(std::vector<OpCall>& calls, const CachedAttentionCase& c) {
  const AttentionShape shape{1, c.tokens, c.heads, c.kv_heads, c.head_dim, c.window};
  const Shape cache{c.capacity, c.kv_heads, c.head_dim};
  calls.push_back({"attention_cached", fmt::format("N{} past {} H{} G{} C{}", c.tokens, c.past, c.heads, c.kv_heads, c.head_dim),
                   c.forward(), [=](Inputs& in) {
    return [&b = in.backend(), shape, c, qkv = in.uniform({c.tokens, c.heads + 2 * c.kv_heads, c.head_dim}),
            keys = in.uniform(cache), values = in.uniform(cache), out = in.output({c.tokens, c.heads, c.head_dim})] {
      b.attention_cached(shape, qkv, c.past, keys, values, out);
    };
  }});
}

}  // namespace

std::vector<OpCall> attention_calls() {
  std::vector<OpCall> calls;
  for (const auto& c : bench_cases(attention_cases())) add_attention(calls, c);
  for (const auto& c : bench_cases(cached_attention_cases())) add_cached_attention(calls, c);
  return calls;
}

}  // namespace smoe::bench
