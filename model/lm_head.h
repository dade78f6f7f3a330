// The output projection and its cross-entropy, fused over chunks of tokens: the T x V logits never exist whole.
// While a chunk's logits are in memory their gradient is taken too, so nothing is computed twice.
//
// With tensor parallelism each rank holds the logits of a run of the vocabulary for all T tokens. Of each token the
// ranks exchange three numbers (maximum, sum of exponentials, the target's logit), never logits.
#pragma once

#include "model/context.h"
#include "model/model_config.h"
#include "parallel/parameter.h"

namespace smoe {

class LmHead {
 public:
  LmHead(ParameterSet& parameters, const ModelConfig& config, const Mesh& mesh);

  // Each token's -log softmax(x W^T)[target], 0 where the target is negative: losses [T]. Their sum is added to total
  // [1] f64. x [T/tp,D], targets [T] i32. The same on every rank of a tp group.
  void loss(Context& context, const Tensor& x, const Tensor& targets, const Tensor& losses, const Tensor& total) const;
  // The same, and the gradient of scale * (that sum): dx [T/tp,D] is assigned, the weight's gradient accumulates.
  void loss_and_gradient(Context& context, const Tensor& x, const Tensor& targets, double scale, const Tensor& losses,
                         const Tensor& total, const Tensor& dx) const;
  // x [N,D] -> logits [N,V], for generation and inspection; tp = 1.
  void logits(Context& context, const Tensor& x, const Tensor& logits) const;

 private:
  void run(Context& context, const Tensor& x, const Tensor& targets, const double* scale, const Tensor& losses, const Tensor& total,
           const Tensor& dx) const;

  const Parameter& weight_;  // [V,D], rows split over tp
  std::int64_t largest_slice_;
};

}  // namespace smoe
