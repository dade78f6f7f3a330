#include <algorithm>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/philox.h"

namespace smoe {
namespace {

constexpr int lanes = 16;  // philox blocks computed side by side; a block is four neighbouring entries, one a word
constexpr std::int64_t entries = 4 * lanes;

// The factors of a token's entries first .. first + entries - 1.
void jitter_factors(const TokenNoise& noise, std::uint64_t token, std::int64_t first, float* factors) {
  std::uint32_t c[4][lanes];
  for (int i = 0; i < lanes; ++i) {
    c[0][i] = static_cast<std::uint32_t>(token);
    c[1][i] = static_cast<std::uint32_t>(token >> 32);
    c[2][i] = static_cast<std::uint32_t>(first / 4 + i);
    c[3][i] = noise.layer;
  }
  auto k0 = static_cast<std::uint32_t>(noise.key), k1 = static_cast<std::uint32_t>(noise.key >> 32);
  for (int round = 0; round < 10; ++round) {
#pragma omp simd
    for (int i = 0; i < lanes; ++i) philox_round(c[0][i], c[1][i], c[2][i], c[3][i], k0, k1);
    next_philox_key(k0, k1);
  }
  for (int word = 0; word < 4; ++word)
    for (int i = 0; i < lanes; ++i) {
      const float u = static_cast<float>(static_cast<std::int32_t>(c[word][i] >> 8)) * 0x1p-23f - 1.0f;
      factors[4 * i + word] = 1.0f + noise.width * u;
    }
}

}  // namespace

void CpuBackend::do_jitter(const TokenNoise& noise, const Tensor& x, const Tensor& y, Write write) {
  const std::int64_t T = x.dim(0), D = x.dim(1);
  const float* from = x.f32();
  float* to = y.f32();
  cpu::for_blocks(threads_, T, cpu::block_rows(8 * D), [=](std::int64_t first, std::int64_t last) {
    float factors[entries];
    for (std::int64_t t = first; t < last; ++t)
      for (std::int64_t d = 0; d < D; d += entries) {
        jitter_factors(noise, static_cast<std::uint64_t>(noise.first_token + t), d, factors);
        const std::int64_t count = std::min(entries, D - d);
        const float* part = from + t * D + d;
        float* out = to + t * D + d;
        if (write == Write::add)
          for (std::int64_t i = 0; i < count; ++i) out[i] += part[i] * factors[i];
        else
          for (std::int64_t i = 0; i < count; ++i) out[i] = part[i] * factors[i];
      }
  });
}

}  // namespace smoe
