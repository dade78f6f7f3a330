// One optimizer step: gradients of all micro-batches, one norm, one clip factor, one update.
//
// The objective's loss is divided once, by its count over the whole world; gradients are sums. So a step gives the same
// gradient (to rounding) however it is cut into micro-batches and divided over ranks.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/arena.h"
#include "kernels/device_sums.h"
#include "model/balance_loss.h"
#include "model/forced_routing.h"
#include "model/max_vio_controller.h"
#include "model/mixtral.h"
#include "model/router_measures.h"
#include "model/selection_bias.h"
#include "optim/adamw.h"
#include "parallel/gradient_reducer.h"
#include "parallel/mesh.h"
#include "trainer/objective.h"
#include "trainer/step_batch.h"

namespace smoe {

struct StepResult {
  double count = 0;     // of the objective, over the world: of cross-entropy, the targets
  double tokens = 0;    // over the world, without padding
  double lm_loss = 0;   // the objective's, divided by count; 0 where there is nothing to count
  double aux_loss = 0;  // of the trained scope, summed over layers, before its coefficient
  double z_loss = 0;    // summed over layers, before its coefficient
  double loss = 0;  // what was differentiated: with smoothed labels not lm_loss, but the smoothed one, and the others
  double grad_norm = 0;  // before clipping
  bool finite = true;    // false: refused
  bool outlier = false;  // set by who holds the step against others (trainer/outliers.h); true: refused

  bool refused() const { return !finite || outlier; }  // no weight changes
};

class TrainingStep {
 public:
  // `scratch` and `activations` are rewound between micro-batches.
  TrainingStep(Backend& backend, const Mesh& mesh, Mixtral& model, AdamW& optimizer, const RouterConfig& router,
               std::int64_t micro_batch_size, Recompute recompute,
               std::unique_ptr<Objective> objective = std::make_unique<CrossEntropy>());

  // It outlives this. Where the router's configuration has a rate, apply() updates it from the counts of the step.
  void use_selection_bias(SelectionBias& bias) { selection_bias_ = &bias; }

  // NEFTune: the embeddings of steps that draw noise get it (trainer/embedding_noise.h), of that alpha; 0: none, as until this is called.
  void add_embedding_noise(double alpha) { neftune_alpha_ = alpha; }

  // The model's adapters, which steps that draw noise drop a part of the input of; null: none, as until this is called.
  void drop_in_adapters(const LoraConfig* lora) { adapters_drop_ = lora && lora->dropout > 0; }

  // The balance loss weighs what the step that is computed next gives it, by the schedule and, with a target for MaxVio, by
  // how near it is. The first step is 1, as until this is called.
  void steer(std::int64_t step);
  // What it weighs: one number, or [L] where layers have their own.
  std::span<const double> aux_loss_coef() const;
  // Without a value where there is no target. apply() shows it the step.
  std::optional<MaxVioController>& controller() { return controller_; }

  // Gradients of the whole step and their norm. Each rank is left with the sums of what it owns; gather_gradients()
  // completes them everywhere. Decides nothing.
  StepResult compute_gradients(const StepBatch& batch);
  void gather_gradients() { reducer_.gather_gradients(); }
  // Updates weights, selection bias and controller on every rank, unless the result is refused: then the gradients are dropped. updates: t of AdamW.
  void apply(const StepResult& result, std::int64_t updates, double learning_rate) {
    start_apply(result, updates, learning_rate);
    settle();
  }
  // The same, where the next step follows: it computes with what has arrived while the rest is on its way. settle() before
  // anything else reads a weight.
  void start_apply(const StepResult& result, std::int64_t updates, double learning_rate);
  void settle() { reducer_.finish_gathering_values(); }

  // Computes one micro-batch of full size and forgets it: afterwards the arenas are as large as a step needs them, and
  // activation_bytes() says how large. Every token has a target; ids are random, so experts that are split over ranks get
  // the rows that these weights send them. Changes no number of any step. Throws OutOfMemory where it does not fit. All
  // ranks call it, between steps.
  void rehearse(std::int64_t sequence_length);

  const BalanceValues& balance() const { return balance_.values(); }
  // What else the routers of the last step did. All ranks call it.
  const RouterMeasures& router_measures() { return meter_.measures(mesh_); }
  // Whether the steps that follow measure what is not free (model/router_measures.h). It changes no number of theirs.
  void measure_routers(bool wanted) { measuring_ = wanted; }
  std::size_t activation_bytes() const { return activations_.high_water_bytes() + scratch_.high_water_bytes(); }
  Context context() { return {backend_, mesh_, activations_, scratch_}; }

 private:
  // [T/tp,E] of this rank's tokens, which begin at that one of the step.
  Tensor forced_choices(std::int64_t tokens, std::int64_t first);
  // [T] of a micro-batch.
  Tensor embedding_noise_of(const StepBatch& part);
  // part: the m-th of the step. uniform_loss: where labels are smoothed.
  void micro_batch(const StepBatch& part, std::int64_t m, double scale, const Tensor& loss, const Tensor& uniform_loss,
                   bool last);

  Backend& backend_;
  const Mesh& mesh_;
  Mixtral& model_;
  AdamW& optimizer_;
  std::unique_ptr<Objective> objective_;
  GradientReducer reducer_;
  RouterConfig router_;
  std::optional<ForcedRouter> forced_;
  std::vector<float> forced_numbers_;  // [T/tp,E] of a micro-batch
  double neftune_alpha_ = 0;
  bool adapters_drop_ = false;
  std::vector<float> embedding_noise_;  // [T] of a micro-batch
  BalanceLoss balance_;
  SelectionBias* selection_bias_ = nullptr;
  std::optional<MaxVioController> controller_;
  RouterMeter meter_;
  bool measuring_ = false;
  std::int64_t micro_batch_size_;
  Recompute recompute_;
  Arena activations_, scratch_;
  Mixtral::Saved saved_;
  std::vector<RouterGradient> router_gradients_;
  DeviceSums sums_;  // the loss of each micro-batch, that of smoothed labels, then the squares of the gradient
};

}  // namespace smoe
