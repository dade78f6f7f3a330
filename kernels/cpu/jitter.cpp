#include <algorithm>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/token_noise.h"

namespace smoe {
namespace {

// The factors of a token's entries first .. first + noise_entries - 1.
void jitter_factors(const TokenNoise& noise, std::uint64_t token, std::int64_t first, float* factors) {
  cpu::draw_noise(noise, token, first, factors);
  for (int i = 0; i < cpu::noise_entries; ++i) factors[i] = 1.0f + noise.width * factors[i];
}

}  // namespace

void CpuBackend::do_jitter(const TokenNoise& noise, const Tensor& x, const Tensor& y, Write write) {
  const std::int64_t T = x.dim(0), D = x.dim(1);
  const float* from = x.f32();
  float* to = y.f32();
  cpu::for_blocks(threads_, T, cpu::block_rows(8 * D), [=](std::int64_t first, std::int64_t last) {
    float factors[cpu::noise_entries];
    for (std::int64_t t = first; t < last; ++t)
      for (std::int64_t d = 0; d < D; d += cpu::noise_entries) {
        jitter_factors(noise, static_cast<std::uint64_t>(noise.first_token + t), d, factors);
        const std::int64_t count = std::min(cpu::noise_entries, D - d);
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
