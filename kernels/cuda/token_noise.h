// The noise of tokens (kernels/routing.h), and what else is drawn for rows, four numbers a draw.
#pragma once

#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/philox.h"
#include "kernels/routing.h"

namespace smoe::cuda {

inline constexpr int entries_of_a_draw = 4;  // neighbours in a token's row, one a word

// The words of the counter (row, draw, stream).
__device__ inline void draw_words(std::uint64_t key, std::uint64_t row, int draw, std::uint32_t stream,
                                  std::uint32_t (&c)[entries_of_a_draw]) {
  c[0] = static_cast<std::uint32_t>(row), c[1] = static_cast<std::uint32_t>(row >> 32);
  c[2] = static_cast<std::uint32_t>(draw), c[3] = stream;
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    philox_round(c[0], c[1], c[2], c[3], k0, k1);
    next_philox_key(k0, k1);
  }
}

// The noise, in [-1, 1), of a token's entries 4 draw .. 4 draw + 3.
__device__ inline void draw_noise(const TokenNoise& noise, std::uint64_t token, int draw, float* numbers) {
  std::uint32_t c[entries_of_a_draw];
  draw_words(noise.key, token, draw, noise.layer, c);
#pragma unroll
  for (int i = 0; i < entries_of_a_draw; ++i)
    numbers[i] = static_cast<float>(static_cast<std::int32_t>(c[i] >> 8)) * 0x1p-23f - 1.0f;  // exact
}

}  // namespace smoe::cuda
