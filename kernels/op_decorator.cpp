#include "kernels/op_decorator.h"

namespace smoe {

double OpDecorator::do_measure_memory_rate(const Tensor& room) {
  double rate = 0;
  run("measure_memory_rate",
      [&](Backend& on, const Placing& at) { rate = on.measure_memory_rate(at.in_out("room", room)); });
  return rate;
}

// ---- copies ----

void OpDecorator::do_copy_to_host(void* host, const Tensor& from) {
  run("copy_to_host", [&](Backend& on, const Placing& at) { on.copy_to_host(host, at("from", from)); });
}

void OpDecorator::do_copy_from_host(const Tensor& to, const void* host) {
  run("copy_from_host", [&](Backend& on, const Placing& at) { on.copy_from_host(at.out("to", to), host); });
}

void OpDecorator::do_start_copy_to_host(void* host, const Tensor& from) {
  run("start_copy_to_host", [&](Backend& on, const Placing& at) { on.start_copy_to_host(host, at("from", from)); });
}

void OpDecorator::do_copy(const Tensor& to, const Tensor& from) {
  run("copy", [&](Backend& on, const Placing& at) { on.copy(at.out("to", to), at("from", from)); });
}

void OpDecorator::do_fill(const Tensor& to, float value) {
  run("fill", [&](Backend& on, const Placing& at) { on.fill(at.out("to", to), value); });
}

// ---- elementwise and reductions ----

void OpDecorator::do_add(const Tensor& a, const Tensor& b, const Tensor& out) {
  run("add", [&](Backend& on, const Placing& at) { on.add(at("a", a), at("b", b), at.out("out", out)); });
}

void OpDecorator::do_sum_rows(const Tensor& parts, const Tensor& out) {
  run("sum_rows", [&](Backend& on, const Placing& at) { on.sum_rows(at("parts", parts), at.out("out", out)); });
}

void OpDecorator::do_sum(const Tensor& x, const Tensor& out) {
  run("sum", [&](Backend& on, const Placing& at) { on.sum(at("x", x), at.in_out("out", out)); });
}

void OpDecorator::do_sum_of_squares(const Tensor& x, const Tensor& out) {
  run("sum_of_squares", [&](Backend& on, const Placing& at) { on.sum_of_squares(at("x", x), at.in_out("out", out)); });
}

// ---- embedding, norm ----

void OpDecorator::do_embedding_forward(const Tensor& ids, const Tensor& table, std::int64_t first,
                                       std::int64_t vocabulary, const Tensor& out) {
  run("embedding_forward", [&](Backend& on, const Placing& at) {
    on.embedding_forward(at("ids", ids), at("table", table), first, vocabulary, at.out("out", out));
  });
}

void OpDecorator::do_embedding_backward(const Tensor& ids, const Tensor& dout, std::int64_t first,
                                        std::int64_t vocabulary, const Tensor& dtable) {
  run("embedding_backward", [&](Backend& on, const Placing& at) {
    on.embedding_backward(at("ids", ids), at("dout", dout), first, vocabulary, at.in_out("dtable", dtable));
  });
}

void OpDecorator::do_add_noise(const TokenNoise& noise, const Tensor& row_scales, const Tensor& x) {
  run("add_noise",
      [&](Backend& on, const Placing& at) { on.add_noise(noise, at("row_scales", row_scales), at.in_out("x", x)); });
}

void OpDecorator::do_rms_norm_forward(const Tensor& x, const Tensor& weight, float epsilon, const Tensor& y,
                                      const Tensor& rstd) {
  run("rms_norm_forward", [&](Backend& on, const Placing& at) {
    on.rms_norm_forward(at("x", x), at("weight", weight), epsilon, at.out("y", y), at.out("rstd", rstd));
  });
}

void OpDecorator::do_rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& rstd,
                                       const Tensor& dresidual, const Tensor& dx, const Tensor& dweight) {
  run("rms_norm_backward", [&](Backend& on, const Placing& at) {
    on.rms_norm_backward(at("dy", dy), at("x", x), at("weight", weight), at("rstd", rstd), at("dresidual", dresidual),
                         at.out("dx", dx), at.in_out("dweight", dweight));
  });
}

