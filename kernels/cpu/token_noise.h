// The noise of tokens (kernels/routing.h), and what else is drawn for rows, many numbers at once.
#pragma once

#include <cstdint>

#include "kernels/philox.h"
#include "kernels/routing.h"

namespace smoe::cpu {

// Philox blocks computed side by side; a block is four neighbouring entries, one a word.
inline constexpr int noise_lanes = 16;
inline constexpr std::int64_t noise_entries = 4 * noise_lanes;

// words [noise_entries]: those of the counters (row, column / 4, stream) of a row's columns first .. first + noise_entries - 1;
// first is a multiple of four.
inline void draw_words(std::uint64_t key, std::uint64_t row, std::int64_t first, std::uint32_t stream,
                       std::uint32_t* words) {
  std::uint32_t c[4][noise_lanes];
  for (int i = 0; i < noise_lanes; ++i) {
    c[0][i] = static_cast<std::uint32_t>(row);
    c[1][i] = static_cast<std::uint32_t>(row >> 32);
    c[2][i] = static_cast<std::uint32_t>(first / 4 + i);
    c[3][i] = stream;
  }
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
#pragma omp simd
    for (int i = 0; i < noise_lanes; ++i) philox_round(c[0][i], c[1][i], c[2][i], c[3][i], k0, k1);
    next_philox_key(k0, k1);
  }
  for (int word = 0; word < 4; ++word)
    for (int i = 0; i < noise_lanes; ++i) words[4 * i + word] = c[word][i];
}

// numbers [noise_entries]: the noise, in [-1, 1), of a token's entries first .. first + noise_entries - 1.
inline void draw_noise(const TokenNoise& noise, std::uint64_t token, std::int64_t first, float* numbers) {
  std::uint32_t words[noise_entries];
  draw_words(noise.key, token, first, noise.layer, words);
  for (std::int64_t i = 0; i < noise_entries; ++i)
    numbers[i] = static_cast<float>(static_cast<std::int32_t>(words[i] >> 8)) * 0x1p-23f - 1.0f;  // exact
}

}  // namespace smoe::cpu
