// What a micro-batch takes in memory: estimated before anything is allocated, and measured by computing one.
#pragma once

#include <cstdint>
#include <string>

#include "data/shards/data_config.h"
#include "model/lora_config.h"
#include "model/model_config.h"
#include "model/recompute.h"
#include "model/router_config.h"
#include "parallel/layout.h"
#include "parallel/mesh.h"
#include "trainer/machine.h"
#include "trainer/train_config.h"
#include "trainer/training_step.h"

namespace smoe {

// One rank's.
struct MicroBatchShape {
  std::int64_t sequences = 1, sequence_length = 1;
  Recompute recompute = Recompute::none;
  DType type = DType::f32;  // of weights and activations
  Device device = Device::cpu;
  bool jittered = false;  // the routers' input
};
MicroBatchShape micro_batch_of(const TrainConfig& train, const DataConfig& data, const RouterConfig& router);

// Bytes of activations that a rank holds at once, at the peak of backward: of what the layers keep, by their Saved structs.
// Experts are taken to be balanced. lora: the adapters that are trained; may be null.
std::uint64_t estimated_activation_bytes(const ModelConfig& model, const MicroBatchShape& shape, const Layout& layout,
                                         const LoraConfig* lora = nullptr);

// Computes one micro-batch and forgets it (TrainingStep::rehearse). Returns bytes of activations, of the rank that takes
// most. Throws std::runtime_error, with numbers and what to lower, where it does not fit. All ranks call it.
std::uint64_t rehearse(TrainingStep& step, const MicroBatchShape& shape, const Mesh& mesh);

// What makes a micro-batch smaller: "lower train.micro_batch_size (4), ...".
std::string how_to_lower(const MicroBatchShape& shape);

// Sequences that would fit beside `state` bytes of weights, gradients and moments, by estimate: "; about 3 sequences fit, or 12
// with train.recompute: layer". Empty where not even one would.
std::string what_fits(const ModelConfig& model, MicroBatchShape shape, const Layout& layout, const LoraConfig* lora,
                      std::uint64_t state, const Room& room);

}  // namespace smoe
