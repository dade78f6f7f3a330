// The micro-batch that is computed before a run begins: it changes nothing, and takes what a step takes.
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "kernels/arena.h"
#include "tests/trainer/training_fixture.h"
#include "trainer/activation_memory.h"
#include "trainer/machine.h"

namespace smoe {
namespace {
namespace fs = std::filesystem;

class Rehearsal : public TrainingTest {
 protected:
  static TrainerConfig without_directory(TrainerConfig c) {
    c.train.output_dir.clear();
    return c;
  }
  RunParts assemble_on_one_thread(const TrainerConfig& c) const { return assemble(c, mesh(), make_cpu_backend(1)); }
};

// Losses, norms and weights, with rehearsals before every step and without a single one.
TEST_F(Rehearsal, ChangesNoBit) {
  for (const Recompute recompute : {Recompute::none, Recompute::layer})
    for (const AuxLossScope scope : {AuxLossScope::global_batch, AuxLossScope::sequence, AuxLossScope::hf}) {
      TrainerConfig c = config("");
      c.train.recompute = recompute;
      c.router.aux_loss_scope = scope;
      std::vector<std::vector<double>> numbers(2);
      std::vector<std::vector<float>> weights(2);
      for (const bool rehearsed : {false, true}) {
        TrainingParts parts(make_cpu_backend(1), c.model, c, mesh(), {});
        parts.model->parameters().initialize(*parts.backend, 1);
        std::vector<std::int32_t> ids, starts;
        for (std::int32_t i = 0; i < 8 * 16; ++i) {
          ids.push_back(3 + i * i % 58);
          starts.push_back(i % 16 < 7 ? 0 : 7);
        }
        std::vector<std::int32_t> targets(ids.begin() + 1, ids.end());
        targets.push_back(masked_target);
        for (std::int64_t step = 1; step <= 3; ++step) {
          if (rehearsed) parts.step->rehearse(16);
          const StepResult result = parts.step->compute_gradients({8, 16, ids, targets, starts});
          for (const double x : {result.lm_loss, result.aux_loss, result.z_loss, result.grad_norm})
            numbers[rehearsed].push_back(x);
          for (const auto& layer : parts.step->balance().load)
            numbers[rehearsed].insert(numbers[rehearsed].end(), layer.begin(), layer.end());
          parts.step->apply(result, step, 1e-2);
        }
        for (const FlatBuffer& flat : parts.model->parameters().flat_buffers())
          weights[rehearsed].insert(weights[rehearsed].end(), flat.values.f32(),
                                    flat.values.f32() + flat.values.elements());
      }
      EXPECT_EQ(numbers[0], numbers[1]);
      EXPECT_EQ(weights[0], weights[1]);
    }
}

TEST_F(Rehearsal, TakesWhatAStepTakesAndAboutWhatIsEstimated) {
  for (const Recompute recompute : {Recompute::none, Recompute::layer}) {
    TrainerConfig c = config("");
    c.model.hidden_size = 64;
    c.model.intermediate_size = 112;
    c.model.num_hidden_layers = 4;
    c.train.recompute = recompute;
    c.train.micro_batch_size = 8;
    c.train.steps = 2;
    Trainer trainer(assemble_on_one_thread(without_directory(c)));
    const TrainingStep& step = *trainer.parts().training.step;
    const std::size_t rehearsed = step.activation_bytes();
    EXPECT_GT(rehearsed, 1u << 18);
    trainer.run();
    EXPECT_EQ(step.activation_bytes(), rehearsed);
    const auto estimated =
        static_cast<double>(estimated_activation_bytes(c.model, micro_batch_of(c.train, c.data, c.router), {}));
    EXPECT_NEAR(estimated / static_cast<double>(rehearsed), 1, 0.25);
  }
}

// Of each kind of place, and of all; what they take beside the weights alone, for themselves.
TEST_F(Rehearsal, WhatAdaptersTakeIsInTheEstimate) {
  const auto takes = [&](const TrainerConfig& c) {
    const double measured = static_cast<double>(assemble_on_one_thread(c).training.step->activation_bytes());
    const double estimated = static_cast<double>(
        estimated_activation_bytes(c.model, micro_batch_of(c.train, c.data, c.router), {}, pointer_to(c.lora)));
    return std::pair(measured, estimated);
  };
  const std::vector<std::vector<std::string>> targets = {
      {"q_proj", "k_proj", "v_proj", "o_proj"}, {"w1", "w3"}, {"w2"}, {lora_targets.begin(), lora_targets.end()}};
  for (const Recompute recompute : {Recompute::none, Recompute::layer})
    for (const double dropout : {0.0, 0.25}) {
      TrainerConfig c = without_directory(config(""));
      c.router = RouterConfig{};
      c.model.hidden_size = 64;
      c.model.intermediate_size = 112;
      c.model.num_hidden_layers = 4;
      c.train.recompute = recompute;
      c.train.micro_batch_size = 8;
      const auto [without, estimated_without] = takes(c);
      for (const std::vector<std::string>& modules : targets) {
        c.lora = LoraConfig{.r = 48, .dropout = dropout, .target_modules = modules};
        const auto [with, estimated_with] = takes(c);
        SCOPED_TRACE(modules.front() + " of " + std::to_string(modules.size()) + ", " + std::to_string(dropout));
        EXPECT_NEAR(estimated_with / with, 1, 0.25);
        const double more = with - without, estimated_more = estimated_with - estimated_without;
        EXPECT_GT(more, 1e5);
        EXPECT_GT(estimated_more, 0.95 * more);
        // Beside attention what they take is, in part, there already: beside the experts the layer takes most.
        const bool beside_experts = modules.back().front() == 'w';
        EXPECT_LT(estimated_more, (beside_experts ? 1.05 : 2) * more);
      }
    }
}

// An address space that ends not far above what the process has now.
class LittleMemory {
 public:
  explicit LittleMemory(std::uint64_t more) {
    ::getrlimit(RLIMIT_AS, &old_);
    std::uint64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlimit little{pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) + more, old_.rlim_max};
    ::setrlimit(RLIMIT_AS, &little);
  }
  ~LittleMemory() { ::setrlimit(RLIMIT_AS, &old_); }

