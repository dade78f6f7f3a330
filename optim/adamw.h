// AdamW (Loshchilov & Hutter 2019) over the flat buffers of a ParameterSet:
//   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,
//   w = w - lr * decay * w - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
// The clip factor is folded into the one pass over memory, and the gradient is left zero for the next step.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/arena.h"
#include "optim/optimizer_config.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"

namespace smoe {

class AdamW {
 public:
  // Moments are taken from `persistent` and start at zero. The set must have been allocated with gradients.
  AdamW(Backend& backend, Arena& persistent, ParameterSet& parameters, const OptimizerConfig& config);

  // The norm of the whole model's gradient, each logical parameter counted once.
  double gradient_norm(const Mesh& mesh);
  // 1, or what shrinks the norm to max_grad_norm: min(1, max / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ does.
  double clip_factor(double norm) const;
  // updates: how many updates have been made, this one included; it is t in the bias corrections.
  void step(std::int64_t updates, double learning_rate, double gradient_scale);
  // For a step that is refused: the gradients are dropped, nothing else changes.
  void clear_gradients();

  // Moments of one parameter's slice, for checkpoints: same shape as its value.
  Tensor first_moment(const Parameter& parameter) const;
  Tensor second_moment(const Parameter& parameter) const;

 private:
  struct Run {  // neighbours in a flat buffer that are treated alike
    Tensor value, gradient, first, second;
    double weight_decay;
  };
  struct Moments {
    Tensor values, first, second;
  };
  Tensor moment(const Parameter& parameter, Tensor Moments::*which) const;

  Backend& backend_;
  ParameterSet& parameters_;
  OptimizerConfig config_;
  std::vector<Moments> moments_;  // one a flat buffer
  std::vector<Run> runs_;
};

}  // namespace smoe
