// What a step costs once it is warm: no memory of the device, no page-locked memory, and one wait of the host a MoE layer, for
// the sizes of its products.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <ostream>
#include <vector>

#include "kernels/backend.h"
#include "tests/cuda_on_host/block.h"
#include "tests/support/warm_step.h"

namespace smoe {
namespace {
using test::WarmSetting;
using test::WarmStep;

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
    WarmSetting setting = GetParam();
    setting.layers = layers;
    WarmStep step(make_cuda_backend(), setting);
    std::vector<Costs> found;
    for (std::int64_t number = 1; number <= 5; ++number) {
      const Costs before = so_far();
      step.train(number);
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
  const auto micro_batches = static_cast<std::size_t>(WarmStep::sequences / GetParam().micro_batch_size);
  EXPECT_EQ(three[0].waits - two[0].waits, passes * micro_batches);
  EXPECT_LE(two[0].waits, 2 * passes * micro_batches + micro_batches + 3)
      << "beside the layers': the balance statistics of a micro-batch, the losses, the norm";
}

INSTANTIATE_TEST_SUITE_P(
    Settings, WarmSteps,
    testing::Values(WarmSetting{"OneMicroBatch", DType::f32, Recompute::none, AuxLossScope::global_batch, 4},
                    WarmSetting{"Accumulating", DType::bf16, Recompute::none, AuxLossScope::micro_batch, 2},
                    WarmSetting{"Recomputing", DType::bf16, Recompute::layer, AuxLossScope::sequence, 2}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace smoe