 private:
  rlimit old_{};
};

TEST_F(Rehearsal, WhatDoesNotFitIsRefusedBeforeEarlierResultsAreMoved) {
  auto c = config("run");
  c.train.steps = 1;
  ASSERT_EQ(train(c), 0);
  c.checkpoint.resume = "never";
  c.train.global_batch_size = c.train.micro_batch_size = 1 << 15;  // 524,288 tokens: more than 1 GiB
  std::string message;
  {
    const LittleMemory little(std::uint64_t{256} << 20);
    message = message_of([&] { train(c); });
  }
  EXPECT_TRUE(
      mentions(message, {"a micro-batch does not fit in memory", "MiB more are wanted",
                         "train.micro_batch_size (32768)", "data.sequence_length (16)", "train.recompute: layer"}));
  EXPECT_FALSE(fs::exists(root() / "run" / "previous-1"));
  EXPECT_TRUE(fs::exists(checkpoint("run", 1) / "manifest.json"));
}

TEST_F(Rehearsal, MemoryIsWhatAContainerGrants) {
  const auto write = [&](const std::string& path, const std::string& text) {
    fs::create_directories((root() / path).parent_path());
    std::ofstream(root() / path) << text << "\n";
  };
  const auto usable = [&] { return usable_memory_bytes(root() / "membership", root() / "groups"); };
  const std::uint64_t installed = usable();
  EXPECT_GT(installed, std::uint64_t{256} << 20);
  write("membership", "0::/jobs/one");
  write("groups/jobs/one/memory.max", "max");
  EXPECT_EQ(usable(), installed);
  write("groups/jobs/memory.max", "104857600");
  EXPECT_EQ(usable(), 104857600u);
  write("membership", "5:memory:/outside/id\n4:cpu,cpuacct:/outside/id");
  write("groups/memory/memory.limit_in_bytes", "9223372036854771712");  // how version 1 writes that there is none
  EXPECT_EQ(usable(), installed);
  write("groups/memory/memory.limit_in_bytes", "52428800");
  EXPECT_EQ(usable(), 52428800u);
}

// By arithmetic, before a byte of it is allocated.
TEST_F(Rehearsal, WhatThisMachineCannotHoldIsNotTried) {
  auto c = config("run");
  c.train.global_batch_size = c.train.micro_batch_size = std::int64_t{1} << 24;
  c.data.sequence_length = 64;
  EXPECT_TRUE(mentions(message_of([&] { train(c); }),
                       {"GiB here for weights, gradients, moments and the activations of a micro-batch",
                        "this machine has", "lower train.micro_batch_size (16777216)"}));
  EXPECT_FALSE(fs::exists(root() / "run"));
}

TEST_F(Rehearsal, IsLeftOutWhereNothingIsTrained) {
  auto c = without_directory(config(""));
  c.train.steps = 0;
  EXPECT_EQ(assemble_on_one_thread(c).training.step->activation_bytes(), 0u);
}

}  // namespace
}  // namespace smoe
