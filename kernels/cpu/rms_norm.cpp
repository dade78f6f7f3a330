#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"

namespace smoe {
namespace {

// Both directions read a row from memory once: their second loop finds it in the first-level cache.

float forward_row(const float* x, const float* weight, float epsilon, std::int64_t D, float* y) {
  float squares = 0;
#pragma omp simd reduction(+ : squares)
  for (std::int64_t d = 0; d < D; ++d) squares += x[d] * x[d];
  const float rstd = 1.0f / std::sqrt(squares / static_cast<float>(D) + epsilon);
#pragma omp simd
  for (std::int64_t d = 0; d < D; ++d) y[d] = x[d] * rstd * weight[d];
  return rstd;
}

// With g = dy * weight:  dx = rstd * (g - x * rstd^2 * mean(g * x)),  dweight += dy * x * rstd.
void backward_row(const float* dy, const float* x, const float* weight, float rstd, const float* dresidual,
                  std::int64_t D, float* dx, float* dweight) {
  float dot = 0;
#pragma omp simd reduction(+ : dot)
  for (std::int64_t d = 0; d < D; ++d) {
    const float product = dy[d] * x[d];
    dot += product * weight[d];
    dweight[d] += product * rstd;
  }
  const float c = dot * rstd * rstd * rstd / static_cast<float>(D);
  if (dresidual) {
#pragma omp simd
    for (std::int64_t d = 0; d < D; ++d) dx[d] = dresidual[d] + (dy[d] * weight[d] * rstd - x[d] * c);
  } else {
#pragma omp simd
    for (std::int64_t d = 0; d < D; ++d) dx[d] = dy[d] * weight[d] * rstd - x[d] * c;
  }
}

}  // namespace

void CpuBackend::do_rms_norm_forward(const Tensor& x, const Tensor& weight, float epsilon, const Tensor& y,
                                     const Tensor& rstd) {
  const std::int64_t T = x.dim(0), D = x.dim(1);
  const float *px = x.f32(), *pw = weight.f32();
  float *py = y.f32(), *pr = rstd.f32();
  cpu::for_blocks(threads_, T, cpu::block_rows(D), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) pr[t] = forward_row(px + t * D, pw, epsilon, D, py + t * D);
  });
}

void CpuBackend::do_rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& rstd,
                                      const Tensor& dresidual, const Tensor& dx, const Tensor& dweight) {
  const std::int64_t T = x.dim(0), D = x.dim(1);
  if (T == 0) return;
  const float *pdy = dy.f32(), *px = x.f32(), *pw = weight.f32(), *pr = rstd.f32();
  const float* presidual = dresidual.empty() ? nullptr : dresidual.f32();
  float* pdx = dx.f32();

  // dweight is summed per block of rows, then over the blocks in order; the blocks depend on T alone. Where it is not
  // wanted the blocks are summed all the same, so that dx has the same bits.
  const std::int64_t rows = std::max<std::int64_t>(16, cpu::ceil_div(T, 64));
  const std::int64_t blocks = cpu::ceil_div(T, rows);
  float* partial = shared_.take<float>(static_cast<std::size_t>(blocks * D));
  cpu::for_blocks(threads_, T, rows, [=](std::int64_t first, std::int64_t last) {
    float* block_dw = partial + first / rows * D;
    std::fill_n(block_dw, D, 0.0f);
    for (std::int64_t t = first; t < last; ++t)
      backward_row(pdy + t * D, px + t * D, pw, pr[t], presidual ? presidual + t * D : nullptr, D, pdx + t * D,
                   block_dw);
  });
  if (dweight.empty()) return;
  float* pdw = dweight.f32();
  cpu::for_blocks(threads_, D, 256, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = 0; b < blocks; ++b)
#pragma omp simd
      for (std::int64_t d = first; d < last; ++d) pdw[d] += partial[b * D + d];
  });
}

}  // namespace smoe
