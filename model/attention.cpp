#include "model/attention.h"

#include <stdexcept>

#include "kernels/range.h"
#include "parallel/token_split.h"

namespace smoe {
namespace {

// The projections to and from heads: each rank of a tp group has the rows, or the columns, of its own.
Parameter to_heads(const std::string& name, std::int64_t heads, const ModelConfig& config, const Mesh& mesh) {
  const std::int64_t hidden = config.hidden_size, ranks = mesh.size(Axis::tp), own = heads / ranks * config.head_size();
  return {.name = name,
          .shape = {own * ranks, hidden},
          .first = {own * mesh.rank(Axis::tp), 0},
          .slice = {own, hidden},
          .split = Split::tp,
          .initial_std = static_cast<float>(config.initializer_range)};
}
Parameter from_heads(const std::string& name, std::int64_t heads, const ModelConfig& config, const Mesh& mesh) {
  const std::int64_t hidden = config.hidden_size, ranks = mesh.size(Axis::tp), own = heads / ranks * config.head_size();
  return {.name = name,
          .shape = {hidden, own * ranks},
          .first = {0, own * mesh.rank(Axis::tp)},
          .slice = {hidden, own},
          .split = Split::tp,
          .initial_std = static_cast<float>(config.initializer_range)};
}

// [T, heads, C] as the [T, heads C] of a product.
Tensor merge_heads(const Tensor& heads) { return heads.reshape({heads.dim(0), heads.dim(1) * heads.dim(2)}); }

// All tokens of the micro-batch are here.
RowNumbers numbers_of(const TokenBatch& batch) {
  if (!batch.noise) return {};
  return {batch.noise->key, batch.noise->first_token};
}

}  // namespace

Attention::Attention(ParameterSet& parameters, const std::string& prefix, const ModelConfig& config, const Mesh& mesh,
                     int layer, const LoraConfig* lora)
    : heads_(config.num_attention_heads / mesh.size(Axis::tp)),
      kv_heads_(config.num_key_value_heads / mesh.size(Axis::tp)),
      head_dim_(config.head_size()),
      window_(config.sliding_window.value_or(0)),
      layer_(layer),
      qkv_(parameters,
           {to_heads(prefix + "q_proj.weight", config.num_attention_heads, config, mesh),
            to_heads(prefix + "k_proj.weight", config.num_key_value_heads, config, mesh),
            to_heads(prefix + "v_proj.weight", config.num_key_value_heads, config, mesh)},
           {lora, layer, AdapterSite::Input::attention}),
      out_(parameters, {from_heads(prefix + "o_proj.weight", config.num_attention_heads, config, mesh)},
           {lora, layer, AdapterSite::Input::heads}) {
  const std::int64_t ranks = mesh.size(Axis::tp);
  if (kv_heads_ * ranks != config.num_key_value_heads || heads_ * ranks != config.num_attention_heads)
    throw std::logic_error("attention heads and key-value heads must be multiples of tp");
}

AttentionShape Attention::shape(const TokenBatch& batch) const {
  return {batch.sequences, batch.sequence_length, heads_, kv_heads_, head_dim_, window_};
}

void Attention::forward(Context& context, const TokenBatch& batch, const Tensor& rope_table, const Tensor& x,
                        KvCache* cache, Saved& saved, const Tensor& y) const {
  Backend& backend = context.backend;
  const Range range(backend, "attention");
  const TokenSplit split(context.mesh);
  saved.x = split.gather(context.activations, x, "attention.gather");
  const std::int64_t tokens = saved.x.dim(0);
  saved.qkv = context.activations.take(x.type(), {tokens, heads_ + 2 * kv_heads_, head_dim_});
  saved.out = context.activations.take(x.type(), {tokens, heads_, head_dim_});
  qkv_.forward(context, saved.x, merge_heads(saved.qkv), numbers_of(batch));
  backend.rope_forward(saved.qkv, heads_ + kv_heads_, batch.positions, rope_table);
  if (cache) {
    const auto layer = static_cast<std::size_t>(layer_);
    backend.attention_cached(shape(batch), saved.qkv, cache->length, cache->keys[layer], cache->values[layer],
                             saved.out);
  } else {
    saved.lse = context.activations.take({heads_, tokens});
    backend.attention_forward(shape(batch), saved.qkv, batch.document_start, saved.out, saved.lse);
  }
  const ArenaScope scope(context.scratch);
  const Tensor term = split.term(context.scratch, y);
  out_.forward(context, merge_heads(saved.out), term, numbers_of(batch));
  split.sum_back(term, y, "attention.sum");
}

void Attention::backward(Context& context, const TokenBatch& batch, const Tensor& rope_table, const Tensor& dy,
                         const Saved& saved, const Tensor& dx) const {
  Backend& backend = context.backend;
  const Range range(backend, "attention");
  const TokenSplit split(context.mesh);
  const ArenaScope scope(context.scratch);
  const Tensor dy_all = split.gather(context.scratch, dy, "attention.gather_gradient");
  const Tensor dout = context.scratch.take_like(saved.out);
  out_.backward(context, dy_all, merge_heads(saved.out), merge_heads(dout), Write::assign, numbers_of(batch));

  const Tensor dqkv = context.scratch.take_like(saved.qkv);
  backend.attention_backward(shape(batch), saved.qkv, batch.document_start, saved.out, saved.lse, dout, dqkv);
  backend.rope_backward(dqkv, heads_ + kv_heads_, batch.positions, rope_table);

  const Tensor term = dx.empty() ? dx : split.term(context.scratch, dx);
  qkv_.backward(context, merge_heads(dqkv), saved.x, term, Write::assign, numbers_of(batch));
  if (!dx.empty()) split.sum_back(term, dx, "attention.sum_gradient");
}

}  // namespace smoe
