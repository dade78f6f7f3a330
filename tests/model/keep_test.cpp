// What a forward is told to keep decides what it takes of memory, not what it computes.
#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "tests/model/model_fixture.h"

namespace smoe {
namespace {

struct KeptForward {
  std::vector<float> hidden;
  std::size_t bytes = 0;  // of the activations, the largest ever in use at once

  KeptForward(int layers, Keep keep) {
    reference::ReferenceConfig config;
    config.vocab = 53, config.hidden = 32, config.ffn = 48, config.layers = layers;
    config.heads = 8, config.kv_heads = 2, config.head_dim = 4, config.experts = 8, config.top_k = 2;
    RealModel real(config, float_parameters(config, 3), 64);
    std::vector<std::int32_t> ids(128);
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i * 7 % 53);
    Context context{*real.backend, real.mesh, real.activations, real.scratch};
    const TokenBatch tokens = make_token_batch(*real.backend, real.activations, 2, 64, ids, ids);
    real.model.forward(context, tokens, keep, real.saved);
    bytes = real.activations.high_water_bytes();
    hidden.resize(static_cast<std::size_t>(real.saved.hidden.elements()));
    real.backend->copy_to_host(hidden.data(), real.saved.hidden);
    if (keep == Keep::nothing) {
      DeviceSums loss(*real.backend);
      loss.reset(1);
      real.model.loss_and_gradient(context, tokens, 1.0, real.saved, loss[0]);
      EXPECT_THROW(real.model.backward(context, tokens, {}, real.saved), std::logic_error);
    }
  }
};

TEST(Keep, SameBitsLessMemory) {
  const KeptForward all(5, Keep::all), inputs(5, Keep::inputs), nothing(5, Keep::nothing);
  EXPECT_EQ(all.hidden, inputs.hidden);
  EXPECT_EQ(all.hidden, nothing.hidden);
  EXPECT_TRUE(std::any_of(all.hidden.begin(), all.hidden.end(), [](float x) { return x != 0; }));
  EXPECT_GT(all.bytes, inputs.bytes);
  EXPECT_GT(inputs.bytes, nothing.bytes);
}

TEST(Keep, WithoutABackwardLayersTakeNoMemory) {
  EXPECT_EQ(KeptForward(2, Keep::nothing).bytes, KeptForward(7, Keep::nothing).bytes);
}

}  // namespace
}  // namespace smoe
