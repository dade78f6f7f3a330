// The output projection and its cross-entropy, fused over chunks of tokens: the T x V logits never exist whole.
// While a chunk's logits are in memory their gradient is taken too, so nothing is computed twice.
//
// With tensor parallelism each rank holds the logits of a run of the vocabulary for all T tokens. Of each token the
// ranks exchange three numbers (maximum, sum of exponentials, the target's logit), with smoothed labels a fourth (the sum
// of the logits), never logits.
#pragma once

#include "model/context.h"
#include "model/linear.h"
#include "model/model_config.h"
#include "parallel/parameter.h"

namespace smoe {

class LmHead {
 public:
  LmHead(ParameterSet& parameters, const ModelConfig& config, const Mesh& mesh);

  // losses [T]: of each token -log softmax(x W^T)[target], 0 where it is masked (a negative target). The same on every rank
  // of a tp group. x [T/tp,D], targets [T] i32.
  void losses(Context& context, const Tensor& x, const Tensor& targets, const Tensor& losses) const;
  // The same, and the gradient of scale * sum_t token_scales[t] * losses[t]: the weight's accumulates, dx [T/tp,D] is
  // assigned. token_scales [T]; empty: 1. dx may be empty: not wanted, on any rank of the tp group.
  void losses_and_gradient(Context& context, const Tensor& x, const Tensor& targets, double scale,
                           const Tensor& token_scales, const Tensor& losses, const Tensor& dx) const {
    losses_and_gradient(context, x, targets, scale, token_scales, 0.0, losses, {}, dx);
  }
  // With smoothed labels, e = label_smoothing > 0: the gradient is that of (1 - e) losses[t] + e uniform_losses[t], of
  // each token the mean over the vocabulary of -log softmax(x W^T), 0 where it is masked. uniform_losses [T]; empty where e is 0.
  void losses_and_gradient(Context& context, const Tensor& x, const Tensor& targets, double scale,
                           const Tensor& token_scales, double label_smoothing, const Tensor& losses,
                           const Tensor& uniform_losses, const Tensor& dx) const;
  // x [N,D] -> logits [N,V], for generation and inspection; tp = 1.
  void logits(Context& context, const Tensor& x, const Tensor& logits) const;

 private:
  // Of a chunk of tokens, in scratch memory.
  struct Logits {
    Tensor values;     // [n,Vl] of this rank's part of the vocabulary
    Tensor logsumexp;  // [n] over all of it
  };
  Logits forward(Context& context, const Tensor& x, const Tensor& targets, const Tensor& losses,
                 const Tensor& uniform_losses) const;
  std::int64_t first_column() const { return projection_.first_matrix().first[0]; }

  Linear projection_;  // [V,D], rows split over tp
  std::int64_t vocabulary_;
  std::int64_t largest_slice_;
};

// Bytes of scratch that a chunk of so many tokens' logits, and in bf16 of their gradients, takes of one rank's part of the vocabulary.
std::int64_t lm_head_scratch_bytes(Device device, DType type, std::int64_t tokens, std::int64_t vocabulary);

}  // namespace smoe
