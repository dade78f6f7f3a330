// Causal grouped-query self-attention with rotary positions (Mixtral: arXiv 2401.04088; GQA: 2305.13245).
// The q, k and v projections lie one behind the other in memory, so that one product makes all three.
//
// With tensor parallelism (Megatron-LM: arXiv 1909.08053) each rank computes H/tp query heads and G/tp key-value heads
// for all T tokens: q, k and v are split by rows, o by columns. Input and output are the rank's own T/tp tokens. G must
// be a multiple of tp: key-value heads are not replicated.
#pragma once

#include <string>

#include "model/context.h"
#include "model/linear.h"
#include "model/model_config.h"
#include "parallel/parameter.h"

namespace smoe {

class Attention {
 public:
  struct Saved {
    Tensor x;    // [T,D] the (normed) input, of all tokens
    Tensor qkv;  // [T, H + 2G, C] of the own heads, q and k rotated
    Tensor out;  // [T, H, C] before the output projection
    Tensor lse;  // [H, T]
  };

  // rope_table [P, C] is filled before the first forward, with room for every position that will be asked for.
  Attention(ParameterSet& parameters, const std::string& prefix, const ModelConfig& config, const Mesh& mesh, int layer,
            const LoraConfig* lora = nullptr);

  bool trained() const { return qkv_.trained() || out_.trained(); }

  // x [T/tp,D] -> y [T/tp,D]. With a cache: one sequence, appended to it, nothing saved for a backward.
  void forward(Context& context, const TokenBatch& batch, const Tensor& rope_table, const Tensor& x, KvCache* cache,
               Saved& saved, const Tensor& y) const;
  // dx [T/tp,D] is assigned; empty: not wanted, on any rank of the tp group.
  void backward(Context& context, const TokenBatch& batch, const Tensor& rope_table, const Tensor& dy,
                const Saved& saved, const Tensor& dx) const;

 private:
  AttentionShape shape(const TokenBatch& batch) const;

  std::int64_t heads_, kv_heads_, head_dim_, window_;  // heads of this rank
  int layer_;
  Linear qkv_;  // [(H + 2G) C, D]
  Linear out_;  // [D, H C]
};

}  // namespace smoe
