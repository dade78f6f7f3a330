// What a step costs once it is warm: no memory of the device, no page-locked memory, and one wait of the host a MoE layer, for
// the sizes of its products.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <ostream>
#include <vector>

#include "kernels/arena.h"
#include "model/mixtral.h"
#include "optim/adamw.h"
#include "parallel/mesh.h"
#include "tests/cuda_on_host/block.h"
#include "trainer/training_step.h"

namespace smoe {
namespace {

struct WarmSetting {
  const char* name;
  DType type;
  Recompute recompute;
  AuxLossScope scope;
  std::int64_t micro_batches;
};
void PrintTo(const WarmSetting& setting, std::ostream* out) { *out << setting.name; }

struct Costs {
  std::size_t allocations = 0, waits = 0;
  bool operator==(const Costs&) const = default;
};
void PrintTo(const Costs& costs, std::ostream* out) {
  *out << costs.allocations << " allocations, " << costs.waits << " waits";
}

Costs so_far() { return {cuda_on_host::allocations(), cuda_on_host::waits()}; }

class WarmSteps : public testing::TestWithParam<WarmSetting> {
 protected:
  // Of each of the last two of five steps, gradients and update.
  static std::vector<Costs> costs(std::int64_t layers) {
    const WarmSetting& setting = GetParam();
    constexpr std::int64_t sequences = 4, length = 24;
    ModelConfig config;
    config.vocab_size = 300;
    config.hidden_size = 32;
    config.intermediate_size = 48;
    config.num_hidden_layers = layers;
    config.num_attention_heads = 4;
    config.num_key_value_heads = 2;
    config.num_local_experts = 8;
    config.num_experts_per_tok = 2;
    RouterConfig router;
    router.aux_loss_scope = setting.scope;
    router.z_loss_coef = 1e-3;

    const Mesh mesh = Mesh::single();
    const auto backend = make_cuda_backend();
    Arena persistent(*backend);
    Mixtral model(config, mesh, {}, {}, setting.type);
    model.allocate(*backend, persistent, length, true);
    AdamW optimizer(*backend, persistent, model.parameters(), mesh, {});
    model.parameters().initialize(*backend, 1, optimizer.keeps_masters());
    TrainingStep step(*backend, mesh, model, optimizer, router, sequences / setting.micro_batches, setting.recompute);

    std::vector<std::int32_t> ids(sequences * length), targets(sequences * length), document_start(sequences * length);
    std::vector<Costs> found;
    for (std::int64_t number = 1; number <= 5; ++number) {
      for (std::size_t i = 0; i < ids.size(); ++i) {  // loads shift between experts
        const auto t = static_cast<std::int64_t>(i);
        ids[i] = static_cast<std::int32_t>((t * (17 + number)) % (300 / number));
        targets[i] = t % 9 == 0 ? -100 : static_cast<std::int32_t>((t * 31 + number) % 300);
        document_start[i] = t % length < 10 ? 0 : 10;
      }
      const Costs before = so_far();
      const StepResult result = step.compute_gradients({.sequences = sequences,
                                                        .sequence_length = length,
                                                        .ids = ids,
                                                        .targets = targets,
                                                        .document_start = document_start});
      EXPECT_TRUE(result.finite);
      step.apply(result, number, 1e-3);
      const Costs after = so_far();
      if (number > 3) found.push_back({after.allocations - before.allocations, after.waits - before.waits});
    }
    return found;
  }
};

TEST_P(WarmSteps, AllocateNothingAndWaitOnceAMoeLayer) {
  const std::vector<Costs> two = costs(2), three = costs(3);
  EXPECT_EQ(two[0], two[1]);
  for (const Costs& of : {two[0], three[0]}) EXPECT_EQ(of.allocations, 0u) << "of a warm step";
  // Recomputing a layer routes its tokens again.
  const std::size_t passes = GetParam().recompute == Recompute::layer ? 2 : 1;
  EXPECT_EQ(three[0].waits - two[0].waits, passes * static_cast<std::size_t>(GetParam().micro_batches));
  EXPECT_LE(two[0].waits, 2 * passes * static_cast<std::size_t>(GetParam().micro_batches) +
                              static_cast<std::size_t>(GetParam().micro_batches) + 3)
      << "beside the layers': the balance statistics of a micro-batch, the losses, the norm";
}

INSTANTIATE_TEST_SUITE_P(
    Settings, WarmSteps,
    testing::Values(WarmSetting{"OneMicroBatch", DType::f32, Recompute::none, AuxLossScope::global_batch, 1},
                    WarmSetting{"Accumulating", DType::bf16, Recompute::none, AuxLossScope::micro_batch, 2},
                    WarmSetting{"Recomputing", DType::bf16, Recompute::layer, AuxLossScope::sequence, 2}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace smoe
