// The router: fp32 scores of all experts, the K largest (lowest index wins a tie), and their weights, by the rule of
// kernels/routing.h. Mixtral's is softmax, renormalised to sum to one: the language-model loss gives exactly zero gradient
// to logits that were not chosen; only the balance and z losses reach those. With K = 1 the one weight is always 1, so only
// they train the router at all.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "model/context.h"
#include "model/linear.h"
#include "model/model_config.h"
#include "model/routing_options.h"
#include "parallel/parameter.h"

namespace smoe {

// What one layer's router tells of a micro-batch: sums over N runs of this rank's tokens (balance_loss.h), which are its
// sequences where tp = 1.
struct RouterStatistics {
  Tensor counts;            // [N,E] assignments
  Tensor probability_sums;  // [N,E]
  Tensor z_sums;            // [N] sum of logsumexp^2
  Tensor measures{};        // [3] f64 +=, of Backend::router_measures; empty: not wanted
};

// What the losses on the router send back into one layer.
struct RouterGradient {
  Tensor balance;  // [N or 1, E]: dL/dprobability of every token of a run, up to a number for all experts; empty: none
  double z_scale = 0;  // dL/d(sum of logsumexp^2)
  // [3,E,D] f32 +=: the gate's gradient of the language-model loss, of the balance loss and of the z loss, each alone. Empty: not
  // wanted.
  Tensor gate_parts{};
};

class Router {
 public:
  struct Saved {
    Tensor x;  // [T,D] with its noise
    std::optional<TokenNoise> noise;
    RowNumbers numbers;    // of the tokens
    Tensor logits;         // [T,E]
    Tensor probabilities;  // [T,E]
    Tensor logsumexp;      // [T]
    Tensor experts;        // [T,K] i32, best first
    Tensor weights;        // [T,K]
  };

  Router(ParameterSet& parameters, const std::string& prefix, const ModelConfig& config, const RoutingOptions& options,
         int layer, const LoraConfig* lora = nullptr);

  // [E], added to the scores where experts are chosen and to no weight, so that it has no gradient (arXiv 2408.15664);
  // empty: none. The tensor is read by every forward, its owner may write to it between steps.
  void use_selection_bias(const Tensor& bias) { selection_bias_ = bias; }

  void forward(Context& context, const TokenBatch& batch, const Tensor& x, Saved& saved,
               const RouterStatistics& statistics) const;
  // dx [T,D] accumulates: the experts' gradient for the same input is already there.
  void backward(Context& context, const Tensor& dweights, const RouterGradient& gradient, const Saved& saved,
                const Tensor& dx) const;

 private:
  void add_gate_parts(Context& context, const Tensor& dweights, const RouterGradient& gradient, const Saved& saved,
                      DType type) const;

  std::int64_t experts_, experts_per_token_;
  RoutingRule rule_;
  float jitter_;
  int layer_;
  Tensor selection_bias_;
  Linear gate_;  // [E,D]
};

}  // namespace smoe