// ---- matrix products ----

void OpDecorator::do_gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, Write write) {
  run("gemm", [&](Backend& on, const Placing& at) { on.gemm(kind, at("a", a), at("b", b), at.in_out("c", c), write); });
}

void OpDecorator::do_grouped_gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, const ExpertRows& rows,
                                  Write write) {
  run("grouped_gemm", [&](Backend& on, const Placing& at) {
    on.grouped_gemm(kind, at("a", a), at("b", b), at.in_out("c", c), at(rows), write);
  });
}

// ---- low-rank adapters ----

void OpDecorator::do_dropout(const Dropout& dropout, const Tensor& rows, const Tensor& x, const Tensor& y,
                             Write write) {
  run("dropout", [&](Backend& on, const Placing& at) {
    on.dropout(dropout, at("rows", rows), at("x", x), at.in_out("y", y), write);
  });
}

void OpDecorator::do_spread_blocks(const DiagonalBlocks& blocks, double scale, const Tensor& stack,
                                   const Tensor& matrices) {
  run("spread_blocks", [&](Backend& on, const Placing& at) {
    on.spread_blocks(blocks, scale, at("stack", stack), at.out("matrices", matrices));
  });
}

void OpDecorator::do_gather_blocks(const DiagonalBlocks& blocks, double scale, const Tensor& matrices,
                                   const Tensor& stack) {
  run("gather_blocks", [&](Backend& on, const Placing& at) {
    on.gather_blocks(blocks, scale, at("matrices", matrices), at.in_out("stack", stack));
  });
}

// ---- rotary position embedding ----

void OpDecorator::do_rope_table(std::span<const float> frequencies, float scale, const Tensor& table) {
  run("rope_table", [&](Backend& on, const Placing& at) { on.rope_table(frequencies, scale, at.out("table", table)); });
}

void OpDecorator::do_rope_forward(const Tensor& x, std::int64_t rotated_heads, const Tensor& positions,
                                  const Tensor& table) {
  run("rope_forward", [&](Backend& on, const Placing& at) {
    on.rope_forward(at.in_out("x", x), rotated_heads, at("positions", positions), at("table", table));
  });
}

void OpDecorator::do_rope_backward(const Tensor& dx, std::int64_t rotated_heads, const Tensor& positions,
                                   const Tensor& table) {
  run("rope_backward", [&](Backend& on, const Placing& at) {
    on.rope_backward(at.in_out("dx", dx), rotated_heads, at("positions", positions), at("table", table));
  });
}

// ---- attention ----

void OpDecorator::do_attention_forward(const AttentionShape& shape, const Tensor& qkv, const Tensor& document_start,
                                       const Tensor& out, const Tensor& lse) {
  run("attention_forward", [&](Backend& on, const Placing& at) {
    on.attention_forward(shape, at("qkv", qkv), at("document_start", document_start), at.out("out", out),
                         at.out("lse", lse));
  });
}

void OpDecorator::do_attention_backward(const AttentionShape& shape, const Tensor& qkv, const Tensor& document_start,
                                        const Tensor& out, const Tensor& lse, const Tensor& dout, const Tensor& dqkv) {
  run("attention_backward", [&](Backend& on, const Placing& at) {
    on.attention_backward(shape, at("qkv", qkv), at("document_start", document_start), at("out", out), at("lse", lse),
                          at("dout", dout), at.out("dqkv", dqkv));
  });
}

void OpDecorator::do_attention_cached(const AttentionShape& shape, const Tensor& qkv, std::int64_t past,
                                      const Tensor& key_cache, const Tensor& value_cache, const Tensor& out) {
  run("attention_cached", [&](Backend& on, const Placing& at) {
    on.attention_cached(shape, at("qkv", qkv), past, at.in_out("key_cache", key_cache),
                        at.in_out("value_cache", value_cache), at.out("out", out));
  });
}

