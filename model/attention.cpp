#include "model/attention.h"

namespace smoe {

Attention::Attention(ParameterSet& parameters, const std::string& prefix, const ModelConfig& config, int layer)
    : heads_(config.num_attention_heads),
      kv_heads_(config.num_key_value_heads),
      head_dim_(config.head_size()),
      window_(config.sliding_window.value_or(0)),
      layer_(layer) {
  const std::int64_t hidden = config.hidden_size;
  const auto std = static_cast<float>(config.initializer_range);
  const auto add = [&](const char* name, std::int64_t out, std::int64_t in, bool follows) -> const Parameter& {
    return parameters.add({.name = prefix + name + ".weight", .shape = {out, in}, .replicas = Replicas::tensor_parallel,
                           .initial_std = std, .follows_previous = follows});
  };
  qkv_.first = &add("q_proj", heads_ * head_dim_, hidden, false);
  add("k_proj", kv_heads_ * head_dim_, hidden, true);
  add("v_proj", kv_heads_ * head_dim_, hidden, true);
  qkv_.shape = {(heads_ + 2 * kv_heads_) * head_dim_, hidden};
  out_ = &add("o_proj", hidden, heads_ * head_dim_, false);
}

AttentionShape Attention::shape(const TokenBatch& batch) const {
  return {batch.sequences, batch.sequence_length, heads_, kv_heads_, head_dim_, window_};
}

void Attention::forward(Context& context, const TokenBatch& batch, const Tensor& rope_table, const Tensor& x, KvCache* cache,
                        Saved& saved, const Tensor& y) const {
  Backend& backend = context.backend;
  const std::int64_t tokens = x.dim(0);
  saved.x = x;
  saved.qkv = context.activations.take({tokens, heads_ + 2 * kv_heads_, head_dim_});
  saved.out = context.activations.take({tokens, heads_, head_dim_});
  backend.gemm(Gemm::nt, x, qkv_.value(), saved.qkv.reshape({tokens, qkv_.shape[0]}), false);
  backend.rope_forward(saved.qkv, heads_ + kv_heads_, batch.positions, rope_table);
  if (cache) {
    const auto layer = static_cast<std::size_t>(layer_);
    backend.attention_cached(shape(batch), saved.qkv, cache->length, cache->keys[layer], cache->values[layer], saved.out);
  } else {
    saved.lse = context.activations.take({heads_, tokens});
    backend.attention_forward(shape(batch), saved.qkv, batch.document_start, saved.out, saved.lse);
  }
  backend.gemm(Gemm::nt, saved.out.reshape({tokens, heads_ * head_dim_}), out_->value, y, false);
}

void Attention::backward(Context& context, const TokenBatch& batch, const Tensor& rope_table, const Tensor& dy,
                         const Saved& saved, const Tensor& dx) const {
  Backend& backend = context.backend;
  const ArenaScope scope(context.scratch);
  const std::int64_t tokens = dy.dim(0);
  const Tensor out = saved.out.reshape({tokens, heads_ * head_dim_});
  const Tensor dout = context.scratch.take(out.shape());
  backend.gemm(Gemm::tn, dy, out, out_->gradient, true);
  backend.gemm(Gemm::nn, dy, out_->value, dout, false);

  const Tensor dqkv = context.scratch.take(saved.qkv.shape());
  backend.attention_backward(shape(batch), saved.qkv, batch.document_start, saved.out, saved.lse,
                             dout.reshape(saved.out.shape()), dqkv);
  backend.rope_backward(dqkv, heads_ + kv_heads_, batch.positions, rope_table);

  const Tensor dqkv_rows = dqkv.reshape({tokens, qkv_.shape[0]});
  backend.gemm(Gemm::tn, dqkv_rows, saved.x, qkv_.gradient(), true);
  backend.gemm(Gemm::nn, dqkv_rows, qkv_.value(), dx, false);
}

}  // namespace smoe
