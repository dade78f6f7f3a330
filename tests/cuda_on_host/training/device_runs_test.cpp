// Runs on a GPU, emulated: what they are refused for before they start, what they say where memory ends, what they record of it.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>

#include "configs/run_config.h"
#include "data/files/files.h"
#include "kernels/backend.h"
#include "launch/run_plan.h"
#include "tests/cuda_on_host/block.h"
#include "tests/cuda_on_host/clock.h"
#include "tests/trainer/training_fixture.h"
#include "trainer/inference.h"
#include "trainer/machine.h"
#include "trainer/machine_rates.h"
#include "trainer/step_profile.h"
#include "trainer/step_profile_text.h"

namespace smoe {
namespace {
namespace fs = std::filesystem;

constexpr std::size_t mib = std::size_t{1} << 20;

class DeviceRun : public TrainingTest {
 protected:
  DeviceRun() { cuda_on_host::set_late(false); }
  ~DeviceRun() override { cuda_on_host::machine() = saved_; }

  // Of two micro-batches of 16 tokens a step.
  TrainerConfig small(const std::string& output, std::int64_t steps) const {
    TrainerConfig c = config(output);
    c.model.num_hidden_layers = 1;
    c.data.eval.clear();
    c.train.steps = steps;
    c.train.global_batch_size = 2;
    c.train.micro_batch_size = 1;
    c.checkpoint.interval = 1;
    c.log.tensorboard = true;
    return c;
  }
  RunSummary run_on_device(const TrainerConfig& c) const {
    return Trainer(assemble(c, mesh(), make_cuda_backend())).run();
  }
  // So many bytes beside what a backend takes for itself.
  static void leave_free(std::size_t bytes) {
    cuda_on_host::machine().memory = std::size_t{1} << 40;
    const auto backend = make_cuda_backend();
    cuda_on_host::machine().memory = cuda_on_host::bytes_in_use() + bytes;
  }

