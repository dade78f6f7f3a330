#include <cmath>

#include "kernels/cpu/checks.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"

namespace smoe {

// Angles are rounded to f32 where transformers rounds them; only then does the precision rise, so that the table is the
// exact cosine of the angle that transformers uses.
void CpuBackend::do_rope_table(std::span<const float> frequencies, float scale, const Tensor& table) {
  const std::int64_t P = table.dim(0), C = table.dim(1), half = C / 2;
  float* to = table.f32();
  cpu::for_blocks(threads_, P, 64, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = 0; i < half; ++i) {
      const float frequency = frequencies[static_cast<std::size_t>(i)];
      for (std::int64_t p = first; p < last; ++p) {
        const float angle = static_cast<float>(p) * frequency;
        to[p * C + i] = scale * static_cast<float>(std::cos(static_cast<double>(angle)));
        to[p * C + half + i] = scale * static_cast<float>(std::sin(static_cast<double>(angle)));
      }
    }
  });
}

namespace {

// Rotates each pair (i, i + C/2) by +angle, or by -angle where direction is -1: the transpose of a rotation.
void rotate(const char* op, int threads, const Tensor& x, std::int64_t rotated_heads, const Tensor& positions,
            const Tensor& table, float direction) {
  const std::int64_t T = x.dim(0), heads = x.dim(1), C = x.dim(2), half = C / 2, P = table.dim(0);
  const std::int32_t* position = positions.i32();
  cpu::expect_in_range(op, "positions", position, T, P);
  float* px = x.f32();
  const float* pt = table.f32();
  cpu::for_blocks(threads, T, cpu::block_rows(rotated_heads * C), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) {
      const float *cosine = pt + position[t] * C, *sine = cosine + half;
      for (std::int64_t h = 0; h < rotated_heads; ++h) {
        float *low = px + (t * heads + h) * C, *high = low + half;
#pragma omp simd
        for (std::int64_t i = 0; i < half; ++i) {
          const float a = low[i], b = high[i], c = cosine[i], s = direction * sine[i];
          low[i] = a * c - b * s;
          high[i] = b * c + a * s;
        }
      }
    }
  });
}

}  // namespace

void CpuBackend::do_rope_forward(const Tensor& x, std::int64_t rotated_heads, const Tensor& positions,
                                 const Tensor& table) {
  rotate("rope_forward", threads_, x, rotated_heads, positions, table, 1.0f);
}

void CpuBackend::do_rope_backward(const Tensor& dx, std::int64_t rotated_heads, const Tensor& positions,
                                  const Tensor& table) {
  rotate("rope_backward", threads_, dx, rotated_heads, positions, table, -1.0f);
}

}  // namespace smoe
