#include <algorithm>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/philox.h"

namespace smoe {

// A block of philox is four neighbouring entries of a token.
void CpuBackend::do_jitter(const TokenNoise& noise, const Tensor& x, const Tensor& y, Write write) {
  const std::int64_t T = x.dim(0), D = x.dim(1);
  const float* from = x.f32();
  float* to = y.f32();
  cpu::for_blocks(threads_, T, cpu::block_rows(8 * D), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t)
      for (std::int64_t d = 0; d < D; d += 4) {
        const auto bits = philox(noise.key, static_cast<std::uint64_t>(noise.first_token + t),
                                 std::uint64_t{noise.layer} << 32 | static_cast<std::uint64_t>(d / 4));
        for (std::int64_t i = d; i < std::min(d + 4, D); ++i) {
          const float u = static_cast<float>(bits[static_cast<std::size_t>(i - d)] >> 8) * 0x1p-23f - 1.0f;
          const float jittered = from[t * D + i] * (1.0f + noise.width * u);
          to[t * D + i] = write == Write::add ? to[t * D + i] + jittered : jittered;
        }
      }
  });
}

}  // namespace smoe
