// The whole model (Mixtral of Experts, arXiv 2401.04088): embedding, decoder layers, final norm, LM head.
//
// A training micro-batch is four calls, because the balance losses need every rank's routing before backward starts:
//   forward -> loss_and_gradient -> (BalanceLoss::add_micro_batch) -> backward
// Where the loss is another than the mean cross-entropy, head_gradient stands in place of loss_and_gradient.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/balance_loss.h"
#include "model/context.h"
#include "model/decoder_layer.h"
#include "model/embedding.h"
#include "model/lm_head.h"
#include "model/model_config.h"
#include "model/recompute.h"
#include "model/routing_options.h"
#include "parallel/gradient_reducer.h"
#include "parallel/parameter.h"

namespace smoe {

class Mixtral {
 public:
  // What forward leaves for the calls after it.
  struct Saved {
    Keep keep = Keep::all;                    // what the forward was told
    std::vector<Tensor> inputs;               // [L] x of each layer, [T/tp,D]; empty tensors where nothing is kept
    std::vector<DecoderLayer::Saved> layers;  // unless all is kept, only that of the last one run is valid
    RmsNorm::Saved norm;
    Tensor hidden;          // [T/tp,D] after the final norm: what the LM head reads
    Tensor dhidden;         // its gradient, from the head; empty where nothing below the head is trained
    Tensor losses;          // [T] each target's cross-entropy, 0 where masked; the same on every rank of a tp group
    Tensor uniform_losses;  // [T] of each target the mean of -log p over the vocabulary (LmHead); empty: not smoothed
    BalanceLoss::Statistics statistics;
    Tensor choices;  // [L,T/tp,K] i32: the experts that tokens chose; empty: not wanted
  };

  // Parameters are declared here and get memory in allocate(). The mesh outlives the model. frozen: patterns of the names of
  // those that are not trained (model/freeze.h). type: f32 or bf16, of the weights and, with them, of activations, their
  // gradients and key-value caches. In f32 whatever it is: routing from the logits on, norm and softmax statistics, losses,
  // the gradients of weights. lora: the adapters beside the weights, read here alone; then nothing but they is trained.
  Mixtral(const ModelConfig& config, const Mesh& mesh, const std::vector<std::string>& frozen = {},
          const RoutingOptions& routing = {}, DType type = DType::f32, const LoraConfig* lora = nullptr);
  ~Mixtral();
  Mixtral(const Mixtral&) = delete;
  Mixtral& operator=(const Mixtral&) = delete;

  const ModelConfig& config() const { return config_; }
  DType type() const { return type_; }
  bool has_capacity() const { return has_capacity_; }  // dropless: false
  ParameterSet& parameters() { return parameters_; }
  const ParameterSet& parameters() const { return parameters_; }

  // positions: the longest sequence that forward will see. persistent and the backend outlive the model. The mesh's groups are
  // told of the backend until then.
  void allocate(Backend& backend, Arena& persistent, std::int64_t positions, bool with_gradients);

  // [L,E], one row a router (Router::use_selection_bias), which outlives the model; empty: none.
  void use_selection_bias(const Tensor& biases);

  // Whole sequences. Statistics of the routers are collected where saved.statistics has been given tensors, and their choices
  // where saved.choices is one.
  // reducer: given where weights may still be on their way; it is told which are about to be read.
  void forward(Context& context, const TokenBatch& batch, Keep keep, Saved& saved, GradientReducer* reducer = nullptr);
  // Inference: one sequence goes on behind what the cache holds, and is added to it. Nothing is kept for a backward.
  void forward_cached(Context& context, const TokenBatch& batch, KvCache& cache, Saved& saved);
  // Each target's cross-entropy, in saved.losses.
  void losses(Context& context, const TokenBatch& batch, Saved& saved);
  // Their sum over the micro-batch is added to total [1] f64 (kernels/device_sums.h).
  void loss(Context& context, const TokenBatch& batch, Saved& saved, const Tensor& total);
  // The same, and the gradient of scale * sum with respect to hidden and to the LM head.
  void loss_and_gradient(Context& context, const TokenBatch& batch, double scale, Saved& saved, const Tensor& total);
  // That of scale * sum_t token_scales[t] * losses[t]; token_scales [T], empty: 1. Gives the losses as well. With
  // label_smoothing e > 0 that of (1 - e) losses + e uniform_losses in place of losses, and gives both.
  void head_gradient(Context& context, const TokenBatch& batch, double scale, const Tensor& token_scales, Saved& saved,
                     double label_smoothing = 0);
  // Ends at the lowest layer that has something to train: below it no gradient is wanted.
  // reducer: given on the step's last micro-batch, it is told which gradients are complete as backward goes on.
  void backward(Context& context, const TokenBatch& batch, const std::vector<RouterGradient>& router_gradients,
                Saved& saved, GradientReducer* reducer = nullptr);

  // Rows of saved.hidden -> logits [N,V].
  void logits(Context& context, const Tensor& hidden, const Tensor& logits) const {
    head_.logits(context, hidden, logits);
  }
  KvCache make_cache(Arena& arena, std::int64_t capacity) const;

 private:
  // The set is in the order of forward: nothing before this parameter is trained, on any rank.
  std::size_t first_trained() const;
  // cache: null for whole sequences.
  void run_layers(Context& context, const TokenBatch& batch, Keep keep, KvCache* cache, Saved& saved,
                  GradientReducer* reducer);

  ModelConfig config_;
  DType type_;
  bool has_capacity_;
  ParameterSet parameters_;
  const Mesh& mesh_;
  Backend* backend_ = nullptr;  // since allocate()
  Embedding embedding_;
  std::vector<std::size_t>
      layer_parameters_;  // [L + 1] index of each layer's first parameter, and of the norm's behind them
  std::vector<std::unique_ptr<DecoderLayer>> layers_;
  RmsNorm norm_;
  LmHead head_;
  Tensor rope_table_;  // [positions, C]
};

// A model's parameters and nothing else, without memory: their names, shapes, and what a rank of the mesh holds of them.
ParameterSet declare_parameters(const ModelConfig& config, const Mesh& mesh,
                                const std::vector<std::string>& frozen = {}, DType type = DType::f32,
                                const LoraConfig* lora = nullptr);

// Floating-point operations of one token's forward, counting a multiply-add as two. Attention scores are counted causal
// (half of S x S); norms, softmax and activations are not counted.
double forward_flops_per_token(const ModelConfig& config, std::int64_t sequence_length);
// Those of forward and backward: three times that. Beside adapters weights have no gradient, which leaves two thirds of their
// products; the adapters' own are not counted.
double training_flops_per_token(const ModelConfig& config, std::int64_t sequence_length, bool adapters);

}  // namespace smoe