// ---- router and dispatch ----

void OpDecorator::do_router_forward(const RoutingRule& rule, const Tensor& logits, const Tensor& selection_bias,
                                    const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                                    const Tensor& weights) {
  run("router_forward", [&](Backend& on, const Placing& at) {
    on.router_forward(rule, at("logits", logits), at("selection_bias", selection_bias),
                      at.out("probabilities", probabilities), at.out("logsumexp", logsumexp),
                      at.out("experts", experts), at.out("weights", weights));
  });
}

void OpDecorator::do_router_backward(const RoutingRule& rule, const Tensor& logits, const Tensor& probabilities,
                                     const Tensor& logsumexp, const Tensor& experts, const Tensor& weights,
                                     const Tensor& dweights, const Tensor& balance_gradient, double z_scale,
                                     const Tensor& dlogits) {
  run("router_backward", [&](Backend& on, const Placing& at) {
    on.router_backward(rule, at("logits", logits), at("probabilities", probabilities), at("logsumexp", logsumexp),
                       at("experts", experts), at("weights", weights), at("dweights", dweights),
                       at("balance_gradient", balance_gradient), z_scale, at.out("dlogits", dlogits));
  });
}

void OpDecorator::do_balance_statistics(const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                                        const Tensor& counts, const Tensor& probability_sums, const Tensor& z_sums) {
  run("balance_statistics", [&](Backend& on, const Placing& at) {
    on.balance_statistics(at("probabilities", probabilities), at("logsumexp", logsumexp), at("experts", experts),
                          at.out("counts", counts), at.out("probability_sums", probability_sums),
                          at.out("z_sums", z_sums));
  });
}

void OpDecorator::do_router_measures(const RoutingRule& rule, const Tensor& logits, const Tensor& selection_bias,
                                     const Tensor& probabilities, const Tensor& experts, const Tensor& sums) {
  run("router_measures", [&](Backend& on, const Placing& at) {
    on.router_measures(rule, at("logits", logits), at("selection_bias", selection_bias),
                       at("probabilities", probabilities), at("experts", experts), at.in_out("sums", sums));
  });
}

void OpDecorator::do_jitter(const TokenNoise& noise, const Tensor& x, const Tensor& y, Write write) {
  run("jitter", [&](Backend& on, const Placing& at) { on.jitter(noise, at("x", x), at.in_out("y", y), write); });
}

void OpDecorator::do_routing_map(const Tensor& experts, const Tensor& probabilities, const Capacity& capacity,
                                 const Tensor& row_of, const Tensor& assignment_of, const Tensor& offsets) {
  run("routing_map", [&](Backend& on, const Placing& at) {
    on.routing_map(at("experts", experts), at("probabilities", probabilities), capacity, at.out("row_of", row_of),
                   at.out("assignment_of", assignment_of), at.out("offsets", offsets));
  });
}

void OpDecorator::do_permute(const Tensor& x, const Tensor& assignment_of, std::int64_t experts_per_token,
                             const Tensor& rows) {
  run("permute", [&](Backend& on, const Placing& at) {
    on.permute(at("x", x), at("assignment_of", assignment_of), experts_per_token, at.out("rows", rows));
  });
}

void OpDecorator::do_unpermute(const Tensor& rows, const Tensor& row_of, const Tensor& base, const Tensor& x) {
  run("unpermute", [&](Backend& on, const Placing& at) {
    on.unpermute(at("rows", rows), at("row_of", row_of), at("base", base), at.out("x", x));
  });
}

void OpDecorator::do_permute_weights(const Tensor& weights, const Tensor& row_of, const Tensor& row_weights) {
  run("permute_weights", [&](Backend& on, const Placing& at) {
    on.permute_weights(at("weights", weights), at("row_of", row_of), at.out("row_weights", row_weights));
  });
}

