// Where the time of a configuration's training step goes: op by op, against what the cores and the memory can do in the
// same minute. What `smoe bench` measures; step_profile_text.h says it in words.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kernels/timed_backend.h"
#include "kernels/yardstick.h"
#include "model/lora_config.h"
#include "model/model_config.h"
#include "model/recompute.h"
#include "model/router_config.h"
#include "optim/optimizer_config.h"
#include "trainer/train_config.h"

namespace smoe {

// What is timed, on one rank. Tokens and weights are random: no op's time depends on them but by the experts' rows.
struct StepProfileCase {
  ModelConfig model;  // its shape; `from` is not read
  RouterConfig router = {};
  std::vector<std::string> freeze = {};  // as train.freeze
  std::optional<LoraConfig> lora = {};   // as lora
  OptimizerConfig optimizer = {};
  Recompute recompute = Recompute::none;
  DeviceChoice device = DeviceChoice::automatic;
  PrecisionChoice precision = PrecisionChoice::automatic;
  std::int64_t sequence_length = 512;
  std::int64_t micro_batch_size = 4;  // sequences
  std::int64_t micro_batches = 1;     // of an optimizer step
  std::int64_t steps = 5;             // timed; one micro-batch and one update each, behind two that are not
  std::int64_t generated = 32;        // tokens of the generation that is timed; 0: none
  int threads = 0;
  std::int64_t triad_elements = Yardstick::triad_elements;
  std::function<void(std::int64_t done, std::int64_t total)> on_progress = {};
};

// The rates that nothing here can pass, medians over the measurements between the steps (kernels/yardstick.h).
struct Ceilings {
  double core_flops = 0;     // flop/s of the arithmetic units alone; of a GPU, of its bf16 product
  double product_flops = 0;  // flop/s of a product of 2048^3; of a GPU the same again
  double memory_bytes = 0;   // bytes/s of a triad
};

// One token after the other from a key-value cache, one sequence: every active weight is read once a token.
struct GenerationProfile {
  std::int64_t tokens = 0;  // timed; 0: none were
  std::int64_t past = 0;    // positions in the cache when the first of them was computed
  double seconds = 0;       // a token, the median
  double bytes = 0;         // of the weights that a token reads
};

struct StepProfile {
  DeviceProfile device;
  DType type = DType::f32;  // of weights and activations
  Ceilings ceilings;
  std::int64_t parameters = 0, active_parameters = 0;
  std::int64_t trained_parameters = 0;  // an adapter's among them, which the other two are without
  std::int64_t micro_batch_size = 0, sequence_length = 0, micro_batches = 0;
  std::string forced_routing;  // see describe(ForcedRouting); empty: the routers choose

  // Of an optimizer step as the configuration has it: calls, time and work of one micro-batch times micro_batches, and of
  // one update. Each op's time is the median over the timed steps.
  std::vector<OpTime> ops;         // sorted by time, the longest first
  double outside_seconds = 0;      // of the step, in no op
  double micro_batch_seconds = 0;  // one forward and backward
  double update_seconds = 0;       // gradient norm and AdamW
  double queued_seconds = 0;  // of a GPU: the step as training runs it, whose ops are not waited for one by one; else 0
  double model_flops = 0;     // of the step: three times the forward's products (model/mixtral.h)
  double cpu_share = 1;  // of the threads' time in the steps: what they ran, and did not wait for a core; on a GPU 1
  GenerationProfile generation;
  std::uint64_t peak_memory_bytes = 0;
  std::uint64_t peak_device_memory_bytes = 0;  // of a GPU

  bool on_gpu() const { return device.kind == Device::cuda; }

  std::int64_t tokens() const { return micro_batches * micro_batch_size * sequence_length; }
  double step_seconds() const { return static_cast<double>(micro_batches) * micro_batch_seconds + update_seconds; }
  double training_seconds() const {
    return on_gpu() ? queued_seconds : step_seconds();
  }  // what a step of training takes
  double mfu() const { return model_flops / training_seconds() / ceilings.core_flops; }
  double share_of_product() const { return model_flops / training_seconds() / ceilings.product_flops; }
};

// Share of its ceiling that an op reaches: of the cores' rate where it computes, of the memory's where it moves numbers.
double share_of_ceiling(const OpTime& op, const Ceilings& ceilings);
// Whether an op belongs to the update, which an optimizer step makes once.
bool is_update(const OpTime& op);

// Builds the model and times it. Takes the memory of a training run and Yardstick::bytes_on().
StepProfile profile_step(const StepProfileCase& what);

}  // namespace smoe
