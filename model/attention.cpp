#include "model/attention.h"

#include <stdexcept>

#include "parallel/token_split.h"

namespace smoe {

Attention::Attention(ParameterSet& parameters, const std::string& prefix, const ModelConfig& config, const Mesh& mesh, int layer)
    : heads_(config.num_attention_heads / mesh.size(Axis::tp)),
      kv_heads_(config.num_key_value_heads / mesh.size(Axis::tp)),
      head_dim_(config.head_size()),
      window_(config.sliding_window.value_or(0)),
      layer_(layer) {
  const std::int64_t hidden = config.hidden_size, ranks = mesh.size(Axis::tp), rank = mesh.rank(Axis::tp);
  if (kv_heads_ * ranks != config.num_key_value_heads || heads_ * ranks != config.num_attention_heads)
    throw std::logic_error("attention heads and key-value heads must be multiples of tp");
  const auto std = static_cast<float>(config.initializer_range);
  const auto add_rows = [&](const char* name, std::int64_t own_rows, bool follows) -> const Parameter& {
    return parameters.add({.name = prefix + name + ".weight", .shape = {own_rows * ranks, hidden}, .first = {own_rows * rank, 0},
                           .slice = {own_rows, hidden}, .replicas = Replicas::tensor_parallel, .initial_std = std, .follows_previous = follows});
  };
  qkv_.first = &add_rows("q_proj", heads_ * head_dim_, false);
  add_rows("k_proj", kv_heads_ * head_dim_, true);
  add_rows("v_proj", kv_heads_ * head_dim_, true);
  qkv_.shape = {(heads_ + 2 * kv_heads_) * head_dim_, hidden};
  const std::int64_t own_columns = heads_ * head_dim_;
  out_ = &parameters.add({.name = prefix + "o_proj.weight", .shape = {hidden, own_columns * ranks}, .first = {0, own_columns * rank},
                          .slice = {hidden, own_columns}, .replicas = Replicas::tensor_parallel, .initial_std = std});
}

AttentionShape Attention::shape(const TokenBatch& batch) const {
  return {batch.sequences, batch.sequence_length, heads_, kv_heads_, head_dim_, window_};
}

void Attention::forward(Context& context, const TokenBatch& batch, const Tensor& rope_table, const Tensor& x, KvCache* cache,
                        Saved& saved, const Tensor& y) const {
  Backend& backend = context.backend;
  const TokenSplit split(context.mesh);
  saved.x = split.gather(context.activations, x, "attention.gather");
  const std::int64_t tokens = saved.x.dim(0);
  saved.qkv = context.activations.take({tokens, heads_ + 2 * kv_heads_, head_dim_});
  saved.out = context.activations.take({tokens, heads_, head_dim_});
  backend.gemm(Gemm::nt, saved.x, qkv_.value(), saved.qkv.reshape({tokens, qkv_.shape[0]}), Write::assign);
  backend.rope_forward(saved.qkv, heads_ + kv_heads_, batch.positions, rope_table);
  if (cache) {
    const auto layer = static_cast<std::size_t>(layer_);
    backend.attention_cached(shape(batch), saved.qkv, cache->length, cache->keys[layer], cache->values[layer], saved.out);
  } else {
    saved.lse = context.activations.take({heads_, tokens});
    backend.attention_forward(shape(batch), saved.qkv, batch.document_start, saved.out, saved.lse);
  }
  const ArenaScope scope(context.scratch);
  const Tensor term = split.term(context.scratch, y);
  backend.gemm(Gemm::nt, saved.out.reshape({tokens, heads_ * head_dim_}), out_->value, term, Write::assign);
  split.sum_back(term, y, "attention.sum");
}

void Attention::backward(Context& context, const TokenBatch& batch, const Tensor& rope_table, const Tensor& dy,
                         const Saved& saved, const Tensor& dx) const {
  Backend& backend = context.backend;
  const TokenSplit split(context.mesh);
  const ArenaScope scope(context.scratch);
  const Tensor dy_all = split.gather(context.scratch, dy, "attention.gather_gradient");
  const std::int64_t tokens = dy_all.dim(0);
  const Tensor out = saved.out.reshape({tokens, heads_ * head_dim_});
  const Tensor dout = context.scratch.take(out.shape());
  backend.gemm(Gemm::tn, dy_all, out, out_->gradient, Write::add);
  backend.gemm(Gemm::nn, dy_all, out_->value, dout, Write::assign);

  const Tensor dqkv = context.scratch.take(saved.qkv.shape());
  backend.attention_backward(shape(batch), saved.qkv, batch.document_start, saved.out, saved.lse,
                             dout.reshape(saved.out.shape()), dqkv);
  backend.rope_backward(dqkv, heads_ + kv_heads_, batch.positions, rope_table);

  const Tensor dqkv_rows = dqkv.reshape({tokens, qkv_.shape[0]});
  backend.gemm(Gemm::tn, dqkv_rows, saved.x, qkv_.gradient(), Write::add);
  const Tensor term = split.term(context.scratch, dx);
  backend.gemm(Gemm::nn, dqkv_rows, qkv_.value(), term, Write::assign);
  split.sum_back(term, dx, "attention.sum_gradient");
}

}  // namespace smoe
