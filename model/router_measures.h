// What the routers of a step did, beside what balance losses are made of (balance_loss.h): kept on this rank as the
// micro-batches go by, and brought together when a step is to be told of.
//
// A gate's gradient is the sum of three, of the language-model loss, the balance loss and the z loss, each with its coefficient:
// dlogits is linear in them. A step that measures takes each alone as well. The gate's and not that of the logits, because it
// is what moves the router: parts that pull a token one way and the next token back cancel here.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/arena.h"
#include "model/decoder_layer.h"
#include "model/model_config.h"
#include "parallel/mesh.h"

namespace smoe {

// Of a step, by layer.
struct RouterMeasures {
  std::vector<double> dropped;  // assignments that an expert's capacity left out, over all ranks
  // Rows that the experts of the busiest rank received, over the mean rank's; averaged over the micro-batches. 1: all alike. The
  // one measure that depends on the layout: of a single rank it is 1.
  std::vector<double> rank_load;

  // Empty where the step did not measure. Means over tokens: Backend::router_measures.
  std::vector<double> entropy, logit_norm, margin;
  // L2 norms of the parts of the gate's gradient over the whole step, before clipping, and the cosines between two of them, 0
  // where either is zero. Below the lowest layer that is trained all are 0.
  std::vector<double> gradient_lm, gradient_balance, gradient_z;
  std::vector<double> cosine_lm_balance, cosine_lm_z, cosine_balance_z;
};

class RouterMeter {
 public:
  // The backend outlives it.
  RouterMeter(Backend& backend, const ModelConfig& model);

  // Forgets the step before. measuring: all is wanted, else only what costs nothing.
  void begin_step(bool measuring);
  // For the forward of each micro-batch [L,3] f64 (BalanceLoss::Statistics), and for its backward what each router adds
  // its parts to; nothing where the step does not measure.
  Tensor sums() const { return measuring_ ? sums_ : Tensor(); }
  void ask_for_parts(std::vector<RouterGradient>& gradients) const;
  // After the forward of each micro-batch, of so many tokens of this rank, without padding. Reads shapes alone, which outlive
  // the activations.
  void add_micro_batch(std::span<const DecoderLayer::Saved> layers, std::int64_t tokens);
  // All ranks call it, after the step's last micro-batch.
  const RouterMeasures& measures(const Mesh& mesh);

 private:
  void read_gradients(const Mesh& mesh, RouterMeasures& found);

  Backend& backend_;
  std::int64_t layers_, experts_;
  Arena memory_;
  Tensor sums_;       // [L,3] f64 over this rank's tokens
  Tensor gradients_;  // [L,3,E,D] the parts of each gate's gradient
  bool measuring_ = false;
  std::vector<double> rows_;     // [micro-batches, L] that this rank's experts received
  std::vector<double> dropped_;  // [L] of this rank's assignments
  double tokens_ = 0;            // of this rank
  std::vector<float> staging_;
  std::optional<RouterMeasures> found_;  // since they were asked for
};

}  // namespace smoe
