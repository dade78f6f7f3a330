// The same few training steps at a layout of many ranks and on one rank, held against each other: losses, balance
// losses, every gradient, the gradient norm, the updated weights. The field's worst bugs give the right loss and wrong
// gradients; this is what finds them.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backend.h"
#include "model/model_config.h"
#include "model/recompute.h"
#include "model/router_config.h"
#include "model/routing_options.h"
#include "model/lora_config.h"
#include "optim/optimizer_config.h"
#include "parallel/layout.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"
#include "trainer/objective.h"
#include "trainer/record/metrics.h"

namespace smoe {

// What to train on. Tokens are made up, from the seed.
struct EquivalenceCase {
  ModelConfig model;
  DeviceChoice device = DeviceChoice::automatic;
  DType type = DType::f32;  // of weights and activations
  RouterConfig router;
  RoutingOptions routing;
  std::vector<float> selection_bias;  // [L,E] at the start; empty: none, or zeros where the router has a rate
  OptimizerConfig optimizer;
  std::int64_t sequence_length = 16;
  std::int64_t at_once = 8;       // sequences over all dp ranks; a multiple of dp
  std::int64_t accumulation = 1;  // micro-batches a step
  std::int64_t steps = 3;
  std::uint64_t seed = 1;
  bool documents = false;        // sequences hold several documents, and attention stays inside each
  bool padded = false;           // sequences end in padding, a few in all but a token of it
  double masked = 0;             // share of targets without loss
  bool masked_unevenly = false;  // whole sequences without any target as well, other ones with all
  Recompute recompute = Recompute::none;
  double label_smoothing = 0,
         neftune_alpha = 0;         // as train.label_smoothing, where cross-entropy is trained, and train.neftune_alpha
  std::vector<std::string> freeze;  // as train.freeze
  std::optional<LoraConfig> lora;   // their B are drawn too, and not zero
  std::int64_t bucket_elements = 4096;                    // small, so that a small model has many buckets too
  std::function<std::unique_ptr<Objective>()> objective;  // empty: cross-entropy
  // Sees every parameter's initial values, before they are rounded, and may change them: to force a routing.
  std::function<void(const Parameter&, std::span<float> values)> adjust;
  // Sees every step's global batch, step 1 the first, and may change it. [sequences, sequence_length], micro-batch by
  // micro-batch and in each rank by rank.
  std::function<void(std::int64_t step, std::span<std::int32_t> ids, std::span<std::int32_t> targets)> arrange;
};

// Of one step, on this rank: its slices, gradients summed over replicas and before clipping, weights after the update.
struct StepNumbers {
  bool finite = true;  // false: refused, and the weights are those before it
  double lm_loss = 0, aux_loss = 0, z_loss = 0, grad_norm = 0;
  double loss = 0;                                     // what was differentiated
  std::vector<std::vector<double>> expert_load;        // [L][E]
  std::vector<float> selection_bias;                   // [L,E] after the update, of the whole model; empty: none
  LayerMetrics measures;                               // those that do not depend on the layout are compared
  std::vector<std::vector<float>> gradients, weights;  // by parameter, in the order of the set
};

struct CaseRun {
  struct Slice {
    std::string name;
    Shape shape, slice;
    std::array<std::int64_t, 2> first{};
  };
  std::int64_t at_once = 0;  // as the case says
  std::vector<Slice> parameters;
  std::vector<StepNumbers> steps;
};

// All ranks of the mesh call it. Throws std::logic_error if the case does not fit the layout.
CaseRun run_case(const EquivalenceCase& what, const Mesh& mesh, Backend& backend);
// On a backend of its own, of the case's device.
CaseRun run_case(const EquivalenceCase& what, const Mesh& mesh, int threads);

// Largest deviations over all steps and ranks, the same on every rank. Losses and norm relative to their value;
// gradients and weights, the selection bias among these, relative to the largest entry of the whole tensor. What is not finite in either run is infinite.
struct Deviations {
  struct Worst {
    double value = 0;
    std::string tensor;  // for gradients and weights; of a measure its name
    std::int64_t step = 0;
  };
  Worst lm_loss, aux_loss, z_loss, grad_norm, gradient, weight, measure;
};
// only: of which tensors; empty: all. steps: of how many, from the first on; 0: all.
Deviations compare(const CaseRun& found, const CaseRun& one_rank, const Mesh& mesh,
                   const std::function<bool(const std::string&)>& only = {}, std::size_t steps = 0);

// What fp32 arithmetic in another order may do, and nothing else.
struct Tolerances {
  double loss = 1e-6, grad_norm = 1e-6, gradient = 1e-5, weight = 1e-5, measure = 1e-5;
};
// The same for a layout of a model that computes in that type, over the first step alone or over several.
// In bf16 without tp, a token of the first step is computed from the same numbers everywhere, and another order of a sum in
// f32 seldom rounds to another bf16. From the first update on it often does: of some ten thousand weights a few lie where
// their masters' last bits decide between two bf16, a whole 2^-7 of the weight apart, and what is computed from them is
// rounded elsewhere, as it is with tp, whose partial sums are rounded before they are added. Then some twenty roundings of
// 2^-9, one behind the other, leave sqrt(20) of them in a gradient, and the worst of a tensor's entries about four times that;
// sqrt(2) times as much where both come together.
// All this where routing is decided by more than rounding: a token that goes to another expert is no rounding.
constexpr Tolerances tolerances_of(DType type, const Layout& layout, std::int64_t steps) {
  if (type == DType::f32) return {};
  if (layout.tp == 1 && steps == 1)
    return {.loss = 1e-5, .grad_norm = 1e-4, .gradient = 1e-2, .weight = 1e-2, .measure = 1e-2};
  if (layout.tp == 1 || steps == 1)
    return {.loss = 1e-3, .grad_norm = 4e-3, .gradient = 5e-2, .weight = 1e-2, .measure = 5e-2};
  return {.loss = 1e-3, .grad_norm = 4e-3, .gradient = 7e-2, .weight = 1e-2, .measure = 7e-2};
}
// One sentence for each deviation that is too large; empty: the layout is equivalent.
std::vector<std::string> violations(const Deviations& deviations, const Tolerances& tolerances = {});

}  // namespace smoe