 private:
  cuda_on_host::Machine saved_ = cuda_on_host::machine();
};

TEST_F(DeviceRun, RecordsWhatItTookOfTheDevice) {
  run_on_device(small("run", 2));
  const MetricsLog log = metrics("run");
  ASSERT_EQ(log.steps.size(), 2u);
  for (const StepMetrics& row : log.steps) {
    EXPECT_GT(row.peak_device_memory_bytes, 32 * mib);  // the products' workspace alone
    EXPECT_LT(row.peak_device_memory_bytes, 256 * mib);
    EXPECT_GT(row.peak_memory_bytes, 0u);
    EXPECT_GT(row.mfu, 0);
    EXPECT_EQ(row.mfu, row.share_of_product);
  }
  const std::string said = read_file(root() / "run" / "train.log", 1 << 20);
  EXPECT_TRUE(mentions(said, {"emulated on the host", "bf16 product 128^3", " GiB are free beside the model"}));
}

TEST_F(DeviceRun, WhatTheDeviceCannotHoldIsNotTried) {
  leave_free(512 * mib);
  TrainerConfig c = small("run", 1);
  c.model.num_hidden_layers = 4;
  c.train.global_batch_size = c.train.micro_batch_size = 1 << 15;  // 524,288 tokens
  EXPECT_TRUE(
      mentions(message_of([&] { run_on_device(c); }),
               {"GiB on a GPU for weights, gradients, moments and the activations of a micro-batch (", "0.50 of its 0.",
                " GiB are free: choose a smaller model, or lower train.micro_batch_size (32768)",
                "train.recompute: layer", "more ranks, each with a GPU", "; about ", " sequence(s) fit, or "}));
  EXPECT_FALSE(fs::exists(root() / "run"));
  leave_free(1);
  EXPECT_TRUE(mentions(message_of([&] { run_on_device(small("run", 1)); }),
                       {"GiB on a GPU for weights, gradients and moments (", "0.00 of its 0.",
                        ", or more ranks, each with a GPU, and larger parallel.ep and parallel.tp"}));
}

// The estimate leaves out what is rounded up: a micro-batch that is computed tells.
TEST_F(DeviceRun, ThatRunsOutOfMemoryLeavesTheCheckpointItCameFrom) {
  run_on_device(small("run", 1));
  const std::string saved = state_hash("run", 1);
  leave_free(2 * mib + mib / 2);
  EXPECT_TRUE(mentions(
      message_of([&] { run_on_device(small("run", 2)); }),
      {"a micro-batch does not fit in memory (out of memory of the GPU: ", "MiB more are wanted", " of its ",
       " MiB are free): lower train.micro_batch_size (1)", "train.recompute: layer", "more ranks, each with a GPU"}));
  EXPECT_EQ(state_hash("run", 1), saved);
  EXPECT_NO_THROW(verify_checkpoint(checkpoint("run", 1)));
  EXPECT_FALSE(fs::exists(root() / "run" / "previous-1"));
  leave_free(512 * mib);
  EXPECT_EQ(run_on_device(small("run", 2)).state.step, 2);
  run_on_device(small("whole", 2));
  EXPECT_EQ(state_hash("run", 2), state_hash("whole", 2));
}

TEST_F(DeviceRun, WeightsThatDoNotFitAreSaid) {
  leave_free(mib / 2);
  EXPECT_TRUE(mentions(message_of([&] { run_on_device(small("run", 1)); }),
                       {"weights, gradients and moments do not fit in memory (out of memory of the GPU: 1.0 MiB more",
                        "0.5 of its ", "choose a smaller model, or more ranks"}));
  EXPECT_FALSE(fs::exists(root() / "run" / "checkpoints" / "latest"));
}

TEST_F(DeviceRun, HeadsThatAttentionDoesNotTakeAreNamedByTheirKey) {
  TrainerConfig c = small("run", 1);
  c.model.head_dim = 264;
  EXPECT_EQ(message_of([&] { run_on_device(c); }),
            "model.head_dim: found 264, expected at most 256 on a GPU; train.device: cpu takes it");
  c.model.head_dim.reset();
  c.model.hidden_size = 4 * 260;
  EXPECT_TRUE(mentions(message_of([&] { run_on_device(c); }),
                       {"model.head_dim: found 260 (hidden_size / num_attention_heads), expected at most 256"}));
  c.model.head_dim = 256;
  EXPECT_NO_THROW(require_computable(c.model, Device::cuda));
  c.model.head_dim = 264;
  EXPECT_NO_THROW(require_computable(c.model, Device::cpu));
}

TEST_F(DeviceRun, AModelThatIsReadForInferenceIsHeldAgainstTheDeviceToo) {
  run_on_device(small("run", 1));
  const fs::path model = checkpoint("run", 1) / "model";
  leave_free(4096);
  EXPECT_TRUE(mentions(message_of([&] { InferenceModel(model, mesh(), 16, make_cuda_backend()); }),
                       {"GiB on a GPU for weights (", "0.00 of its 0.", " GiB are free"}));
}

// Ranks that share a GPU share its memory.
TEST_F(DeviceRun, RanksShareWhatTheirGpuHas) {
  leave_free(64 * mib);
  const auto backend = make_cuda_backend();
  const Room alone = room_on(Device::cuda), two = room_on(Device::cuda, 2);
  EXPECT_EQ(alone.free, 64 * mib);
  EXPECT_TRUE(alone.holds(64 * mib));
  EXPECT_FALSE(alone.holds(64 * mib + 1));
  EXPECT_TRUE(two.holds(32 * mib));
  EXPECT_FALSE(two.holds(32 * mib + 1));
  EXPECT_TRUE(mentions(message_of([&] { require_memory(test::tiny_model(), two, 64 * mib, "weights"); }),
                       {"0.12 GiB on a GPU for weights of 2 ranks", "0.06 of its "}));
}

TEST_F(DeviceRun, DescriptionsTellTheDevicesMemory) {
  RunConfig c;
  c.model = test::tiny_model();
  cuda_on_host::machine().memory = std::size_t{8} << 30;
  EXPECT_TRUE(mentions(describe_run(c, {}, 1), {"1 rank(s) on a GPU need 0.", "8.0 of its 8.0 GiB are free\n"}));
  cuda_on_host::machine().memory = mib;
  EXPECT_TRUE(mentions(describe_run(c, {}, 1), {"0.0 of its 0.0 GiB are free: too little"}));
  c.train.device = DeviceChoice::cpu;
  EXPECT_TRUE(mentions(describe_run(c, {}, 1), {"1 rank(s) here need ", "this machine has "}));
  c.train.device = DeviceChoice::cuda;
  cuda_on_host::machine().devices = 0;  // planned on a machine without
  EXPECT_TRUE(mentions(describe_run(c, {}, 1), {"for activations; 1 rank(s) need 0."}));
}

TEST_F(DeviceRun, BenchHoldsTheStepAgainstTheBf16Product) {
  StepProfileCase what{.model = test::tiny_model(),
                       .device = DeviceChoice::cuda,
                       .sequence_length = 16,
                       .micro_batch_size = 1,
                       .steps = 1,
                       .generated = 1,
                       .triad_elements = 3 * 4096};
  what.model.num_hidden_layers = 1;
  cuda_on_host::set_time_between_events(1);
  const StepProfile profile = profile_step(what);
  cuda_on_host::set_time_between_events(0);
  EXPECT_TRUE(profile.on_gpu());
  EXPECT_EQ(profile.type, DType::bf16);
  EXPECT_EQ(profile.ceilings.core_flops, profile.device.peak_flops);
  EXPECT_EQ(profile.ceilings.product_flops, profile.ceilings.core_flops);
  EXPECT_EQ(profile.cpu_share, 1);
  EXPECT_GT(profile.queued_seconds, 0);
  EXPECT_GT(profile.peak_device_memory_bytes, 32 * mib);
  EXPECT_TRUE(mentions(describe(profile), {"emulated on the host", "bf16 product 128^3", "of that product (mfu)"}));
}

}  // namespace
}  // namespace smoe
