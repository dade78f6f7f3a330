// The checked side of the op table: attention, router, dispatch to experts, SwiGLU. The others are in backend.cpp.
#include "kernels/backend.h"
#include "kernels/checks.h"

namespace smoe {

// ---- attention ----

namespace {
void expect_attention(const Expect& expect, const AttentionShape& shape, const Tensor& qkv,
                      const Tensor& document_start, const Tensor& out, const Tensor& lse) {
  const std::int64_t T = shape.sequences * shape.sequence_length, H = shape.heads, G = shape.kv_heads,
                     C = shape.head_dim;
  expect.that(G >= 1 && H % G == 0, "the key-value heads must divide the query heads");
  const DType type = expect.computing_type("qkv", qkv);
  expect("qkv", qkv, {T, H + 2 * G, C}, type);
  expect.optional("document_start", document_start, {T}, DType::i32);
  expect("out", out, {T, H, C}, type);
  expect("lse", lse, {H, T});
}
}  // namespace

void Backend::attention_forward(const AttentionShape& shape, const Tensor& qkv, const Tensor& document_start,
                                const Tensor& out, const Tensor& lse) {
  const Expect expect("attention_forward", device());
  expect_attention(expect, shape, qkv, document_start, out, lse);
  expect.apart({{"out", out}, {"lse", lse}}, {{"qkv", qkv}, {"document_start", document_start}});
  do_attention_forward(shape, qkv, document_start, out, lse);
}

void Backend::attention_backward(const AttentionShape& shape, const Tensor& qkv, const Tensor& document_start,
                                 const Tensor& out, const Tensor& lse, const Tensor& dout, const Tensor& dqkv) {
  const Expect expect("attention_backward", device());
  expect_attention(expect, shape, qkv, document_start, out, lse);
  expect("dout", dout, out.shape(), out.type());
  expect("dqkv", dqkv, qkv.shape(), qkv.type());
  expect.apart({{"dqkv", dqkv}},
               {{"qkv", qkv}, {"document_start", document_start}, {"out", out}, {"lse", lse}, {"dout", dout}});
  do_attention_backward(shape, qkv, document_start, out, lse, dout, dqkv);
}

void Backend::attention_cached(const AttentionShape& shape, const Tensor& qkv, std::int64_t past,
                               const Tensor& key_cache, const Tensor& value_cache, const Tensor& out) {
  const std::int64_t N = qkv.dim(0), H = shape.heads, G = shape.kv_heads, C = shape.head_dim;
  const std::int64_t capacity = key_cache.dim(0);
  const Expect expect("attention_cached", device());
  expect.that(shape.sequences == 1, "one sequence at a time");
  expect.that(G >= 1 && H % G == 0, "the key-value heads must divide the query heads");
  const DType type = expect.computing_type("qkv", qkv);
  expect("qkv", qkv, {N, H + 2 * G, C}, type);
  expect("key_cache", key_cache, {capacity, G, C}, type);
  expect("value_cache", value_cache, {capacity, G, C}, type);
  expect("out", out, {N, H, C}, type);
  expect.that(past >= 0 && past + N <= capacity, "the cache is too short for the new tokens");
  expect.apart({{"out", out}, {"key_cache", key_cache}, {"value_cache", value_cache}}, {{"qkv", qkv}});
  do_attention_cached(shape, qkv, past, key_cache, value_cache, out);
}

// ---- router ----

namespace {
void expect_selection_bias(const Expect& expect, const Tensor& bias, std::int64_t tokens, std::int64_t experts) {
  if (bias.rank() == 2)
    expect("selection_bias", bias, {tokens, experts});
  else
    expect.optional("selection_bias", bias, {experts});
}
}  // namespace

void Backend::router_forward(const RoutingRule& rule, const Tensor& logits, const Tensor& selection_bias,
                             const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                             const Tensor& weights) {
  const std::int64_t T = logits.dim(0), E = logits.dim(1), K = experts.dim(1);
  const Expect expect("router_forward", device());
  expect("logits", logits, {T, E});
  expect_selection_bias(expect, selection_bias, T, E);
  expect("probabilities", probabilities, {T, E});
  expect("logsumexp", logsumexp, {T});
  expect.indices("experts", experts, {T, K});
  expect("weights", weights, {T, K});
  expect.that(K >= 1 && K <= E, "experts per token must be 1 .. number of experts");
  expect.apart({{"probabilities", probabilities}, {"logsumexp", logsumexp}, {"experts", experts}, {"weights", weights}},
               {{"logits", logits}, {"selection_bias", selection_bias}});
  do_router_forward(rule, logits, selection_bias, probabilities, logsumexp, experts, weights);
}

void Backend::router_backward(const RoutingRule& rule, const Tensor& logits, const Tensor& probabilities,
                              const Tensor& logsumexp, const Tensor& experts, const Tensor& weights,
                              const Tensor& dweights, const Tensor& balance_gradient, double z_scale,
                              const Tensor& dlogits) {
  const std::int64_t T = dlogits.dim(0), E = dlogits.dim(1), K = experts.dim(1);
  const Expect expect("router_backward", device());
  expect("logits", logits, {T, E});
  expect("probabilities", probabilities, {T, E});
  expect("logsumexp", logsumexp, {T});
  expect.indices("experts", experts, {T, K});
  expect("weights", weights, {T, K});
  expect("dweights", dweights, {T, K});
  expect("dlogits", dlogits, {T, E}, expect.computing_type("dlogits", dlogits));
  const std::int64_t groups = balance_gradient.empty() ? 1 : balance_gradient.dim(0);
  expect.optional("balance_gradient", balance_gradient, {groups, E});
  expect.that(groups > 0 && T % groups == 0, "balance_gradient's groups must divide the tokens");
  expect.apart({{"dlogits", dlogits}}, {{"logits", logits},
                                        {"probabilities", probabilities},
                                        {"logsumexp", logsumexp},
                                        {"experts", experts},
                                        {"weights", weights},
                                        {"dweights", dweights},
                                        {"balance_gradient", balance_gradient}});
  do_router_backward(rule, logits, probabilities, logsumexp, experts, weights, dweights, balance_gradient, z_scale,
                     dlogits);
}

void Backend::balance_statistics(const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                                 const Tensor& counts, const Tensor& probability_sums, const Tensor& z_sums) {
  const std::int64_t T = probabilities.dim(0), E = probabilities.dim(1), K = experts.dim(1), N = counts.dim(0);
  const Expect expect("balance_statistics", device());
  expect("probabilities", probabilities, {T, E});
  expect("logsumexp", logsumexp, {T});
  expect.indices("experts", experts, {T, K});
  expect("counts", counts, {N, E});
  expect("probability_sums", probability_sums, {N, E});
  expect("z_sums", z_sums, {N});
  expect.that(N > 0 && T % N == 0, "the groups must divide the tokens");
  expect.apart({{"counts", counts}, {"probability_sums", probability_sums}, {"z_sums", z_sums}},
               {{"probabilities", probabilities}, {"logsumexp", logsumexp}, {"experts", experts}});
  do_balance_statistics(probabilities, logsumexp, experts, counts, probability_sums, z_sums);
}

void Backend::router_measures(const RoutingRule& rule, const Tensor& logits, const Tensor& selection_bias,
                              const Tensor& probabilities, const Tensor& experts, const Tensor& sums) {
  const std::int64_t T = logits.dim(0), E = logits.dim(1), K = experts.dim(1);
  const Expect expect("router_measures", device());
  expect("logits", logits, {T, E});
  expect_selection_bias(expect, selection_bias, T, E);
  expect("probabilities", probabilities, {T, E});
  expect.indices("experts", experts, {T, K});
  expect("sums", sums, {3}, DType::f64);
  expect.that(K >= 1 && K <= E, "experts per token must be 1 .. number of experts");
  expect.apart(
      {{"sums", sums}},
      {{"logits", logits}, {"selection_bias", selection_bias}, {"probabilities", probabilities}, {"experts", experts}});
  do_router_measures(rule, logits, selection_bias, probabilities, experts, sums);
}

void Backend::jitter(const TokenNoise& noise, const Tensor& x, const Tensor& y, Write write) {
  const Expect expect("jitter", device());
  const DType type = expect.computing_type("x", x);
  expect("x", x, {x.dim(0), x.dim(1)}, type);
  expect("y", y, x.shape(), type);
  expect.apart_or_same({"y", y}, {"x", x});
  do_jitter(noise, x, y, write);
}

// ---- dispatch to experts ----

void Backend::routing_map(const Tensor& experts, const Tensor& probabilities, const Capacity& capacity,
                          const Tensor& row_of, const Tensor& assignment_of, const Tensor& offsets) {
  const std::int64_t T = experts.dim(0), K = experts.dim(1), E = offsets.dim(0) - 1;
  const Expect expect("routing_map", device());
  expect.indices("experts", experts, {T, K});
  expect.indices("row_of", row_of, {T, K});
  expect.indices("assignment_of", assignment_of, {T * K});
  expect.that(E >= 1, "offsets must hold one entry more than there are experts");
  expect.indices("offsets", offsets, {E + 1});
  expect.that(capacity.rows == 0 || (capacity.rows > 0 && capacity.group > 0 && T % capacity.group == 0),
              "the capacity's groups must divide the tokens");
  const bool ranked = capacity.rows > 0 && capacity.order == CapacityOrder::probability;
  if (ranked || !probabilities.empty()) expect("probabilities", probabilities, {T, E});
  expect.apart({{"row_of", row_of}, {"assignment_of", assignment_of}, {"offsets", offsets}},
               {{"experts", experts}, {"probabilities", probabilities}});
  do_routing_map(experts, ranked ? probabilities : Tensor(), capacity, row_of, assignment_of, offsets);
}

namespace {
// Numbers of four bytes are moved as they are, whatever they mean.
DType moved_type(const Tensor& tensor) { return tensor.type() == DType::i32 ? DType::i32 : DType::f32; }
Tensor as_f32(const Tensor& tensor) {
  return tensor.type() == DType::i32 ? Tensor(tensor.raw(), DType::f32, tensor.shape(), tensor.device()) : tensor;
}
}  // namespace

void Backend::permute(const Tensor& x, const Tensor& assignment_of, std::int64_t experts_per_token,
                      const Tensor& rows) {
  const std::int64_t T = x.dim(0), D = x.dim(1), R = rows.dim(0);
  const Expect expect("permute", device());
  const DType type = x.type() == DType::i32 ? DType::i32 : expect.computing_type("x", x);
  expect("x", x, {T, D}, type);
  expect.indices("assignment_of", assignment_of, {R});
  expect("rows", rows, {R, D}, type);
  expect.that(experts_per_token >= 1, "at least one expert a token");
  expect.apart({{"rows", rows}}, {{"x", x}, {"assignment_of", assignment_of}});
  do_permute(as_f32(x), assignment_of, experts_per_token, as_f32(rows));
}

void Backend::unpermute(const Tensor& rows, const Tensor& row_of, const Tensor& base, const Tensor& x) {
  const std::int64_t T = x.dim(0), D = x.dim(1), R = rows.dim(0), K = row_of.dim(1);
  const Expect expect("unpermute", device());
  const DType type = expect.computing_type("rows", rows);
  expect("rows", rows, {R, D}, type);
  expect.indices("row_of", row_of, {T, K});
  expect.optional("base", base, {T, D}, type);
  expect("x", x, {T, D}, type);
  expect.apart({{"x", x}}, {{"rows", rows}, {"row_of", row_of}});
  expect.apart_or_same({"x", x}, {"base", base});
  do_unpermute(rows, row_of, base, x);
}

void Backend::permute_weights(const Tensor& weights, const Tensor& row_of, const Tensor& row_weights) {
  const std::int64_t T = weights.dim(0), K = weights.dim(1), R = row_weights.dim(0);
  const Expect expect("permute_weights", device());
  expect("weights", weights, {T, K}, moved_type(weights));
  expect.indices("row_of", row_of, {T, K});
  expect("row_weights", row_weights, {R}, moved_type(weights));
  expect.apart({{"row_weights", row_weights}}, {{"weights", weights}, {"row_of", row_of}});
  do_permute_weights(as_f32(weights), row_of, as_f32(row_weights));
}

void Backend::unpermute_weights(const Tensor& row_weights, const Tensor& row_of, const Tensor& weights) {
  const std::int64_t T = weights.dim(0), K = weights.dim(1), R = row_weights.dim(0);
  const Expect expect("unpermute_weights", device());
  expect("row_weights", row_weights, {R});
  expect.indices("row_of", row_of, {T, K});
  expect("weights", weights, {T, K});
  expect.apart({{"weights", weights}}, {{"row_weights", row_weights}, {"row_of", row_of}});
  do_unpermute_weights(row_weights, row_of, weights);
}

// ---- SwiGLU ----

void Backend::swiglu_forward(const Tensor& h, const Tensor& row_weights, const Tensor& a) {
  const std::int64_t R = a.dim(0), F = a.dim(1);
  const Expect expect("swiglu_forward", device());
  const DType type = expect.computing_type("h", h);
  expect("h", h, {R, 2 * F}, type);
  expect.optional("row_weights", row_weights, {R});
  expect("a", a, {R, F}, type);
  expect.apart({{"a", a}}, {{"h", h}, {"row_weights", row_weights}});
  do_swiglu_forward(h, row_weights, a);
}

void Backend::swiglu_backward(const Tensor& h, const Tensor& row_weights, const Tensor& da, const Tensor& dh,
                              const Tensor& drow_weights, const Tensor& a) {
  const std::int64_t R = a.dim(0), F = a.dim(1);
  const Expect expect("swiglu_backward", device());
  const DType type = expect.computing_type("h", h);
  expect("h", h, {R, 2 * F}, type);
  expect.optional("row_weights", row_weights, {R});
  expect("da", da, {R, F}, type);
  expect("dh", dh, {R, 2 * F}, type);
  expect.optional("drow_weights", drow_weights, {R});
  expect("a", a, {R, F}, type);
  expect.apart({{"dh", dh}, {"drow_weights", drow_weights}, {"a", a}}, {{"row_weights", row_weights}, {"da", da}});
  expect.apart_or_same({"dh", dh}, {"h", h});
  expect.apart({{"a", a}, {"drow_weights", drow_weights}}, {{"h", h}});
  do_swiglu_backward(h, row_weights, da, dh, drow_weights, a);
}

}  // namespace smoe
