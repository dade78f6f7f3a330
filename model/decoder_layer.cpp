#include "model/decoder_layer.h"

#include "parallel/token_split.h"

namespace smoe {
namespace {
std::string layer_prefix(int layer) { return "model.layers." + std::to_string(layer) + "."; }
}  // namespace

DecoderLayer::DecoderLayer(ParameterSet& parameters, const ModelConfig& config, const RoutingOptions& routing,
                           const Mesh& mesh, int layer, const LoraConfig* lora)
    : routing_(routing),
      experts_in_all_(config.num_local_experts),
      experts_per_token_(config.num_experts_per_tok),
      input_norm_(parameters, layer_prefix(layer) + "input_layernorm.weight", config.hidden_size, config.rms_norm_eps),
      attention_(parameters, layer_prefix(layer) + "self_attn.", config, mesh, layer, lora),
      post_attention_norm_(parameters, layer_prefix(layer) + "post_attention_layernorm.weight", config.hidden_size,
                           config.rms_norm_eps),
      router_(parameters, layer_prefix(layer) + "block_sparse_moe.", config, routing, layer, lora),
      dispatcher_(mesh, config.num_local_experts, config.num_experts_per_tok),
      experts_(parameters, layer_prefix(layer) + "block_sparse_moe.", config, dispatcher_.first_expert(),
               dispatcher_.local_experts(), lora, layer) {}

Capacity DecoderLayer::capacity(const Context& context, const TokenBatch& batch) const {
  if (batch.dropless) return {};
  return routing_.capacity(experts_in_all_, experts_per_token_,
                           TokenSplit(context.mesh).run(batch.sequences, batch.sequence_length));
}

void DecoderLayer::forward(Context& context, const TokenBatch& batch, const Tensor& rope_table, const Tensor& x,
                           KvCache* cache, Saved& saved, const RouterStatistics& statistics, const Tensor& y) {
  Backend& backend = context.backend;
  const ArenaScope scope(context.scratch);

  const Tensor normed = input_norm_.forward(context, x, saved.input_norm);
  const Tensor mid = context.activations.take_like(x);
  attention_.forward(context, batch, rope_table, normed, cache, saved.attention, mid);
  backend.add(x, mid, mid);

  const Tensor expert_input = post_attention_norm_.forward(context, mid, saved.post_attention_norm);
  router_.forward(context, batch, expert_input, saved.router, statistics);
  const Tensor rows = dispatcher_.dispatch(
      backend, context.activations, context.scratch, expert_input, saved.router.experts, saved.router.weights,
      saved.dispatched, capacity(context, batch), saved.router.probabilities, batch.has_padding(), batch.assignments);
  const Tensor expert_output = context.scratch.take_like(rows);
  RowNumbers numbers;
  if (batch.noise && !batch.assignments.empty()) numbers = {batch.noise->key, 0, saved.dispatched.row_numbers};
  experts_.forward(context, rows, saved.dispatched.row_weights, saved.dispatched.rows, numbers, saved.experts,
                   expert_output);
  dispatcher_.combine(backend, context.scratch, expert_output, saved.dispatched, mid, y);
}

void DecoderLayer::backward(Context& context, const TokenBatch& batch, const Tensor& rope_table,
                            const RouterGradient& router_gradient, Saved& saved, const Tensor& dy_then_dx,
                            bool wants_dx) {
  Backend& backend = context.backend;
  const ArenaScope scope(context.scratch);
  Arena& scratch = context.scratch;
  const Tensor& residual = dy_then_dx;  // holds the gradient of y, then of mid, then of x

  const Tensor drows = scratch.take_like(saved.experts.x);
  const Tensor drow_weights = scratch.take_like(saved.dispatched.row_weights);
  dispatcher_.combine_backward(backend, scratch, residual, saved.dispatched, drows);
  experts_.backward(context, drows, saved.experts, drow_weights);

  const Tensor dnormed = scratch.take_like(residual);
  const Tensor dweights = scratch.take_like(saved.router.weights);
  dispatcher_.dispatch_backward(backend, scratch, drows, drow_weights, saved.dispatched, dnormed, dweights);
  router_.backward(context, dweights, router_gradient, saved.router, dnormed);
  post_attention_norm_.backward(context, dnormed, saved.post_attention_norm, residual, residual);

  const bool wants_dnormed = wants_dx || input_norm_.trained();
  if (!wants_dnormed && !attention_.trained()) return;
  attention_.backward(context, batch, rope_table, residual, saved.attention, wants_dnormed ? dnormed : Tensor{});
  if (wants_dnormed) input_norm_.backward(context, dnormed, saved.input_norm, residual, residual);
}

}  // namespace smoe
