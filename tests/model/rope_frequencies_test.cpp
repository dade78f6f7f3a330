// What the plain rotary embedding is, to the bit: runs and checkpoints that exist were made with it. The scaled ones are
// held against transformers in tests/goldens.
#include "model/rope_frequencies.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>

#include "tests/support/deviation.h"

namespace smoe {
namespace {

ModelConfig with_heads(std::int64_t head_dim, double theta) {
  ModelConfig config;
  config.head_dim = head_dim;
  config.rope_theta = theta;
  return config;
}

TEST(RopeFrequencies, PlainOnesAreThePowersRoundedOnce) {
  for (const std::int64_t head_dim : {2, 6, 10, 64, 128})
    for (const double theta : {1e4, 5e5, 1e6}) {
      const RopeFrequencies rope = rope_frequencies(with_heads(head_dim, theta));
      ASSERT_EQ(rope.frequencies.size(), static_cast<std::size_t>(head_dim / 2));
      EXPECT_EQ(rope.scale, 1.0f);
      for (std::int64_t i = 0; i < head_dim / 2; ++i)
        EXPECT_EQ(rope.frequencies[static_cast<std::size_t>(i)],
                  static_cast<float>(1.0 / std::pow(theta, static_cast<double>(2 * i) / static_cast<double>(head_dim))))
            << head_dim << " " << theta << " " << i;
    }
}

TEST(RopeFrequencies, PlainOnesOfMixtralHaveTheseBits) {
  const RopeFrequencies rope = rope_frequencies(with_heads(128, 1e6));
  EXPECT_EQ(std::bit_cast<std::uint32_t>(rope.frequencies[0]), 0x3f800000u);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(rope.frequencies[1]), 0x3f4e4bacu);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(rope.frequencies[32]), 0x3a83126fu);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(rope.frequencies[63]), 0x35a68e4cu);
}

TEST(RopeFrequencies, DynamicIsPlainUpToTheModelsPositions) {
  ModelConfig config = with_heads(64, 1e4);
  const auto plain = rope_frequencies(config).frequencies;
  config.rope_scaling = {.type = RopeType::dynamic, .factor = 4};
  EXPECT_EQ(rope_frequencies(config).frequencies, plain);
  config.rope_scaling = {.type = RopeType::linear, .factor = 4};
  EXPECT_NE(rope_frequencies(config).frequencies, plain);
}

// With a factor of one there is nothing to stretch, whatever the bounds are.
TEST(RopeFrequencies, AFactorOfOneChangesNothing) {
  ModelConfig config = with_heads(64, 1e4);
  const auto plain = rope_frequencies(config).frequencies;
  for (const RopeType type : {RopeType::linear, RopeType::yarn, RopeType::llama3}) {
    config.rope_scaling = {.type = type, .factor = 1, .original_max_position_embeddings = 512};
    EXPECT_LE(test::elementwise_deviation(rope_frequencies(config).frequencies, plain), 2e-7);
  }
}

}  // namespace
}  // namespace smoe
