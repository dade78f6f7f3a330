#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/vector_math.h"

namespace smoe {

void CpuBackend::do_swiglu_forward(const Tensor& h, const Tensor& row_weights, const Tensor& a) {
  const std::int64_t R = a.dim(0), F = a.dim(1);
  const float *ph = h.f32(), *pw = row_weights.empty() ? nullptr : row_weights.f32();
  float* pa = a.f32();
  cpu::for_blocks(threads_, R, cpu::block_rows(2 * F), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t r = first; r < last; ++r) {
      const float *gate = ph + r * 2 * F, *up = gate + F;
      const float w = pw ? pw[r] : 1.0f;
      float* to = pa + r * F;
#pragma omp simd
      for (std::int64_t f = 0; f < F; ++f) to[f] = w * (gate[f] * cpu::vector_sigmoid(gate[f]) * up[f]);
    }
  });
}

// With s = sigmoid(gate): silu' = s * (1 + gate * (1 - s)).
void CpuBackend::do_swiglu_backward(const Tensor& h, const Tensor& row_weights, const Tensor& da, const Tensor& dh,
                                    const Tensor& drow_weights, const Tensor& a) {
  const std::int64_t R = a.dim(0), F = a.dim(1);
  const float *ph = h.f32(), *pda = da.f32(), *pw = row_weights.empty() ? nullptr : row_weights.f32();
  float *pdh = dh.f32(), *pa = a.f32(), *pdw = drow_weights.empty() ? nullptr : drow_weights.f32();
  cpu::for_blocks(threads_, R, cpu::block_rows(2 * F), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t r = first; r < last; ++r) {
      const float *gate = ph + r * 2 * F, *up = gate + F, *d = pda + r * F;
      float *dgate = pdh + r * 2 * F, *dup = dgate + F, *to = pa + r * F;
      const float w = pw ? pw[r] : 1.0f;
      float dw = 0;
#pragma omp simd reduction(+ : dw)
      for (std::int64_t f = 0; f < F; ++f) {
        const float g = gate[f], u = up[f];
        const float s = cpu::vector_sigmoid(g);
        const float silu = g * s;
        const float product = silu * u;
        const float weighted = w * d[f];
        dw += d[f] * product;
        to[f] = w * product;
        dgate[f] = weighted * u * (s * (1.0f + g * (1.0f - s)));
        dup[f] = weighted * silu;
      }
      if (pdw) pdw[r] = dw;
    }
  });
}

}  // namespace smoe
