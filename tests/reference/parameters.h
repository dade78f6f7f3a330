// Shape and parameters of the reference Mixtral, by the tensors of a Hugging Face directory.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "tests/reference/dispatch.h"
#include "tests/reference/experts.h"

namespace smoe::reference {

struct ReferenceConfig {
  int vocab = 11, hidden = 8, ffn = 6, layers = 2;
  int heads = 4, kv_heads = 1, head_dim = 2;  // query head h reads key-value head h / (heads / kv_heads)
  int experts = 4, top_k = 2;
  double rope_theta = 1e6, eps = 1e-5;
  int window = 0;  // query i sees key j only where i - j < window; 0: no window
  double aux_coef = 0;
  std::vector<double> aux_coefs{};  // [layers] in its place; not in the hf scope
  BalanceScope scope = BalanceScope::micro_batch;
  double z_coef = 0;
  RoutingRule rule{};
  std::vector<double> selection_bias{};  // [layers * experts]; empty: none
  double capacity_factor = 0;            // an expert takes ceil(factor * K * S / E) assignments of a sequence; 0: all
  bool capacity_by_probability = false;  // the most probable ones, else the first
  double jitter = 0;                     // the router's input times 1 + jitter * u, u uniform in [-1, 1)
  double label_smoothing = 0;            // share of the loss that is to the uniform distribution (cross_entropy.h)
  double neftune_alpha = 0;              // noise on embeddings (noise.h)

  double aux_coef_of(Index layer) const { return aux_coefs.empty() ? aux_coef : aux_coefs[layer]; }
  std::vector<double> bias_of(Index layer) const {
    if (selection_bias.empty()) return {};
    return {selection_bias.begin() + layer * experts, selection_bias.begin() + (layer + 1) * experts};
  }
  Capacity capacity(Index sequence_length) const {
    return {static_cast<Index>(std::ceil(capacity_factor * double(top_k * sequence_length) / double(experts))),
            sequence_length};
  }
};

template <typename T>
struct LayerParameters {
  std::vector<T> input_norm;  // [D]
  Matrix<T> q, k, v, o;       // [H*C, D], [G*C, D], [G*C, D], [D, H*C]
  std::vector<T> post_norm;   // [D]
  Matrix<T> gate;             // [E, D]
  std::vector<ExpertParameters<T>> experts;
};

template <typename T>
struct Parameters {
  Matrix<T> embed;  // [V, D]
  std::vector<LayerParameters<T>> layers;
  std::vector<T> norm;  // [D]
  Matrix<T> lm_head;    // [V, D]
};

// All zero: gradients to accumulate into, or weights to fill.
template <typename T>
Parameters<T> make_parameters(const ReferenceConfig& c) {
  Parameters<T> p;
  const Index D = c.hidden, F = c.ffn, q_size = Index(c.heads) * c.head_dim, kv_size = Index(c.kv_heads) * c.head_dim;
  p.embed = Matrix<T>(c.vocab, D);
  LayerParameters<T> layer;
  layer.input_norm = layer.post_norm = std::vector<T>(D);
  layer.q = Matrix<T>(q_size, D);
  layer.k = layer.v = Matrix<T>(kv_size, D);
  layer.o = Matrix<T>(D, q_size);
  layer.gate = Matrix<T>(c.experts, D);
  layer.experts.assign(c.experts, {Matrix<T>(F, D), Matrix<T>(D, F), Matrix<T>(F, D)});
  p.layers.assign(c.layers, layer);
  p.norm = std::vector<T>(D);
  p.lm_head = Matrix<T>(c.vocab, D);
  return p;
}

// fn(HF name, shape, values) for every tensor, in one fixed order. P: Parameters<T> or const Parameters<T>.
template <typename P, typename Fn>
void visit_parameters(P& parameters, Fn fn) {
  auto vector = [&](const std::string& name, auto& values) {
    fn(name, std::vector<Index>{static_cast<Index>(values.size())}, values);
  };
  auto matrix = [&](const std::string& name, auto& m) { fn(name, std::vector<Index>{m.rows, m.cols}, m.values); };
  matrix("model.embed_tokens.weight", parameters.embed);
  for (std::size_t n = 0; n < parameters.layers.size(); ++n) {
    auto& layer = parameters.layers[n];
    const std::string prefix = "model.layers." + std::to_string(n) + ".";
    vector(prefix + "input_layernorm.weight", layer.input_norm);
    matrix(prefix + "self_attn.q_proj.weight", layer.q);
    matrix(prefix + "self_attn.k_proj.weight", layer.k);
    matrix(prefix + "self_attn.v_proj.weight", layer.v);
    matrix(prefix + "self_attn.o_proj.weight", layer.o);
    vector(prefix + "post_attention_layernorm.weight", layer.post_norm);
    matrix(prefix + "block_sparse_moe.gate.weight", layer.gate);
    for (std::size_t e = 0; e < layer.experts.size(); ++e) {
      const std::string expert = prefix + "block_sparse_moe.experts." + std::to_string(e) + ".";
      matrix(expert + "w1.weight", layer.experts[e].w1);
      matrix(expert + "w2.weight", layer.experts[e].w2);
      matrix(expert + "w3.weight", layer.experts[e].w3);
    }
  }
  vector("model.norm.weight", parameters.norm);
  matrix("lm_head.weight", parameters.lm_head);
}

// The same weights in another number type.
template <typename To, typename From>
Parameters<To> cast(const ReferenceConfig& config, const Parameters<From>& from) {
  std::vector<const std::vector<From>*> sources;
  visit_parameters(from, [&](const std::string&, const std::vector<Index>&, const std::vector<From>& values) {
    sources.push_back(&values);
  });
  Parameters<To> to = make_parameters<To>(config);
  std::size_t next = 0;
  visit_parameters(to, [&](const std::string&, const std::vector<Index>&, std::vector<To>& values) {
    values = cast<To>(*sources[next++]);
  });
  return to;
}

}  // namespace smoe::reference
