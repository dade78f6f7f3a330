// One Mixtral layer: norm, q/k/v, rope, causal attention, out projection, residual; norm, router, experts, residual.
#pragma once

#include "tests/reference/attention.h"
#include "tests/reference/embedding.h"
#include "tests/reference/noise.h"
#include "tests/reference/parameters.h"
#include "tests/reference/rms_norm.h"
#include "tests/reference/rope.h"

namespace smoe::reference {

struct Batch {
  Index sequences = 0, sequence_length = 0;  // B, S; the vectors below hold T = B * S numbers, sequence by sequence
  Ids tokens;
  Ids targets;                    // < 0: masked
  Ids document_start{};           // first position of the same sequence that a token may see; empty: 0
  double target_count = 1;        // what the sum of the losses is divided by
  std::vector<double> weights{};  // of each target in that sum; empty: 1
  std::uint64_t noise_key = 0;

  Ids positions() const {
    Ids out;
    for (Index t = 0; t < sequences * sequence_length; ++t)
      out.push_back(static_cast<std::int32_t>(t % sequence_length));
    return out;
  }
};

inline AttentionShape attention_shape(const ReferenceConfig& c, const Batch& batch) {
  return {batch.sequences, batch.sequence_length, c.heads, c.kv_heads, c.head_dim, c.window};
}

// q/k/v, rope, causal attention, out projection.
template <typename T>
struct SelfAttention {
  Matrix<T> x;    // input
  Matrix<T> qkv;  // rotated
  Attention<T> attention;
};

template <typename T>
Matrix<T> self_attention_forward(const ReferenceConfig& c, const LayerParameters<T>& p, const Matrix<T>& x,
                                 const Batch& batch, SelfAttention<T>& s) {
  const Index q_size = Index(c.heads) * c.head_dim, kv_size = Index(c.kv_heads) * c.head_dim;
  s.x = x;
  s.qkv = Matrix<T>(x.rows, q_size + 2 * kv_size);
  set_columns(s.qkv, 0, linear_forward(x, p.q));
  set_columns(s.qkv, q_size, linear_forward(x, p.k));
  set_columns(s.qkv, q_size + kv_size, linear_forward(x, p.v));
  const Matrix<double> table = rope_table(c.rope_theta, batch.sequence_length, c.head_dim);
  rope_forward(s.qkv, c.heads + c.kv_heads, batch.positions(), table);
  s.attention = attention_forward(attention_shape(c, batch), s.qkv, batch.document_start);
  return linear_forward(s.attention.out, p.o);
}

template <typename T>
Matrix<T> self_attention_backward(const ReferenceConfig& c, const LayerParameters<T>& p, const Batch& batch,
                                  const SelfAttention<T>& s, const Matrix<T>& dy,
                                  LayerParameters<T>& gradients /* += */) {
  const Index q_size = Index(c.heads) * c.head_dim, kv_size = Index(c.kv_heads) * c.head_dim;
  const Matrix<T> dout = linear_backward(dy, s.attention.out, p.o, gradients.o);
  Matrix<T> dqkv = attention_backward(attention_shape(c, batch), s.qkv, batch.document_start, s.attention, dout);
  const Matrix<double> table = rope_table(c.rope_theta, batch.sequence_length, c.head_dim);
  rope_backward(dqkv, c.heads + c.kv_heads, batch.positions(), table);
  return add(add(linear_backward(columns(dqkv, 0, q_size), s.x, p.q, gradients.q),
                 linear_backward(columns(dqkv, q_size, kv_size), s.x, p.k, gradients.k)),
             linear_backward(columns(dqkv, q_size + kv_size, kv_size), s.x, p.v, gradients.v));
}

template <typename T>
struct LayerSaved {
  Matrix<T> x;  // input
  RmsNorm<T> input_norm;
  SelfAttention<T> self_attention;
  Matrix<T> middle;  // after the attention residual
  RmsNorm<T> post_norm;
  Matrix<double> noise;     // [T, D] what the router's input is multiplied by
  Matrix<T> router_input;   // [T, D]
  Matrix<T> router_logits;  // [T, E]
  Routing<T> routing;
  Routing<T> dispatched;  // the same without what is dropped
};

template <typename T>
Matrix<T> layer_forward(const ReferenceConfig& c, const LayerParameters<T>& p, const Matrix<T>& x, const Batch& batch,
                        LayerSaved<T>& s, Index layer = 0) {
  s.x = x;
  s.input_norm = rms_norm_forward(x, p.input_norm, c.eps);
  s.middle = add(x, self_attention_forward(c, p, s.input_norm.y, batch, s.self_attention));

  s.post_norm = rms_norm_forward(s.middle, p.post_norm, c.eps);
  s.noise = noise_factors({batch.noise_key, 0, layer, c.jitter}, x.rows, x.cols);
  s.router_input = apply_noise(s.post_norm.y, s.noise);
  s.router_logits = linear_forward(s.router_input, p.gate);
  s.routing = s.dispatched = router_forward(s.router_logits, c.top_k, c.rule, c.bias_of(layer));
  Matrix<double> probabilities;
  if (c.capacity_by_probability) {
    probabilities = Matrix<double>(s.routing.probabilities.rows, s.routing.probabilities.cols);
    std::transform(s.routing.probabilities.values.begin(), s.routing.probabilities.values.end(),
                   probabilities.values.begin(), [](const T& p) { return real_part(p); });
  }
  s.dispatched.experts = within_capacity(s.routing.experts, c.capacity(batch.sequence_length), probabilities);
  return add(s.middle, experts_forward(s.post_norm.y, s.dispatched, p.experts));
}

// balance_gradient [N, E] and z_scale: how this layer's probabilities and log-sum-exps enter the loss (router.h).
template <typename T>
Matrix<T> layer_backward(const ReferenceConfig& c, const LayerParameters<T>& p, const Batch& batch,
                         const LayerSaved<T>& s, const Matrix<T>& dy, const Matrix<T>& balance_gradient, double z_scale,
                         LayerParameters<T>& gradients /* += */) {
  const ExpertsGradients<T> moe = experts_backward(dy, s.post_norm.y, s.dispatched, p.experts, gradients.experts);
  const Matrix<T> dlogits =
      router_backward(s.router_logits, s.routing, moe.dweights, balance_gradient, z_scale, c.rule);
  const Matrix<T> drouter_input = linear_backward(dlogits, s.router_input, p.gate, gradients.gate);
  const Matrix<T> dpost = add(moe.dx, apply_noise(drouter_input, s.noise));
  const Matrix<T> dmiddle = rms_norm_backward(dpost, s.middle, p.post_norm, s.post_norm.rstd, dy, gradients.post_norm);

  const Matrix<T> dnormed = self_attention_backward(c, p, batch, s.self_attention, dmiddle, gradients);
  return rms_norm_backward(dnormed, s.x, p.input_norm, s.input_norm.rstd, dmiddle, gradients.input_norm);
}

}  // namespace smoe::reference