void OpDecorator::do_unpermute_weights(const Tensor& row_weights, const Tensor& row_of, const Tensor& weights) {
  run("unpermute_weights", [&](Backend& on, const Placing& at) {
    on.unpermute_weights(at("row_weights", row_weights), at("row_of", row_of), at.out("weights", weights));
  });
}

// ---- SwiGLU ----

void OpDecorator::do_swiglu_forward(const Tensor& h, const Tensor& row_weights, const Tensor& a) {
  run("swiglu_forward", [&](Backend& on, const Placing& at) {
    on.swiglu_forward(at("h", h), at("row_weights", row_weights), at.out("a", a));
  });
}

void OpDecorator::do_swiglu_backward(const Tensor& h, const Tensor& row_weights, const Tensor& da, const Tensor& dh,
                                     const Tensor& drow_weights, const Tensor& a) {
  run("swiglu_backward", [&](Backend& on, const Placing& at) {
    on.swiglu_backward(at("h", h), at("row_weights", row_weights), at("da", da), at.out("dh", dh),
                       at.out("drow_weights", drow_weights), at.out("a", a));
  });
}

// ---- cross-entropy ----

void OpDecorator::do_cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t first,
                                              const Tensor& maxima, const Tensor& sums, const Tensor& target_logits,
                                              const Tensor& logit_sums) {
  run("cross_entropy_statistics", [&](Backend& on, const Placing& at) {
    on.cross_entropy_statistics(at("logits", logits), at("targets", targets), first, at.out("maxima", maxima),
                                at.out("sums", sums), at.out("target_logits", target_logits),
                                at.out("logit_sums", logit_sums));
  });
}

void OpDecorator::do_cross_entropy_merge(const Tensor& parts, const Tensor& maxima, const Tensor& sums,
                                         const Tensor& target_logits, const Tensor& logit_sums) {
  run("cross_entropy_merge", [&](Backend& on, const Placing& at) {
    on.cross_entropy_merge(at("parts", parts), at.out("maxima", maxima), at.out("sums", sums),
                           at.out("target_logits", target_logits), at.out("logit_sums", logit_sums));
  });
}

void OpDecorator::do_cross_entropy_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                                          const Tensor& target_logits, const Tensor& logsumexp, const Tensor& losses) {
  run("cross_entropy_losses", [&](Backend& on, const Placing& at) {
    on.cross_entropy_losses(at("targets", targets), at("maxima", maxima), at("sums", sums),
                            at("target_logits", target_logits), at.out("logsumexp", logsumexp),
                            at.out("losses", losses));
  });
}

void OpDecorator::do_cross_entropy_uniform_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                                                  const Tensor& logit_sums, std::int64_t vocabulary,
                                                  const Tensor& losses) {
  run("cross_entropy_uniform_losses", [&](Backend& on, const Placing& at) {
    on.cross_entropy_uniform_losses(at("targets", targets), at("maxima", maxima), at("sums", sums),
                                    at("logit_sums", logit_sums), vocabulary, at.out("losses", losses));
  });
}

void OpDecorator::do_cross_entropy_backward(const Tensor& logits, const Tensor& targets, std::int64_t first,
                                            const Tensor& logsumexp, double scale, const Tensor& token_scales,
                                            const LabelSmoothing& smoothing, const Tensor& dlogits) {
  run("cross_entropy_backward", [&](Backend& on, const Placing& at) {
    on.cross_entropy_backward(at("logits", logits), at("targets", targets), first, at("logsumexp", logsumexp), scale,
                              at("token_scales", token_scales), smoothing, at.out("dlogits", dlogits));
  });
}

// ---- AdamW ----

void OpDecorator::do_adamw(const AdamWStep& step, const Tensor& master, const Tensor& gradient,
                           const Tensor& first_moment, const Tensor& second_moment, const Tensor& value) {
  run("adamw", [&](Backend& on, const Placing& at) {
    on.adamw(step, at.in_out("master", master), at.in_out("gradient", gradient),
             at.in_out("first_moment", first_moment), at.in_out("second_moment", second_moment),
             at.out("value", value));
  });
}

}  // namespace smoe
