// AdamW (Loshchilov & Hutter 2019) over what this rank owns of the flat buffers of a ParameterSet:
//   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,
//   w = w - lr * decay * w - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
// lr is the step's, times what a parameter scales it by. The clip factor is folded into the one pass over memory, and the gradient is left zero for the next step.
//
// Moments exist only where they are owned (ZeRO stage 1): 8 bytes a parameter divided by the number of ranks that hold
// replicas of it, and of a bf16 parameter 4 more for its f32 master. What is frozen has none, no part in the norm, and is
// never updated.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "optim/optimizer_config.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"
#include "parallel/shards.h"

namespace smoe {

class AdamW {
 public:
  // Moments and masters are taken from `persistent` and start at zero. The set must have been allocated with gradients.
  AdamW(Backend& backend, Arena& persistent, ParameterSet& parameters, const Mesh& mesh, const OptimizerConfig& config,
        std::int64_t bucket_elements = Shards::default_bucket_elements);

  // The bytes of moments and masters, for a set that is laid out.
  static std::uint64_t bytes(const ParameterSet& parameters, const Mesh& mesh);

  // What of the buffers is this rank's to update.
  const Shards& shards() const { return shards_; }
  // Takes the masters from what it is shown.
  ShowNumbers keeps_masters();

  // Adds the squares of the gradients that this rank owns to `squares` [1] f64, on the device. They must have been summed
  // over the replicas.
  void sum_squares(const Tensor& squares);
  // From that sum of each rank the norm of the whole model's gradient, each logical parameter counted once, the same bits
  // on every rank.
  static double gradient_norm(double squares, const Mesh& mesh);
  // 1, or what shrinks the norm to max_grad_norm: min(1, max / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ does.
  double clip_factor(double norm) const;
  // Updates the owned weights. updates: how many updates have been made, this one included; it is t in the bias corrections.
  void step(std::int64_t updates, double learning_rate, double gradient_scale);

  // Moments of this rank's shard of a flat buffer [shards().shard_elements(flat)], for checkpoints; empty: it is frozen.
  const Tensor& first_moments(std::size_t flat) const { return moments_[flat].first; }
  const Tensor& second_moments(std::size_t flat) const { return moments_[flat].second; }

 private:
  struct Run {  // neighbours in a shard that are treated alike
    Tensor master, gradient, first, second;
    Tensor value;  // the master rounded; empty where the model computes with the master
    double weight_decay;
    double learning_rate_scale;
  };
  struct Moments {
    Tensor first, second;
  };
  void add_runs(const Bucket& bucket);

  Backend& backend_;
  ParameterSet& parameters_;
  OptimizerConfig config_;
  Shards shards_;
  std::vector<Moments> moments_;  // one a flat buffer
  std::vector<Run> runs_;
};

}  // namespace smoe
