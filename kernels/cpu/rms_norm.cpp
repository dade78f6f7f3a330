#include <cmath>

#include "kernels/cpu/checks.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"

namespace smoe {

// Both directions read a row from memory once: their second loop finds it in the first-level cache.

void CpuBackend::rms_norm_forward(const Tensor& x, const Tensor& weight, float epsilon, const Tensor& y,
                                  const Tensor& rstd) {
  const std::int64_t T = x.dim(0), D = x.dim(1);
  const cpu::Expect expect("rms_norm_forward");
  expect("x", x, {T, D});
  expect("weight", weight, {D});
  expect("y", y, {T, D});
  expect("rstd", rstd, {T});
  const float *px = x.f32(), *pw = weight.f32();
  float *py = y.f32(), *pr = rstd.f32();
  cpu::for_blocks(threads_, T, cpu::block_rows(D), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) {
      const float* row = px + t * D;
      float* to = py + t * D;
      float squares = 0;
#pragma omp simd reduction(+ : squares)
      for (std::int64_t d = 0; d < D; ++d) squares += row[d] * row[d];
      const float r = 1.0f / std::sqrt(squares / static_cast<float>(D) + epsilon);
      pr[t] = r;
#pragma omp simd
      for (std::int64_t d = 0; d < D; ++d) to[d] = row[d] * r * pw[d];
    }
  });
}

// With g = dy * weight:  dx = rstd * (g - x * rstd^2 * mean(g * x)),  dweight = sum_t dy * x * rstd.
void CpuBackend::rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& rstd,
                                   const Tensor& dresidual, const Tensor& dx, const Tensor& dweight) {
  const std::int64_t T = x.dim(0), D = x.dim(1);
  const cpu::Expect expect("rms_norm_backward");
  expect("dy", dy, {T, D});
  expect("x", x, {T, D});
  expect("weight", weight, {D});
  expect("rstd", rstd, {T});
  expect.optional("dresidual", dresidual, {T, D});
  expect("dx", dx, {T, D});
  expect("dweight", dweight, {D});
  if (T == 0) return;
  const float *pdy = dy.f32(), *px = x.f32(), *pw = weight.f32(), *pr = rstd.f32();
  const float* presidual = dresidual.empty() ? nullptr : dresidual.f32();
  float *pdx = dx.f32(), *pdw = dweight.f32();

  // dweight is summed per block of rows, then over the blocks in order; the blocks depend on T alone.
  const std::int64_t rows = std::max<std::int64_t>(16, cpu::ceil_div(T, 64));
  const std::int64_t blocks = cpu::ceil_div(T, rows);
  float* partial = shared_.take<float>(static_cast<std::size_t>(blocks * D));
  cpu::for_blocks(threads_, T, rows, [=](std::int64_t first, std::int64_t last) {
    float* block_dw = partial + first / rows * D;
    std::fill_n(block_dw, D, 0.0f);
    for (std::int64_t t = first; t < last; ++t) {
      const float *g = pdy + t * D, *row = px + t * D;
      float* to = pdx + t * D;
      const float r = pr[t];
      float dot = 0;
#pragma omp simd reduction(+ : dot)
      for (std::int64_t d = 0; d < D; ++d) {
        const float gx = g[d] * row[d];
        dot += gx * pw[d];
        block_dw[d] += gx * r;
      }
      const float c = dot * r * r * r / static_cast<float>(D);
      if (presidual) {
        const float* residual = presidual + t * D;
#pragma omp simd
        for (std::int64_t d = 0; d < D; ++d) to[d] = residual[d] + (g[d] * pw[d] * r - row[d] * c);
      } else {
#pragma omp simd
        for (std::int64_t d = 0; d < D; ++d) to[d] = g[d] * pw[d] * r - row[d] * c;
      }
    }
  });
  cpu::for_blocks(threads_, D, 256, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = 0; b < blocks; ++b)
#pragma omp simd
      for (std::int64_t d = first; d < last; ++d) pdw[d] += partial[b * D + d];
  });
}

}  // namespace smoe
