#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"

namespace smoe {
namespace {

double sum_of(const float* x, std::int64_t n) {
  double s = 0;
#pragma omp simd reduction(+ : s)
  for (std::int64_t i = 0; i < n; ++i) s += static_cast<double>(x[i]);
  return s;
}

double sum_of_squares_of(const float* x, std::int64_t n) {
  double s = 0;
#pragma omp simd reduction(+ : s)
  for (std::int64_t i = 0; i < n; ++i) s += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return s;
}

// Sum over blocks of fixed size, each in double, added in order: the same bits on any number of threads.
double sum_in_blocks(int threads, cpu::Workspace& workspace, const float* x, std::int64_t n,
                     double (*sum_block)(const float*, std::int64_t)) {
  double* partial = workspace.take<double>(static_cast<std::size_t>(cpu::ceil_div(n, cpu::block_elements)));
  cpu::for_blocks(threads, n, cpu::block_elements, [=](std::int64_t first, std::int64_t last) {
    partial[first / cpu::block_elements] = sum_block(x + first, last - first);
  });
  double total = 0;
  for (std::int64_t b = 0; b < cpu::ceil_div(n, cpu::block_elements); ++b) total += partial[b];
  return total;
}

}  // namespace

void CpuBackend::do_add(const Tensor& a, const Tensor& b, const Tensor& out) {
  const float* pa = a.f32();
  const float* pb = b.f32();
  float* po = out.f32();
  cpu::for_blocks(threads_, out.elements(), cpu::block_elements, [=](std::int64_t first, std::int64_t last) {
#pragma omp simd
    for (std::int64_t i = first; i < last; ++i) po[i] = pa[i] + pb[i];
  });
}

void CpuBackend::do_sum_rows(const Tensor& parts, const Tensor& out) {
  const std::int64_t count = parts.dim(0), n = out.elements();
  const float* from = parts.f32();
  float* to = out.f32();
  cpu::for_blocks(threads_, n, cpu::block_elements, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) to[i] = 0;
    for (std::int64_t p = 0; p < count; ++p) {
      const float* part = from + p * n;
#pragma omp simd
      for (std::int64_t i = first; i < last; ++i) to[i] += part[i];
    }
  });
}

void CpuBackend::do_sum(const Tensor& x, const Tensor& out) {
  *out.f64() += sum_in_blocks(threads_, shared_, x.f32(), x.elements(), sum_of);
}

void CpuBackend::do_sum_of_squares(const Tensor& x, const Tensor& out) {
  *out.f64() += sum_in_blocks(threads_, shared_, x.f32(), x.elements(), sum_of_squares_of);
}

}  // namespace smoe
